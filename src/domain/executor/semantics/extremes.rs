//! `min` and `max` of floats in groups.
//!
//! DataFusion 55.2 starts each group at the largest or smallest finite float, so that the minimum of a group which holds
//! nothing but infinity is 1.8e308. Here a group starts without a value, and NaN is the largest one, as it is where rows are
//! compared and sorted. Half floats are left to DataFusion.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use std::any::Any;
use std::cmp::Ordering;
use std::sync::Arc;

/// Returns the functions that take the place of DataFusion's.
pub fn extremes(known: &[Arc<AggregateUDF>]) -> Vec<Arc<AggregateUDF>> {
    let ours = |function: &Arc<AggregateUDF>| {
        let wins = match function.name() {
            "min" => Ordering::Less,
            "max" => Ordering::Greater,
            _ => return None,
        };
        Some(Arc::new(AggregateUDF::from(Extreme { inner: function.clone(), wins })))
    };
    known.iter().filter_map(ours).collect()
}

/// DataFusion's `min` or `max`, but for floats in groups.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
    /// How a value compares with the one before if it takes its place.
    wins: Ordering,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let wins = self.wins;
        match args.return_field.data_type() {
            DataType::Float32 => Ok(Box::new(GroupExtremes::<Float32Type>::new(wins))),
            DataType::Float64 => Ok(Box::new(GroupExtremes::<Float64Type>::new(wins))),
            _ => self.inner.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.value_from_stats(statistics)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

/// The extreme of each group, none where it has no value yet.
struct GroupExtremes<T: ArrowPrimitiveType> {
    groups: Vec<Option<T::Native>>,
    wins: Ordering,
}

impl<T: ArrowPrimitiveType> GroupExtremes<T>
where
    T::Native: TotalFloat,
{
    fn new(wins: Ordering) -> Self {
        Self { groups: Vec::new(), wins }
    }

    fn take(&mut self, group: usize, value: T::Native) {
        let before = &mut self.groups[group];
        if before.is_none_or(|before| value.total_order(before) == self.wins) {
            *before = Some(value);
        }
    }
}

/// A float with a total order in which NaN is the largest whatever its sign.
trait TotalFloat: Copy {
    fn total_order(self, other: Self) -> Ordering;
}

macro_rules! total_float {
    ($($float:ty),+) => {
        $(impl TotalFloat for $float {
            fn total_order(self, other: Self) -> Ordering {
                // Only NaN does not compare.
                self.partial_cmp(&other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        })+
    };
}

total_float!(f32, f64);

impl<T> GroupsAccumulator for GroupExtremes<T>
where
    T: ArrowPrimitiveType + Any + Send + Sync,
    T::Native: TotalFloat,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        let [values] = values else { return internal_err!("min and max have one argument") };
        let values = values.as_primitive::<T>();
        self.groups.resize(group_count, None);
        let passes = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        if values.null_count() == 0 && filter.is_none() {
            for (value, group) in values.values().iter().zip(group_indices) {
                self.take(*group, *value);
            }
            return Ok(());
        }
        for (row, group) in group_indices.iter().enumerate() {
            if values.is_valid(row) && passes(row) {
                self.take(*group, values.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(Arc::new(PrimitiveArray::<T>::from_iter(groups)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.evaluate(emit_to).map(|extremes| vec![extremes])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], group_count: usize) -> Result<()> {
        self.update_batch(values, group_indices, None, group_count)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return internal_err!("min and max have one argument") };
        let state = match filter {
            None => values.clone(),
            Some(filter) => {
                let left_out = arrow::compute::not(&arrow::compute::prep_null_mask_filter(filter))?;
                arrow::compute::nullif(values, &left_out)?
            }
        };
        Ok(vec![state])
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Option<T::Native>>()
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::semantics::extremes::TotalFloat;
    use std::cmp::Ordering;

    #[test]
    fn nan_is_the_largest_whatever_its_sign() {
        assert_eq!((-f64::NAN).total_order(f64::INFINITY), Ordering::Greater);
        assert_eq!(f64::NEG_INFINITY.total_order(-f64::NAN), Ordering::Less);
        assert_eq!((-f64::NAN).total_order(f64::NAN), Ordering::Equal);
        assert_eq!(0.0.total_order(-0.0), Ordering::Equal);
    }
}
