//! Plans joins by time and LATEST ON, as `sql/timeseries` has prepared them: nested joins whose last join has a marker.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::asof::asof_join;
use crate::domain::executor::timeseries::asof_condition::Conditions;
use crate::domain::executor::timeseries::latest::LatestNode;
use crate::domain::executor::timeseries::marker::Marker;
use crate::domain::executor::timeseries::sampling::sampling;
use crate::domain::executor::timeseries::window_join::window_join;
use crate::domain::executor::timeseries::with_fill::WithFillNode;
use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue, plan_err};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use sqlparser::ast::{
    self, Expr as SqlExpr, JoinConstraint, JoinOperator, TableFactor, TableSampleKind, TableSampleModifier,
    TableWithJoins, Value,
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
            "__zepto_with_fill" => with_fill(left, marker.args, context)?,
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
                asof_join([left, right], marker, constraint, context)?
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

/// Plans ORDER BY … WITH FILL: three bounds, and three arguments for each column that orders.
fn with_fill(input: LogicalPlan, args: Vec<SqlExpr>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    let nothing = DFSchema::empty();
    let mut bounds = [ScalarValue::Null, ScalarValue::Null, ScalarValue::Null];
    for (bound, arg) in bounds.iter_mut().zip(&args) {
        let expr = context.sql_to_expr(arg.clone(), &nothing)?;
        match simplifier.coerce(expr, &nothing).and_then(|expr| simplifier.simplify(expr))? {
            Expr::Literal(value, _) => *bound = value,
            _ => return Err(refused(format!("a bound of WITH FILL is {arg}, which is no constant"))),
        }
    }
    let (mut orders, mut directions) = (Vec::new(), Vec::new());
    for order in args.get(3..).unwrap_or_default().chunks_exact(3) {
        match context.sql_to_expr(order[0].clone(), input.schema())? {
            Expr::Column(column) => orders.push(Expr::Column(column)),
            _ => return Err(refused(format!("WITH FILL orders by columns, and {} is none", order[0]))),
        }
        let is = |flag: &SqlExpr| matches!(flag, SqlExpr::Value(value) if value.value == Value::Boolean(true));
        directions.push((is(&order[1]), is(&order[2])));
    }
    let node = WithFillNode::new(input, orders, directions, bounds)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
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
