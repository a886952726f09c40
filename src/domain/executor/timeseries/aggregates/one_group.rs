//! One group by the accumulator of many: so each aggregate says once what it does.

use arrow::array::{Array, ArrayRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use std::fmt::Debug;

/// An accumulator of the only group of `G`.
#[derive(Debug)]
pub struct OneGroup<G>(pub G);

impl<G: GroupsAccumulator + Clone + Debug + Send + Sync> Accumulator for OneGroup<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |values| values.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // A window asks again after more rows.
        let mut now = self.0.clone();
        now.update_batch(&[], &[], None, 1)?;
        ScalarValue::try_from_array(&now.evaluate(EmitTo::All)?, 0)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut now = self.0.clone();
        now.update_batch(&[], &[], None, 1)?;
        now.state(EmitTo::All)?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |states| states.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }
}
