//! Plans joins by time: which rows match, which of them is in force, and what becomes of rows without one.

use crate::domain::executor::error::refused;
use crate::domain::executor::time_units;
use crate::domain::executor::timeseries::aggregates::time_of_plan;
use crate::domain::executor::timeseries::asof::node::{AsOfNode, AsOfSpec, Direction, JoinKey};
use crate::domain::executor::timeseries::asof_condition::{Conditions, Inequality};
use crate::domain::executor::timeseries::keys::time_type;
use crate::domain::executor::timeseries::marker::Marker;
use crate::domain::executor::timeseries::spans::Span;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast,
};
use sqlparser::ast::JoinConstraint;
use std::sync::Arc;

/// Plans a join by time of both sides, as the marker and the constraint say.
///
/// # Errors
///
/// `InvalidQuery` for conditions that say no such join.
pub fn asof_join(
    [left, right]: [LogicalPlan; 2],
    marker: Marker,
    constraint: JoinConstraint,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let both = left.schema().join(right.schema())?;
    let (kept, form) = (marker.text(0), marker.text(1));
    let is_marker = !marker.name.is_empty();
    let condition = if is_marker { marker.given(3).cloned() } else { marker.args.first().cloned() };
    let offset = condition.clone().filter(|_| form == "horizon");
    let condition = condition.filter(|_| offset.is_none());
    let has_condition = condition.is_some();
    let using = using_names(&constraint);
    let mut conditions = Conditions::read([left.schema(), right.schema()], &both, constraint, condition, context)?;
    let is_timed = !conditions.inequalities.is_empty() || conditions.nearest.is_some();
    if has_condition && !is_timed {
        return Err(refused("MATCH_CONDITION takes one inequality of times, such as a.t >= b.t".to_owned()));
    }
    if !is_timed && using.is_empty() && names_the_time(&conditions.keys, [left.schema(), right.schema()])? {
        return Err(refused(
            "a time among the keys of an ASOF JOIN would have to be equal; write a.t >= b.t".to_owned(),
        ));
    }
    let ends_with_time = match conditions.keys.last() {
        Some(last) => names_the_time(std::slice::from_ref(last), [left.schema(), right.schema()])?,
        None => false,
    };
    if (using.len() > 1 || (using.len() == 1 && ends_with_time)) && !is_timed {
        conditions.last_key_is_time()?;
    }
    let is_implicit = conditions.inequalities.is_empty() && conditions.nearest.is_none();
    let (times, mut spec) = matching(&conditions, [&left, &right])?;
    spec.strict |= form == "strict";
    spec.outer = match kept {
        "left" => true,
        "inner" => false,
        _ => has_condition || is_implicit || !is_marker,
    };
    let times = match offset {
        Some(offset) => shifted(times, context.sql_to_expr(offset, &both)?),
        None => times,
    };
    if let Some(tolerance) = marker.given(2).filter(|_| is_marker) {
        let literal = context.sql_to_expr(tolerance.clone(), &DFSchema::empty())?;
        spec.tolerance = Some(in_unit(&literal, &times, [left.schema(), right.schema()])?);
    } else if let Some(tolerance_ns) = spec.tolerance {
        let unit_ns = unit_ns(&times, [left.schema(), right.schema()])?;
        spec.tolerance = Some(tolerance_ns.div_euclid(unit_ns));
    }
    let right = match conditions.right_condition.take() {
        Some(condition) => LogicalPlanBuilder::from(right).filter(condition)?.build()?,
        None => right,
    };
    let shown = shown_columns(&left, &right, &using);
    if form == "splice" {
        if !is_implicit || conditions.left_condition.is_some() || !using.is_empty() {
            return Err(refused(
                "a SPLICE JOIN joins by the times of both sides, and by keys as in ON (symbol)".to_owned(),
            ));
        }
        return splice([left, right], conditions.keys, times, spec);
    }
    let node = AsOfNode::new([left, right], conditions.keys, times, conditions.left_condition, spec)?;
    let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    match shown {
        Some(shown) => LogicalPlanBuilder::from(plan).project(shown)?.build(),
        None => Ok(plan),
    }
}

/// Plans a SPLICE JOIN (QuestDB): each row of the left side with the one of the right side that is in force then, and each row of the
/// right side with that of the left.
fn splice(
    [left, right]: [LogicalPlan; 2],
    keys: Vec<JoinKey>,
    times: [Expr; 2],
    spec: AsOfSpec,
) -> Result<LogicalPlan> {
    let columns = left.schema().columns().into_iter().chain(right.schema().columns()).collect::<Vec<_>>();
    let numbered = |at: usize| format!("__zepto_splice_{at}");
    // The two halves have the same columns, by numbers: a union drops the names of tables.
    let half = |sides: [LogicalPlan; 2], keys: Vec<JoinKey>, times: [Expr; 2]| {
        let node = AsOfNode::new(sides, keys, times, None, spec)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        let shown = columns.iter().enumerate().map(|(at, column)| Expr::Column(column.clone()).alias(numbered(at)));
        LogicalPlanBuilder::from(plan).project(shown)?.build()
    };
    let [left_time, right_time] = times.clone();
    let turned = |key: &JoinKey| JoinKey { left: key.right.clone(), right: key.left.clone(), null_safe: key.null_safe };
    let turned_keys = keys.iter().map(turned).collect();
    let of_left = half([left.clone(), right.clone()], keys, times)?;
    let of_right = half([right, left], turned_keys, [right_time, left_time])?;
    let shown = columns.iter().enumerate().map(|(at, column)| {
        Expr::Column(Column::from_name(numbered(at))).alias_qualified(column.relation.clone(), column.name.clone())
    });
    LogicalPlanBuilder::from(of_left).union(of_right)?.project(shown)?.build()
}

