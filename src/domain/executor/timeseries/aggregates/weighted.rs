//! Means with weights: `vwap(price, volume)`, `wavg(weight, value)`, `avgWeighted(value, weight)`.
//!
//! A row without value or weight takes no part. Where the weights come to nothing there is no mean.

use crate::domain::executor::timeseries::aggregates::one_group::OneGroup;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use std::sync::Arc;

/// Returns the functions.
pub fn weighted_means() -> [Arc<AggregateUDF>; 2] {
    [false, true].map(|weight_first| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let aliases = if weight_first { Vec::new() } else { vec!["avgweighted".to_owned()] };
        Arc::new(AggregateUDF::from(WeightedMean { weight_first, signature, aliases }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WeightedMean {
    weight_first: bool,
    signature: Signature,
    aliases: Vec<String>,
}

impl AggregateUDFImpl for WeightedMean {
    fn name(&self) -> &str {
        if self.weight_first { "wavg" } else { "vwap" }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Null;
        match types {
            [value, weight] if is_number(value) && is_number(weight) => Ok(vec![DataType::Float64; 2]),
            _ => plan_err!("{} takes two numbers", self.name()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str| Arc::new(Field::new(format!("{}[{part}]", args.name), DataType::Float64, true));
        Ok(vec![field("products"), field("weights")])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Sums::new(self.weight_first))))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sums::new(self.weight_first)))
    }
}

/// For each group the sum of products and the sum of weights.
#[derive(Debug, Clone)]
struct Sums {
    weight_first: bool,
    products: Vec<f64>,
    weights: Vec<f64>,
}

impl Sums {
    fn new(weight_first: bool) -> Self {
        Self { weight_first, products: Vec::new(), weights: Vec::new() }
    }

    fn grow(&mut self, groups: usize) {
        self.products.resize(groups.max(self.products.len()), 0.0);
        self.weights.resize(groups.max(self.weights.len()), 0.0);
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.grow(group_count);
        let [first, second] = values else { return Ok(()) };
        let (value, weight) = if self.weight_first { (second, first) } else { (first, second) };
        let (value, weight) = (value.as_primitive::<Float64Type>(), weight.as_primitive::<Float64Type>());
        if value.null_count() == 0 && weight.null_count() == 0 && filter.is_none() {
            for ((value, weight), group) in value.values().iter().zip(weight.values()).zip(group_indices) {
                self.products[*group] += value * weight;
                self.weights[*group] += weight;
            }
            return Ok(());
        }
        for (row, group) in group_indices.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if passes && value.is_valid(row) && weight.is_valid(row) {
                self.products[*group] += value.value(row) * weight.value(row);
                self.weights[*group] += weight.value(row);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (products, weights) = (emit_to.take_needed(&mut self.products), emit_to.take_needed(&mut self.weights));
        let means =
            products.into_iter().zip(weights).map(|(product, weight)| (weight != 0.0).then(|| product / weight));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let [products, weights] = [&mut self.products, &mut self.weights].map(|sums| emit_to.take_needed(sums));
        Ok(vec![Arc::new(Float64Array::from(products)), Arc::new(Float64Array::from(weights))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], group_count: usize) -> Result<()> {
        self.grow(group_count);
        let [products, weights] = states else { return internal_err!("a weighted mean has two states") };
        let [products, weights] = [products, weights].map(|sums| sums.as_primitive::<Float64Type>());
        for (row, group) in group_indices.iter().enumerate() {
            self.products[*group] += products.value(row);
            self.weights[*group] += weights.value(row);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        // Each row is a group of its own.
        let rows = values.first().map_or(0, |values| values.len());
        let mut each = Self::new(self.weight_first);
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        (self.products.capacity() + self.weights.capacity()) * size_of::<f64>()
    }
}
