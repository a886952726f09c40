//! Plans joins by time and LATEST ON, as `sql/timeseries` has prepared them: nested joins whose last join has a marker.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::aggregates::time_column;
use crate::domain::executor::timeseries::asof::{AsOfNode, AsOfSpec, Direction};
use crate::domain::executor::timeseries::asof_condition::{Conditions, Inequality};
use crate::domain::executor::timeseries::keys::time_type;
use crate::domain::executor::timeseries::latest::LatestNode;
use crate::domain::executor::timeseries::sampling::sampling;
use crate::domain::executor::timeseries::spans::Span;
use crate::domain::executor::timeseries::window_join::window_join;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue, plan_err};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast, lit,
};
use sqlparser::ast::{
    self, Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, JoinConstraint, JoinOperator, TableFactor,
    TableSampleKind, TableSampleModifier, TableWithJoins, Value,
};
use std::sync::Arc;

/// Plans what `sql/timeseries` has prepared.
#[derive(Debug)]
pub struct TimeRelations;

impl RelationPlanner for TimeRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (mut table_with_joins, alias) = match relation {
            TableFactor::NestedJoin { table_with_joins, alias } => (table_with_joins, alias),
            other => return sampled(other, context),
        };
        let is_by_time = |join: &ast::Join| matches!(join.join_operator, JoinOperator::AsOf { .. });
        let Some(join) = table_with_joins.joins.pop_if(|join| is_by_time(join)) else {
            return Ok(RelationPlanning::Original(Box::new(TableFactor::NestedJoin { table_with_joins, alias })));
        };
        let JoinOperator::AsOf { match_condition, constraint } = join.join_operator else {
            return plan_err!("a join by time has a condition");
        };
        let left = left_side(*table_with_joins, context)?;
        let marker = Marker::read(match_condition);
        let plan = match marker.name.as_str() {
            "__zepto_latest" => latest(left, marker.args, context)?,
            "__zepto_plus" => plus(left, context.plan(join.relation)?, constraint, context)?,
            "__zepto_union" => {
                let right = context.plan(join.relation)?;
                LogicalPlanBuilder::from(left).union_by_name(right)?.build()?
            }
            "__zepto_window" => {
                let right = context.plan(join.relation)?;
                window_join([left, right], constraint, &marker.args, context)?
            }
            _ => {
                let right = context.plan(join.relation)?;
                asof([left, right], marker, constraint, context)?
            }
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// Plans a table or query with SAMPLE: a share of its rows, the same ones each time (by the hash of a row).
fn sampled(mut relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
    let sample = match &mut relation {
        TableFactor::Table { sample, .. } | TableFactor::Derived { sample, .. } => sample.take(),
        _ => None,
    };
    let Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample else {
        return Ok(RelationPlanning::Original(Box::new(relation)));
    };
    let is_percent = sample.modifier == TableSampleModifier::TableSample;
    let Some(quantity) = sample.quantity else { return plan_err!("SAMPLE has a share") };
    let share = context.sql_to_expr(quantity.value, &DFSchema::empty())?;
    let share = match &share {
        Expr::Literal(value, _) => value.cast_to(&DataType::Float64).ok(),
        _ => None,
    };
    let share = match share {
        Some(ScalarValue::Float64(Some(share))) => {
            if is_percent {
                share / 100.0
            } else {
                share
            }
        }
        _ => return Err(refused("the share of SAMPLE has to be a number".to_owned())),
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(refused(format!("SAMPLE takes a share from 0 to 1, or BERNOULLI 0 to 100 percent, not {share}")));
    }
    let plan = context.plan(relation)?;
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let condition = sampling().call(std::iter::once(lit(share)).chain(columns).collect());
    let plan = LogicalPlanBuilder::from(plan).filter(condition)?.build()?;
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
}

fn left_side(tables: TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let relation = match tables.joins.is_empty() {
        true => tables.relation,
        false => TableFactor::NestedJoin { table_with_joins: Box::new(tables), alias: None },
    };
    context.plan(relation)
}

/// The condition of a join: a marker with its arguments, or what the user wrote as MATCH_CONDITION.
struct Marker {
    name: String,
    args: Vec<SqlExpr>,
}

impl Marker {
    fn read(condition: SqlExpr) -> Self {
        match condition {
            SqlExpr::Function(call) if call.name.to_string().starts_with("__zepto") => {
                let name = call.name.to_string();
                Self { name, args: arguments(call.args) }
            }
            plain => Self { name: String::new(), args: vec![plain] },
        }
    }

    fn text(&self, at: usize) -> &str {
        match self.args.get(at) {
            Some(SqlExpr::Value(value)) => match &value.value {
                Value::SingleQuotedString(text) => text,
                _ => "",
            },
            _ => "",
        }
    }

    /// Returns an argument that is not NULL.
    fn given(&self, at: usize) -> Option<&SqlExpr> {
        self.args.get(at).filter(|arg| !matches!(arg, SqlExpr::Value(value) if value.value == Value::Null))
    }
}

fn arguments(args: FunctionArguments) -> Vec<SqlExpr> {
    let FunctionArguments::List(list) = args else { return Vec::new() };
    let plain = list.args.into_iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    plain.collect()
}

/// Plans LATEST ON: the rows of WHERE, and of those the latest.
fn latest(input: LogicalPlan, args: Vec<SqlExpr>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let mut args = args.into_iter();
    let (Some(condition), Some(time)) = (args.next(), args.next()) else {
        return plan_err!("LATEST ON names a time");
    };
    let schema = input.schema().clone();
    let always = matches!(&condition, SqlExpr::Value(value) if value.value == Value::Boolean(true));
    let time = context.sql_to_expr(time, &schema)?;
    let keys = args.map(|key| context.sql_to_expr(key, &schema)).collect::<Result<Vec<_>>>()?;
    let input = match always {
        true => input,
        false => {
            let condition = context.sql_to_expr(condition, &schema)?;
            LogicalPlanBuilder::from(input).filter(condition)?.build()?
        }
    };
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(LatestNode::new(input, time, keys)) }))
}

