//! Finds the bounds of a time in the conditions of a plan: through filters, subqueries, projections and joins.

use crate::domain::executor::time_units::unit_ns;
use crate::domain::executor::timeseries::civil::DAY_NS;
use crate::domain::executor::timeseries::scalars::instant;
use arrow::datatypes::DataType;
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
        LogicalPlan::Union(union) => {
            // Rows of any of them: from the first bound to the last, where all have one.
            let Some(at) = plan.schema().maybe_index_of_column(time) else { return Ok(()) };
            let mut all: Option<Bounds> = None;
            for input in &union.inputs {
                let mut own = [None, None];
                look(&input.schema().columns()[at], input, context, &mut own)?;
                all = Some(match all {
                    None => own,
                    Some([first, last]) => {
                        [first.zip(own[0]).map(|(a, b)| a.min(b)), last.zip(own[1]).map(|(a, b)| a.max(b))]
                    }
                });
            }
            let [first, last] = all.unwrap_or_default();
            first.into_iter().for_each(|at_ns| raise(bounds, at_ns));
            last.into_iter().for_each(|at_ns| lower(bounds, at_ns));
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
    let granule = |expr: &Expr| match bare(expr) {
        Expr::Column(column) if schema.maybe_index_of_column(column) == schema.maybe_index_of_column(time) => {
            granule_ns(expr)
        }
        _ => None,
    };
    let constant = |expr: &Expr| -> Option<ScalarValue> {
        let simplifier = ExprSimplifier::new(context.clone());
        match simplifier.simplify(expr.clone()).ok()? {
            Expr::Literal(value, _) if !value.is_null() => Some(value),
            _ => None,
        }
    };
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value, granule_ns) = if let Some(granule_ns) = granule(left) {
                (Some(*op), constant(right), granule_ns)
            } else if let Some(granule_ns) = granule(right) {
                (op.swap(), constant(left), granule_ns)
            } else {
                return Ok(());
            };
            let Some(value) = value else { return Ok(()) };
            let at_ns = instant(&value)?;
            let behind_ns = at_ns.saturating_add(granule_ns);
            match op {
                Some(Operator::GtEq) => raise(bounds, at_ns),
                Some(Operator::Gt) => raise(bounds, behind_ns),
                Some(Operator::Lt) => lower(bounds, at_ns),
                Some(Operator::LtEq) => lower(bounds, behind_ns),
                Some(Operator::Eq) => {
                    raise(bounds, at_ns);
                    lower(bounds, behind_ns);
                }
                _ => {}
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let Some(granule_ns) = granule(expr) else { return Ok(()) };
            if let Some(low) = constant(low) {
                raise(bounds, instant(&low)?);
            }
            if let Some(high) = constant(high) {
                lower(bounds, instant(&high)?.saturating_add(granule_ns));
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

/// Returns how many nanoseconds have the same value of a time under casts: a day of a DATE. None where a cast is to no time.
fn granule_ns(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Cast(cast) => {
            let own_ns = match cast.field.data_type() {
                DataType::Date64 => DAY_NS,
                other => unit_ns(other)?,
            };
            granule_ns(&cast.expr).map(|inner_ns| inner_ns.max(own_ns))
        }
        Expr::Alias(alias) => granule_ns(&alias.expr),
        _ => Some(1),
    }
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
