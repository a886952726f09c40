//! What a join by time computes from the columns of its sides.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

/// The expressions of a join, over the columns of their sides.
#[derive(Debug, Clone)]
pub struct AsOfExprs {
    /// The keys of both sides.
    pub keys: [Vec<Arc<dyn PhysicalExpr>>; 2],
    /// The types under which keys are compared.
    pub key_types: Vec<DataType>,
    /// For each key whether NULL is equal to NULL.
    pub null_safe: Vec<bool>,
    /// The times of both sides.
    pub times: [Arc<dyn PhysicalExpr>; 2],
    /// The type under which times are compared.
    pub time_type: DataType,
    /// How many columns of each side are answered; the others are for the expressions alone.
    pub widths: [usize; 2],
    /// Rows of the left side for which it is not true have no match.
    pub left_condition: Option<Arc<dyn PhysicalExpr>>,
}

/// Evaluates expressions.
///
/// # Errors
///
/// Theirs.
pub fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}
