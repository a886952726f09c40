//! Keys of rows read by their codes.

use crate::domain::executor::scan::ScanExec;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use std::sync::Arc;

/// Has a single key that is a column of text of a table read by its codes, which are there already.
///
/// # Errors
///
/// DataFusion's.
pub fn by_codes(input: Arc<dyn ExecutionPlan>, keys: &mut [Arc<dyn PhysicalExpr>]) -> Result<Arc<dyn ExecutionPlan>> {
    let [key] = keys else { return Ok(input) };
    let Some(column) = key.downcast_ref::<Column>() else { return Ok(input) };
    let (scan, filter) = match input.downcast_ref::<FilterExec>() {
        Some(filter) if filter.projection().is_none() && filter.fetch().is_none() => (filter.input(), Some(filter)),
        Some(_) => return Ok(input),
        None => (&input, None),
    };
    let Some(coded) = scan.downcast_ref::<ScanExec>().and_then(|scan| scan.with_codes(column.index())) else {
        return Ok(input);
    };
    let at = coded.schema().fields().len() - 1;
    *key = Arc::new(Column::new(coded.schema().field(at).name(), at));
    let coded: Arc<dyn ExecutionPlan> = Arc::new(coded);
    match filter {
        Some(filter) => Ok(Arc::new(FilterExecBuilder::new(filter.predicate().clone(), coded).build()?)),
        None => Ok(coded),
    }
}
