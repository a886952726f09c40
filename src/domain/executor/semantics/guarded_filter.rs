//! Filters that guard what follows them: `WHERE y <> 0 AND x / y > 1`.
//!
//! SQL promises no order, and DataFusion computes both sides of an AND for every row, so that the division fails for a row
//! that the first condition excludes. Users of PostgreSQL and DuckDB write such guards and rely on them. So a filter is
//! split before the first condition that can fail: the rest only sees rows that passed what stands before it.

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

/// Splits filters before the first condition that can fail.
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
    let conditions: Vec<_> = split_conjunction(filter.predicate()).into_iter().cloned().collect();
    let first = conditions.iter().position(can_fail).unwrap_or(0);
    if first == 0 {
        return Ok(Transformed::no(Arc::new(filter.clone())));
    }
    let (guards, rest) = conditions.split_at(first);
    let guard = FilterExecBuilder::new(conjunction(guards.to_vec()), filter.input().clone())
        .with_default_selectivity(filter.default_selectivity())
        .with_batch_size(filter.batch_size())
        .build()?;
    let rest = FilterExecBuilder::new(conjunction(rest.to_vec()), Arc::new(guard))
        .with_default_selectivity(filter.default_selectivity())
        .with_batch_size(filter.batch_size())
        .with_fetch(filter.fetch())
        .apply_projection_by_ref(filter.projection().as_ref())?
        .build()?;
    Ok(Transformed::yes(Arc::new(rest)))
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
