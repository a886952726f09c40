//! Puts the filling of gaps above aggregates that ask for it, and gives it what `locf` and `interpolate` say.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::gaps::bounds::{Bounds, bare, bounds_of, simplify_context};
use crate::domain::executor::timeseries::gaps::node::{Fill, Filled, GapFillNode};
use crate::domain::executor::timeseries::scalars::{fills_gaps, gap_bounds};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// Puts a [`GapFillNode`] above each aggregate that asks for it.
#[derive(Debug)]
pub struct FillGaps;

impl AnalyzerRule for FillGaps {
    fn name(&self) -> &str {
        "fill_gaps"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        if !mentions_gaps(&plan)? {
            return Ok(plan);
        }
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => above_aggregate(aggregate, config),
            LogicalPlan::Projection(projection) => with_fills(projection),
            other => Ok(Transformed::no(other)),
        });
        plan.data()
    }
}

/// Returns whether an aggregate groups by a bucket that fills gaps.
///
/// # Errors
///
/// `InvalidQuery` where such a bucket stands anywhere else, where it could fill nothing.
fn mentions_gaps(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let groups = match node {
            LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.len(),
            _ => 0,
        };
        // The first expressions of an aggregate are what it groups by.
        for (at, expr) in node.expressions().iter().enumerate() {
            match gap_call(expr) {
                Some(_) if at < groups => found = true,
                _ => no_gap_call(expr)?,
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn no_gap_call(expr: &Expr) -> Result<()> {
    expr.apply(|inner| match gap_call(inner) {
        Some(call) => Err(refused(format!("{} fills gaps only where GROUP BY has it as it stands", call.func.name()))),
        None => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

fn gap_call(expr: &Expr) -> Option<&ScalarFunction> {
    match bare(expr) {
        Expr::ScalarFunction(call) if fills_gaps(call).is_some() => Some(call),
        _ => None,
    }
}

fn above_aggregate(aggregate: Aggregate, config: &ConfigOptions) -> Result<Transformed<LogicalPlan>> {
    let mut calls =
        aggregate.group_expr.iter().enumerate().filter_map(|(at, expr)| Some((at, gap_call(expr)?.clone())));
    let Some((time, call)) = calls.next() else { return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))) };
    if calls.next().is_some() {
        return Err(refused("gaps are filled by one bucket, not by several".to_owned()));
    }
    let needs_bounds = fills_gaps(&call).unwrap_or(false);
    let own = gap_bounds(&call)?;
    let below: Bounds = match call.args.get(1).map(bare) {
        Some(Expr::Column(column)) if needs_bounds => bounds_of(column, &aggregate.input, &simplify_context(config))?,
        _ => [None, None],
    };
    let bounds = [own[0].or(below[0]), own[1].or(below[1])];
    if needs_bounds && bounds.iter().any(Option::is_none) {
        let name = call.func.name();
        return Err(refused(format!("{name} needs both bounds of its time in WHERE, such as t >= … AND t < …")));
    }
    let groups = aggregate.group_expr.len();
    let aggregates = aggregate.aggr_expr.iter().enumerate();
    let filled = aggregates.map(|(at, expr)| Filled { column: groups + at, fill: empty_answer(expr) }).collect();
    let input = LogicalPlan::Aggregate(aggregate);
    let node = GapFillNode::new(input, call, time, groups, filled, bounds)?;
    Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

/// Returns what an aggregate answers for no rows.
fn empty_answer(expr: &Expr) -> Fill {
    match bare(expr) {
        Expr::AggregateFunction(call) if call.func.name() == "count" => Fill::Zero,
        _ => Fill::Null,
    }
}

/// Gives the node below a projection the fills that it asks for.
fn with_fills(projection: Projection) -> Result<Transformed<LogicalPlan>> {
    let is_asked = projection.expr.iter().any(|expr| expr.exists(|part| Ok(fill_of(part).is_some())).unwrap_or(false));
    if !is_asked {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    }
    let (node, having) = match projection.input.as_ref() {
        LogicalPlan::Extension(extension) => (extension, None),
        LogicalPlan::Filter(Filter { predicate, input, .. }) => match input.as_ref() {
            LogicalPlan::Extension(extension) => (extension, Some(predicate.clone())),
            _ => return Ok(Transformed::no(LogicalPlan::Projection(projection))),
        },
        _ => return Ok(Transformed::no(LogicalPlan::Projection(projection))),
    };
    let Some(gaps) = node.node.as_any().downcast_ref::<GapFillNode>() else {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    };
    let mut filled = gaps.filled.clone();
    let mut exprs = Vec::with_capacity(projection.expr.len());
    for expr in &projection.expr {
        let name = expr.schema_name().to_string();
        let made = expr.clone().transform_up(|part| {
            let Some((column, fill)) = fill_of(&part) else { return Ok(Transformed::no(part)) };
            let Some(at) = column.and_then(|column| gaps.input().schema().maybe_index_of_column(&column)) else {
                return Err(refused("locf and interpolate stand around an aggregate".to_owned()));
            };
            filled.push(Filled { column: at, fill });
            Ok(Transformed::yes(Expr::Column(Column::from_name(GapFillNode::filled_name(filled.len() - 1)))))
        })?;
        exprs.push(if made.transformed && made.data.schema_name().to_string() != name {
            made.data.alias(name)
        } else {
            made.data
        });
    }
    let node = GapFillNode::new(gaps.input().clone(), gaps.call.clone(), gaps.time, gaps.groups, filled, gaps.bounds)?;
    let mut builder = LogicalPlanBuilder::from(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
    if let Some(having) = having {
        builder = builder.filter(having)?;
    }
    builder.project(exprs)?.build().map(Transformed::yes)
}

/// Returns the column that a call fills, where it is one, and how.
fn fill_of(expr: &Expr) -> Option<(Option<Column>, Fill)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let column = match call.args.first().map(bare) {
        Some(Expr::Column(column)) => Some(column.clone()),
        _ => None,
    };
    let fill = match (call.func.name(), call.args.get(1).map(bare)) {
        ("locf", _) => Fill::Previous,
        ("interpolate", _) => Fill::Linear,
        ("__zepto_fill", Some(Expr::Literal(value, _))) => Fill::Constant(value.clone()),
        _ => return None,
    };
    Some((column, fill))
}
