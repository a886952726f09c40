//! Filters that guard what follows them: `WHERE y <> 0 AND x / y > 1`.
//!
//! SQL promises no order, and DataFusion computes both sides of an AND for every row, so that the division fails for a row
//! that the first condition excludes. Users of PostgreSQL and DuckDB write such guards and rely on them. So a filter is
//! split before each condition that can fail: it only sees rows that passed what stands before it.

use arrow::datatypes::{DataType, Schema};
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
    let schema = filter.input().schema();
    let mut stages: Vec<Vec<Arc<dyn PhysicalExpr>>> = vec![Vec::new()];
    for condition in split_conjunction(filter.predicate()) {
        match stages.last_mut() {
            Some(last) if last.is_empty() || !can_fail(condition, &schema) => last.push(condition.clone()),
            _ => stages.push(vec![condition.clone()]),
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
fn can_fail(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let mut fails = false;
    // Looking at an expression is never an error.
    let _ = condition.apply(|expr| {
        let divides = expr
            .downcast_ref::<BinaryExpr>()
            .is_some_and(|binary| matches!(binary.op(), Operator::Divide | Operator::Modulo));
        // Arithmetic on floats, checked or not, has a value for every row.
        let calls = expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| !call.return_type().is_floating());
        let casts = expr.downcast_ref::<CastExpr>().is_some_and(|cast| !is_total_cast(cast, schema));
        fails = divides || calls || casts;
        Ok(if fails { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    fails
}

/// Returns whether a cast has a value for every row: to text, and to a number that holds all of the one before.
fn is_total_cast(cast: &CastExpr, schema: &Schema) -> bool {
    let Ok(from) = cast.expr().data_type(schema) else { return false };
    let to = cast.cast_type();
    let widens = match (from.primitive_width(), to.primitive_width()) {
        (Some(before), Some(after)) => before < after || (before == after && from == *to),
        _ => false,
    };
    let integers = from.is_integer() && to.is_integer() && (from.is_signed_integer() == to.is_signed_integer());
    let unsigned_to_signed = from.is_unsigned_integer() && to.is_signed_integer();
    let to_float = (from.is_integer() || from.is_floating()) && matches!(to, DataType::Float64);
    let to_text = matches!(to, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) && from.is_primitive();
    to_text || to_float || (widens && (integers || unsigned_to_signed))
}