fn using_names(constraint: &JoinConstraint) -> Vec<String> {
    let JoinConstraint::Using(names) = constraint else { return Vec::new() };
    names.iter().filter_map(|name| Some(name.0.last()?.as_ident()?.value.clone())).collect()
}

/// Returns whether one of the keys is a TIMESTAMP on both sides.
fn names_the_time(keys: &[JoinKey], [left, right]: [&DFSchema; 2]) -> Result<bool> {
    for key in keys {
        let types = (key.left.get_type(left)?, key.right.get_type(right)?);
        if matches!(types, (DataType::Timestamp(..), DataType::Timestamp(..))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the columns that USING leaves; none where all are.
fn shown_columns(left: &LogicalPlan, right: &LogicalPlan, using: &[String]) -> Option<Vec<Expr>> {
    if using.is_empty() {
        return None;
    }
    let rest = right.schema().columns().into_iter().filter(|column| !using.contains(&column.name));
    Some(left.schema().columns().into_iter().chain(rest).map(Expr::Column).collect())
}

/// Decides which row is in force, by the conditions; without any by the time columns of both sides.
fn matching(conditions: &Conditions, sides: [&LogicalPlan; 2]) -> Result<([Expr; 2], AsOfSpec)> {
    let mut spec = AsOfSpec { direction: Direction::Backward, strict: false, tolerance: None, outer: false };
    if let Some(times) = &conditions.nearest {
        if !conditions.inequalities.is_empty() {
            return Err(refused("nearest stands alone: it takes no inequality beside it".to_owned()));
        }
        spec.direction = Direction::Nearest;
        return Ok((times.clone(), spec));
    }
    let main = match conditions.inequalities.as_slice() {
        [] => {
            let times = sides.map(|side| time_of_plan(side).map(Expr::Column));
            let [Some(left), Some(right)] = times else {
                return Err(refused("a side of the ASOF JOIN has no time column; say which in ON".to_owned()));
            };
            return Ok(([left, right], spec));
        }
        [main] => main,
        [a, b] => {
            let (main, other) = Inequality::main_of(a, b)?;
            spec.tolerance = Some(main.tolerance_ns(other)?);
            main
        }
        _ => {
            return Err(refused(
                "an ASOF JOIN has one inequality, and one more that bounds how far back it goes".to_owned(),
            ));
        }
    };
    let (direction, strict) = match main.op {
        Operator::GtEq => (Direction::Backward, false),
        Operator::Gt => (Direction::Backward, true),
        Operator::LtEq => (Direction::Forward, false),
        _ => (Direction::Forward, true),
    };
    Ok(([main.left.clone(), main.right.clone()], AsOfSpec { direction, strict, ..spec }))
}

/// Moves the time of the left side by `offset` nanoseconds (HORIZON JOIN).
fn shifted([left, right]: [Expr; 2], offset: Expr) -> [Expr; 2] {
    let ns = |time: Expr| cast(cast(time, DataType::Timestamp(TimeUnit::Nanosecond, None)), DataType::Int64);
    [binary_expr(ns(left), Operator::Plus, cast(offset, DataType::Int64)), ns(right)]
}

/// Returns the nanoseconds of one unit in which times are compared.
fn unit_ns(times: &[Expr; 2], schemas: [&DFSchema; 2]) -> Result<i64> {
    let (left, right) = (times[0].get_type(schemas[0])?, times[1].get_type(schemas[1])?);
    match time_type(&left, &right) {
        Some(known) if known.is_integer() => Ok(1),
        Some(known) if let Some(unit_ns) = time_units::unit_ns(&known) => Ok(unit_ns),
        _ => Err(refused("a tolerance needs times or whole numbers on both sides".to_owned())),
    }
}

fn in_unit(literal: &Expr, times: &[Expr; 2], schemas: [&DFSchema; 2]) -> Result<i64> {
    let value = match literal {
        Expr::Literal(value, _) => value.clone(),
        _ => return Err(refused("the tolerance of a join has to be a constant".to_owned())),
    };
    match Span::read(&value)? {
        Some(Span::Ns(ns)) if ns >= 0 => Ok(ns.div_euclid(unit_ns(times, schemas)?)),
        Some(Span::Ns(ns)) => Err(refused(format!("the tolerance of a join is {ns} ns; it has to be 0 or more"))),
        Some(Span::Months(_)) => Err(refused("the tolerance of a join is no number of months".to_owned())),
        None => Err(refused(format!("the tolerance of a join is {}", ScalarValue::Null))),
    }
}
