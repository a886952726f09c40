//! ORDER BY … LIMIT over a table: segments that cannot hold one of the first rows are not read.
//!
//! Of each segment the smallest and largest value of a column are known. The segments whose values reach furthest hold enough rows
//! to fill the limit, and a segment all of whose values lie behind theirs holds none of them.

use crate::domain::executor::scan::ScanExec;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use std::cmp::Ordering;
use std::sync::Arc;

/// Leaves segments out below sorts with a limit.
#[derive(Debug)]
pub struct SkipBehindLimit;

impl PhysicalOptimizerRule for SkipBehindLimit {
    fn name(&self) -> &str {
        "SkipBehindLimit"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some((sort, rows)) = node.downcast_ref::<SortExec>().and_then(|sort| Some((sort, sort.fetch()?)))
            else {
                return Ok(Transformed::no(node));
            };
            let order = sort.expr().first();
            let Some(column) = order.expr.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
            let first = First { descending: order.options.descending, nulls_first: order.options.nulls_first, rows };
            match below(sort.input(), column.index(), first)? {
                Some(input) => replaced(&node, input).map(Transformed::yes),
                None => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Which rows are wanted: so many, from one end of a column.
#[derive(Debug, Clone, Copy)]
pub struct First {
    /// Whether the largest values come first.
    pub descending: bool,
    /// Whether nulls come before all values.
    pub nulls_first: bool,
    /// How many rows.
    pub rows: usize,
}

impl First {
    /// Returns whether a value comes before another.
    pub fn is_before(&self, a: &ScalarValue, b: &ScalarValue) -> bool {
        a.partial_cmp(b) == Some(if self.descending { Ordering::Greater } else { Ordering::Less })
    }
}

/// Returns `plan` without what is not needed for the first rows by column `at`; none where nothing can be left out.
fn below(plan: &Arc<dyn ExecutionPlan>, at: usize, first: First) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        return Ok(scan.with_first(at, first).map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>));
    }
    let Some(projection) = plan.downcast_ref::<ProjectionExec>() else { return Ok(None) };
    let Some(column) = projection.expr()[at].expr.downcast_ref::<Column>() else { return Ok(None) };
    match below(projection.input(), column.index(), first)? {
        Some(input) => replaced(plan, input).map(Some),
        None => Ok(None),
    }
}

fn replaced(plan: &Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    replace_children_if_necessary(plan.clone(), vec![input])
}