/// Plans a PLUS JOIN (kdb+, `pj`): numbers of the right side are added to the columns of the same name, and unmatched rows pass.
fn plus(
    left: LogicalPlan,
    right: LogicalPlan,
    constraint: JoinConstraint,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let both = left.schema().join(right.schema())?;
    let conditions = Conditions::read([left.schema(), right.schema()], &both, constraint, None, context)?;
    if !conditions.inequalities.is_empty() || conditions.keys.is_empty() {
        return Err(refused("a PLUS JOIN joins by equal keys".to_owned()));
    }
    let on: Vec<Expr> = conditions.keys.iter().map(|key| key.left.clone().eq(key.right.clone())).collect();
    let is_key = |column: &Column| {
        conditions
            .keys
            .iter()
            .any(|key| key.left.column_refs().contains(column) || key.right.column_refs().contains(column))
    };
    let (mut shown, mut added) = (Vec::new(), Vec::new());
    for (column, (_, field)) in left.schema().columns().into_iter().zip(left.schema().iter()) {
        let other = right.schema().columns().into_iter().find(|other| other.name == column.name && !is_key(other));
        match other.filter(|_| field.data_type().is_numeric() && !is_key(&column)) {
            Some(other) => {
                added.push(other.clone());
                let more = coalesce(vec![Expr::Column(other), cast(lit(0_i64), field.data_type().clone())]);
                let sum = binary_expr(Expr::Column(column.clone()), Operator::Plus, more);
                shown.push(sum.alias_qualified(column.relation.clone(), column.name.clone()));
            }
            None => shown.push(Expr::Column(column)),
        }
    }
    let rest = right.schema().columns().into_iter().filter(|column| !added.contains(column) && !is_key(column));
    shown.extend(
        rest.filter(|column| left.schema().maybe_index_of_column(&Column::from_name(&column.name)).is_none())
            .map(Expr::Column),
    );
    LogicalPlanBuilder::from(left).join_on(right, JoinType::Left, on)?.project(shown)?.build()
}

fn asof(
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
    if using.len() > 1 && !is_timed {
        conditions.last_key_is_time()?;
    }
    let is_implicit = conditions.inequalities.is_empty() && conditions.nearest.is_none();
    let (times, mut spec) = matching(&conditions, [left.schema(), right.schema()])?;
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
    let node = AsOfNode::new([left, right], conditions.keys, times, conditions.left_condition, spec)?;
    let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    match shown {
        Some(shown) => LogicalPlanBuilder::from(plan).project(shown)?.build(),
        None => Ok(plan),
    }
}

fn using_names(constraint: &JoinConstraint) -> Vec<String> {
    let JoinConstraint::Using(names) = constraint else { return Vec::new() };
    names.iter().filter_map(|name| Some(name.0.last()?.as_ident()?.value.clone())).collect()
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
fn matching(conditions: &Conditions, schemas: [&DFSchema; 2]) -> Result<([Expr; 2], AsOfSpec)> {
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
            let times = schemas.map(|schema| time_column(schema, None).map(Expr::Column));
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
    Ok(match time_type(&left, &right) {
        Some(DataType::Timestamp(TimeUnit::Second, _)) => 1_000_000_000,
        Some(DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64) => 1_000_000,
        Some(DataType::Timestamp(TimeUnit::Microsecond, _)) => 1_000,
        Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) => 1,
        Some(DataType::Date32) => 86_400_000_000_000,
        Some(known) if known.is_integer() => 1,
        _ => return Err(refused("a tolerance needs times or whole numbers on both sides".to_owned())),
    })
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
