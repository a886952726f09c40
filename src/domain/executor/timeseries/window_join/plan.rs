//! Plans a window join from its condition and the aggregates that were lifted out of the SELECT.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::aggregates::time_of_plan;
use crate::domain::executor::timeseries::asof_condition::{Conditions, Inequality};
use crate::domain::executor::timeseries::spans::Span;
use crate::domain::executor::timeseries::window_join::node::{WindowJoinNode, WindowParts};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr};
use sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, JoinConstraint, Value};
use std::sync::Arc;

/// Plans the join of `sides`; `args` are those of its marker: both ends of the window or NULL, what to do about the row in force
/// when it opens, and the aggregates.
///
/// # Errors
///
/// `InvalidQuery` for a window without two ends, and for aggregates that are not of the right side.
pub fn window_join(
    [left, right]: [LogicalPlan; 2],
    constraint: JoinConstraint,
    args: &[SqlExpr],
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let [from, to, prevailing, aggregates @ ..] = args else { return plan_err!("a window join has a window") };
    let both = left.schema().join(right.schema())?;
    let mut conditions = Conditions::read([left.schema(), right.schema()], &both, constraint, None, context)?;
    let (window, time) = match (is_null(from), is_null(to)) {
        (true, true) => window_of(&conditions.inequalities)?,
        _ => {
            let times = [&left, &right].map(|side| time_of_plan(side).map(Expr::Column));
            let [Some(at), Some(time)] = times else {
                return Err(refused("a side of the WINDOW JOIN has no time column".to_owned()));
            };
            if !conditions.inequalities.is_empty() {
                return Err(refused("a WINDOW JOIN has its window in RANGE or in ON, not in both".to_owned()));
            }
            ([bound(from, &at, left.schema(), context)?, bound(to, &at, left.schema(), context)?], time)
        }
    };
    let mut planned = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        let expr = context.sql_to_expr(aggregate.clone(), &both)?;
        let is_right = expr.column_refs().iter().all(|column| right.schema().maybe_index_of_column(column).is_some());
        // `count(*)` comes under a name.
        match expr.unalias() {
            Expr::AggregateFunction(call) if is_right && call.params.order_by.is_empty() => {
                planned.push(Expr::AggregateFunction(call));
            }
            _ => return Err(refused(format!("{aggregate} is no aggregate of the right side of the WINDOW JOIN"))),
        }
    }
    let right = match conditions.right_condition.take() {
        Some(condition) => LogicalPlanBuilder::from(right).filter(condition)?.build()?,
        None => right,
    };
    let prevailing =
        matches!(prevailing, SqlExpr::Value(value) if value.value == Value::SingleQuotedString("include".to_owned()));
    let parts = WindowParts {
        keys: conditions.keys,
        window,
        time,
        left_condition: conditions.left_condition,
        aggregates: planned,
        prevailing,
    };
    let node = WindowJoinNode::new([left, right], parts)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

fn is_null(expr: &SqlExpr) -> bool {
    matches!(expr, SqlExpr::Value(value) if value.value == Value::Null)
}

/// Finds both ends of the window in the conditions.
fn window_of(inequalities: &[Inequality]) -> Result<([Expr; 2], Expr)> {
    let refuse = || {
        refused("a WINDOW JOIN needs a window: RANGE BETWEEN …, or `b.t BETWEEN a.t - … AND a.t + …` in ON".to_owned())
    };
    let [a, b] = inequalities else { return Err(refuse()) };
    let (low, high) = match (a.op, b.op) {
        (Operator::LtEq, Operator::GtEq) => (a, b),
        (Operator::GtEq, Operator::LtEq) => (b, a),
        (Operator::Lt | Operator::Gt, _) | (_, Operator::Lt | Operator::Gt) => {
            return Err(refused("both ends of a window belong to it; use >= and <=, or BETWEEN".to_owned()));
        }
        _ => return Err(refuse()),
    };
    if low.right != high.right {
        return Err(refused("both ends of a window bound the same time".to_owned()));
    }
    Ok(([low.left.clone(), high.left.clone()], low.right.clone()))
}

/// Makes the end of a window of `__zepto_bound(direction, span)`, or 0.
fn bound(marker: &SqlExpr, at: &Expr, schema: &DFSchema, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
    let SqlExpr::Function(call) = marker else { return Ok(at.clone()) };
    let FunctionArguments::List(list) = &call.args else { return plan_err!("a bound has a span") };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(direction)), FunctionArg::Unnamed(FunctionArgExpr::Expr(span))] =
        list.args.as_slice()
    else {
        return plan_err!("a bound has a direction and a span");
    };
    let is_before =
        matches!(direction, SqlExpr::Value(value) if value.value == Value::SingleQuotedString("before".to_owned()));
    let op = if is_before { Operator::Minus } else { Operator::Plus };
    let span = match context.sql_to_expr(span.clone(), schema)? {
        Expr::Literal(value, _) => match Span::read(&value)? {
            Some(Span::Ns(ns)) => Expr::Literal(ScalarValue::new_interval_mdn(0, 0, ns), None),
            Some(Span::Months(months)) => match i32::try_from(months) {
                Ok(months) => Expr::Literal(ScalarValue::new_interval_mdn(months, 0, 0), None),
                Err(_) => return Err(refused("a window is too long".to_owned())),
            },
            None => return Err(refused("a bound of a WINDOW JOIN is NULL".to_owned())),
        },
        expr => expr,
    };
    Ok(binary_expr(at.clone(), op, span))
}
