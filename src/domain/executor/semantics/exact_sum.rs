//! `sum` of 64-bit integers that is right or an error.
//!
//! DataFusion adds integers in 64 bits and lets the sum wrap. Here it is taken in 128 bits, in which no number of rows
//! overflows, and is an error only if the whole does not fit into the column's type. Partial sums travel as decimals.

use crate::domain::executor::error::refused;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};
use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

/// The type of a partial sum.
const STATE: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// Returns the function; it takes INT64 or UINT64.
pub fn exact_sum() -> Arc<AggregateUDF> {
    static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::uniform(1, vec![DataType::Int64, DataType::UInt64], Volatility::Immutable);
        Arc::new(AggregateUDF::from(ExactSum { signature }))
    });
    SUM.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    signature: Signature,
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [only] => Ok(only.clone()),
            _ => internal_err!("sum has one argument"),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match args.return_field.data_type() {
            DataType::UInt64 => Ok(Box::new(Whole::<UInt64Type>::default())),
            _ => Ok(Box::new(Whole::<Int64Type>::default())),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sum]", args.name), STATE, true))])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match args.return_field.data_type() {
            DataType::UInt64 => Ok(Box::new(Groups::<UInt64Type>::default())),
            _ => Ok(Box::new(Groups::<Int64Type>::default())),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// A type of integers that is summed.
trait Summed: ArrowPrimitiveType<Native: Debug> {
    /// Adds up a batch, in two halves that cannot overflow: a loop without a carry, which the compiler makes vectors of.
    fn batch_sum(values: &[Self::Native]) -> i128;
    /// Widens a value.
    fn wide(value: Self::Native) -> i128;
    /// Narrows a sum, where it fits.
    fn narrow(sum: i128) -> Option<Self::Native>;
}

macro_rules! summed {
    ($type:ty, $half:ty) => {
        impl Summed for $type {
            fn batch_sum(values: &[Self::Native]) -> i128 {
                // A batch has far fewer than 2^31 rows.
                let (mut high, mut low): ($half, u64) = (0, 0);
                for value in values {
                    high += value >> 32;
                    low += (value & 0xffff_ffff) as u64;
                }
                (i128::from(high) << 32) + i128::from(low)
            }

            fn wide(value: Self::Native) -> i128 {
                i128::from(value)
            }

            fn narrow(sum: i128) -> Option<Self::Native> {
                sum.try_into().ok()
            }
        }
    };
}

summed!(Int64Type, i64);
summed!(UInt64Type, u64);

fn narrowed<T: Summed>(sum: i128) -> Result<T::Native> {
    T::narrow(sum).ok_or_else(|| refused(format!("the sum {sum} does not fit into {}", T::DATA_TYPE)))
}

/// The sum of all rows; none before the first.
#[derive(Debug)]
struct Whole<T> {
    sum: Option<i128>,
    of: std::marker::PhantomData<T>,
}

impl<T> Default for Whole<T> {
    fn default() -> Self {
        Self { sum: None, of: std::marker::PhantomData }
    }
}

impl<T: Summed> Whole<T> {
    fn add(&mut self, more: i128) {
        self.sum = Some(self.sum.unwrap_or(0) + more);
    }
}

impl<T: Summed + Debug + Send + Sync> Accumulator for Whole<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return internal_err!("sum has one argument") };
        let values = values.as_primitive::<T>();
        if values.null_count() == 0 && !values.is_empty() {
            self.add(T::batch_sum(values.values()));
        } else {
            values.iter().flatten().for_each(|value| self.add(T::wide(value)));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.sum.map(narrowed::<T>).transpose()?;
        ScalarValue::try_from_array(&PrimitiveArray::<T>::from_iter([sum]), 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128(self.sum, DECIMAL128_MAX_PRECISION, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [sums] = states else { return internal_err!("sum has one state") };
        sums.as_primitive::<Decimal128Type>().iter().flatten().for_each(|sum| self.add(sum));
        Ok(())
    }
}

/// The sum of each group; none where it has no value yet.
#[derive(Debug)]
struct Groups<T> {
    sums: Vec<i128>,
    seen: Vec<bool>,
    of: std::marker::PhantomData<T>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { sums: Vec::new(), seen: Vec::new(), of: std::marker::PhantomData }
    }
}

impl<T: Summed> Groups<T> {
    fn add(
        &mut self,
        rows: impl Iterator<Item = Option<i128>>,
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) {
        self.sums.resize(group_count, 0);
        self.seen.resize(group_count, false);
        for (row, (value, group)) in rows.zip(group_indices).enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let Some(value) = value.filter(|_| passes) {
                self.sums[*group] += value;
                self.seen[*group] = true;
            }
        }
    }

    fn take(&mut self, emit_to: EmitTo) -> impl Iterator<Item = Option<i128>> + use<T> {
        let (sums, seen) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.seen));
        sums.into_iter().zip(seen).map(|(sum, seen)| seen.then_some(sum))
    }
}

impl<T: Summed + Debug + Send + Sync> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        let [values] = values else { return internal_err!("sum has one argument") };
        let values = values.as_primitive::<T>();
        if values.null_count() == 0 {
            let rows = values.values().iter().map(|value| Some(T::wide(*value)));
            self.add(rows, group_indices, filter, group_count);
        } else {
            self.add(values.iter().map(|value| value.map(T::wide)), group_indices, filter, group_count);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums: Result<Vec<_>> = self.take(emit_to).map(|sum| sum.map(narrowed::<T>).transpose()).collect();
        Ok(Arc::new(PrimitiveArray::<T>::from_iter(sums?)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums: Decimal128Array = self.take(emit_to).collect();
        Ok(vec![Arc::new(sums.with_data_type(STATE))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], group_count: usize) -> Result<()> {
        let [sums] = states else { return internal_err!("sum has one state") };
        self.add(sums.as_primitive::<Decimal128Type>().iter(), group_indices, None, group_count);
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else { return internal_err!("sum has one argument") };
        let passes = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let values = values.as_primitive::<T>().iter().enumerate();
        let sums: Decimal128Array = values.map(|(row, value)| value.filter(|_| passes(row)).map(T::wide)).collect();
        Ok(vec![Arc::new(sums.with_data_type(STATE))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::semantics::exact_sum::Summed;
    use arrow::datatypes::{Int64Type, UInt64Type};

    #[test]
    fn halves_add_up() {
        let values = [i64::MAX, i64::MIN, i64::MAX, -1, 1 << 32, -(1 << 32), 7];
        assert_eq!(Int64Type::batch_sum(&values), values.iter().map(|value| i128::from(*value)).sum());
        assert_eq!(UInt64Type::batch_sum(&[u64::MAX, u64::MAX]), 2 * i128::from(u64::MAX));
        assert_eq!(Int64Type::narrow(1 << 63), None);
    }
}
