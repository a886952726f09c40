//! Finds the bounds of a time in the conditions of a plan: through filters, subqueries, projections and joins.

use crate::domain::executor::timeseries::scalars::instant;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use std::sync::Arc;

/// The first instant and the one behind the last, in nanoseconds, as far as they are known.
pub type Bounds = [Option<i64>; 2];

/// Returns the bounds of `time` in the conditions of `plan` and below it.
///
/// # Errors
///
/// `InvalidQuery` where a bound is beyond what nanoseconds can hold.
pub fn bounds_of(time: &Column, plan: &LogicalPlan, context: &SimplifyContext) -> Result<Bounds> {
    let mut bounds = [None, None];
    look(time, plan, context, &mut bounds)?;
    Ok(bounds)
}

fn look(time: &Column, plan: &LogicalPlan, context: &SimplifyContext, bounds: &mut Bounds) -> Result<()> {
    match plan {
        LogicalPlan::Filter(filter) => {
            for condition in split_conjunction(&filter.predicate) {
                condition_bounds(time, condition, plan.schema(), context, bounds)?;
            }
            look(time, &filter.input, context, bounds)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(at) = plan.schema().maybe_index_of_column(time) else { return Ok(()) };
            look(&alias.input.schema().columns()[at], &alias.input, context, bounds)
        }
        LogicalPlan::Projection(projection) => {
            let Some(at) = plan.schema().maybe_index_of_column(time) else { return Ok(()) };
            match projection.expr[at].clone().unalias() {
                Expr::Column(column) => look(&column, &projection.input, context, bounds),
                _ => Ok(()),
            }
        }
        LogicalPlan::TableScan(scan) => {
            for condition in &scan.filters {
                condition_bounds(time, condition, plan.schema(), context, bounds)?;
            }
            Ok(())
        }
        other => {
            let inputs = other.inputs();
            inputs
                .into_iter()
                .filter(|input| input.schema().has_column(time))
                .try_for_each(|input| look(time, input, context, bounds))
        }
    }
}

fn condition_bounds(
    time: &Column,
    condition: &Expr,
    schema: &DFSchema,
    context: &SimplifyContext,
    bounds: &mut Bounds,
) -> Result<()> {
    let is_time = |expr: &Expr| matches!(bare(expr), Expr::Column(column) if schema.maybe_index_of_column(column) == schema.maybe_index_of_column(time));
    let constant = |expr: &Expr| -> Option<ScalarValue> {
        let simplifier = ExprSimplifier::new(context.clone());
        match simplifier.simplify(expr.clone()).ok()? {
            Expr::Literal(value, _) if !value.is_null() => Some(value),
            _ => None,
        }
    };
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = if is_time(left) {
                (Some(*op), constant(right))
            } else if is_time(right) {
                (op.swap(), constant(left))
            } else {
                return Ok(());
            };
            let Some(value) = value else { return Ok(()) };
            let at_ns = instant(&value)?;
            match op {
                Some(Operator::GtEq) => raise(bounds, at_ns),
                Some(Operator::Gt) => raise(bounds, at_ns.saturating_add(1)),
                Some(Operator::Lt) => lower(bounds, at_ns),
                Some(Operator::LtEq) => lower(bounds, at_ns.saturating_add(1)),
                Some(Operator::Eq) => {
                    raise(bounds, at_ns);
                    lower(bounds, at_ns.saturating_add(1));
                }
                _ => {}
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_time(expr) => {
            if let Some(low) = constant(low) {
                raise(bounds, instant(&low)?);
            }
            if let Some(high) = constant(high) {
                lower(bounds, instant(&high)?.saturating_add(1));
            }
        }
        _ => {}
    }
    Ok(())
}

fn raise(bounds: &mut Bounds, at_ns: i64) {
    bounds[0] = Some(bounds[0].map_or(at_ns, |known| known.max(at_ns)));
}

fn lower(bounds: &mut Bounds, at_ns: i64) {
    bounds[1] = Some(bounds[1].map_or(at_ns, |known| known.min(at_ns)));
}

/// Returns an expression without the casts around it.
pub fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => bare(&cast.expr),
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

/// Makes the context in which conditions are computed: now.
pub fn simplify_context(config: &ConfigOptions) -> SimplifyContext {
    SimplifyContext::builder().with_config_options(Arc::new(config.clone())).with_current_time().build()
}
