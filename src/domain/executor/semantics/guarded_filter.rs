//! Filters that guard what follows them: `WHERE y <> 0 AND x / y > 1`.
//!
//! SQL promises no order, and DataFusion computes both sides of an AND for every row, so that the division fails for a row
//! that the first condition excludes. Users of PostgreSQL and DuckDB write such guards and rely on them. So a filter is
//! split before each condition that can fail: it only sees rows that passed what stands before it.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use std::sync::Arc;

/// Filters that one is split into at most: each copies the rows that pass it.
const STAGES_MAX: usize = 8;

/// Splits filters before each condition that can fail.
#[derive(Debug)]
pub struct GuardFilters;

impl PhysicalOptimizerRule for GuardFilters {
    fn name(&self) -> &str {
        "GuardFilters"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
            Some(filter) => split(filter),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn split(filter: &FilterExec) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut stages: Vec<Vec<Arc<dyn PhysicalExpr>>> = vec![Vec::new()];
    for condition in split_conjunction(filter.predicate()) {
        let stage_count = stages.len();
        let last = stages.last_mut().expect("there is always a stage");
        if !last.is_empty() && stage_count < STAGES_MAX && can_fail(condition) {
            stages.push(vec![condition.clone()]);
        } else {
            last.push(condition.clone());
        }
    }
    let (Some(last), guards) = (stages.pop(), stages) else { return Ok(Transformed::no(Arc::new(filter.clone()))) };
    if guards.is_empty() {
        return Ok(Transformed::no(Arc::new(filter.clone())));
    }
    let stage = |conditions, input| {
        FilterExecBuilder::new(conjunction(conditions), input)
            .with_default_selectivity(filter.default_selectivity())
            .with_batch_size(filter.batch_size())
    };
    let mut input = filter.input().clone();
    for guard in guards {
        input = Arc::new(stage(guard, input).build()?);
    }
    let last = stage(last, input).with_fetch(filter.fetch()).apply_projection_by_ref(filter.projection().as_ref())?;
    Ok(Transformed::yes(Arc::new(last.build()?)))
}

/// Returns whether a condition is an error for some values: a division, a cast, checked arithmetic.
fn can_fail(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let mut fails = false;
    // Looking at an expression is never an error.
    let _ = condition.apply(|expr| {
        let divides = expr
            .downcast_ref::<BinaryExpr>()
            .is_some_and(|binary| matches!(binary.op(), Operator::Divide | Operator::Modulo));
        // Arithmetic on floats, checked or not, has a value for every row.
        let calls = expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| !call.return_type().is_floating());
        fails = divides || calls || expr.is::<CastExpr>();
        Ok(if fails { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    fails
}
