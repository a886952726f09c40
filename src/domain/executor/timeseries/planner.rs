//! From the nodes of this room to their operators.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::semantics::exact_sum;
use crate::domain::executor::timeseries::asof::{AsOf, AsOfExec, AsOfExprs, AsOfNode, JoinKey};
use crate::domain::executor::timeseries::coded_keys::by_codes;
use crate::domain::executor::timeseries::gaps::{GapFillExec, GapFillNode, GapPlan};
use crate::domain::executor::timeseries::keys::{key_type, time_type};
use crate::domain::executor::timeseries::latest::LatestNode;
use crate::domain::executor::timeseries::latest_rule::latest_rows;
use crate::domain::executor::timeseries::scalars::gap_buckets;
use crate::domain::executor::timeseries::window_join::{WindowAggregate, WindowExprs, WindowJoinExec, WindowJoinNode};
use crate::domain::executor::timeseries::with_fill::{FillOrder, Steps, WithFill, WithFillExec, WithFillNode};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchemaRef, Result, internal_err, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use std::sync::Arc;

/// DataFusion's planner, which knows our nodes.
#[derive(Debug)]
pub struct TimeSeriesPlanner;

#[async_trait]
impl QueryPlanner for TimeSeriesPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Operators)]);
        planner.create_physical_plan(plan, session).await
    }
}

#[derive(Debug)]
struct Operators;

#[async_trait]
impl ExtensionPlanner for Operators {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let physical =
            |expr: &Expr, schema: &DFSchemaRef| planner.create_physical_expr(expr, schema, session, planning);
        if let Some(node) = node.as_any().downcast_ref::<AsOfNode>() {
            let [left, right] = inputs else { return internal_err!("a join has two inputs") };
            return asof(node, [left.clone(), right.clone()], physical).map(Some);
        }
        if let Some(node) = node.as_any().downcast_ref::<WindowJoinNode>() {
            let [left, right] = inputs else { return internal_err!("a join has two inputs") };
            return windows(node, [left.clone(), right.clone()], physical).map(Some);
        }
        if let Some(node) = node.as_any().downcast_ref::<LatestNode>() {
            let [input] = inputs else { return internal_err!("LATEST ON has one input") };
            let schema = node.input_schema();
            let keys = node.keys.iter().map(|key| physical(key, schema)).collect::<Result<Vec<_>>>()?;
            let time = physical(&node.time, schema)?;
            return latest_rows(input.clone(), time, keys).map(Some);
        }
        if let Some(node) = node.as_any().downcast_ref::<GapFillNode>() {
            let [input] = inputs else { return internal_err!("filling gaps has one input") };
            let Some(buckets) = gap_buckets(&node.call)? else {
                return plan_err!("the width of {} is NULL", node.call.func.name());
            };
            let (filled, bounds) = (node.filled.clone(), node.bounds);
            let plan = GapPlan { buckets, time: node.time, groups: node.groups, filled, bounds };
            return Ok(Some(Arc::new(GapFillExec::new(plan, vec![input.clone()], node.arrow_schema()))));
        }
        if let Some(node) = node.as_any().downcast_ref::<WithFillNode>() {
            let [input] = inputs else { return internal_err!("WITH FILL has one input") };
            return with_fill(node, input.clone()).map(Some);
        }
        Ok(None)
    }
}

fn with_fill(node: &WithFillNode, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut orders = Vec::with_capacity(node.orders.len());
    for (expr, (descending, nulls_first)) in node.orders.iter().zip(&node.directions) {
        let Expr::Column(column) = expr else { return internal_err!("WITH FILL orders by columns") };
        let index = node.input_schema().index_of_column(column)?;
        orders.push(FillOrder { index, options: SortOptions::new(*descending, *nulls_first) });
    }
    let filled = orders.remove(0);
    let schema = input.schema();
    let data_type = schema.field(filled.index).data_type();
    let steps = Steps::new(data_type, node.bounds.clone(), filled.options.descending)?;
    let schema = node.arrow_schema();
    Ok(Arc::new(WithFillExec::new(WithFill::try_new(filled, orders, steps, &schema)?, vec![input], schema)))
}

fn asof(
    node: &AsOfNode,
    inputs: [Arc<dyn ExecutionPlan>; 2],
    physical: impl Fn(&Expr, &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schemas = node.input_schemas();
    let plain = inputs.each_ref().map(|input| input.schema());
    let (mut keys, key_types) = keys_of(&node.keys, schemas, &plain, &physical)?;
    let widths = plain.each_ref().map(|schema| schema.fields().len());
    let [left, right] = inputs;
    let right = by_codes(right, &mut keys[1])?;
    // It is kept whole: rows are taken out of few large batches faster than out of many.
    let right = match right.downcast_ref::<ScanExec>() {
        Some(scan) => Arc::new(scan.in_whole_segments()),
        None => right,
    };
    let inputs = [by_codes(left, &mut keys[0])?, right];
    let times = [physical(&node.times[0], schemas[0])?, physical(&node.times[1], schemas[1])?];
    let types = [times[0].data_type(&plain[0])?, times[1].data_type(&plain[1])?];
    let Some(time_type) = time_type(&types[0], &types[1]) else {
        return plan_err!("a join by time cannot compare {} with {}", types[0], types[1]);
    };
    let left_condition = node.left_condition.as_ref().map(|expr| physical(expr, schemas[0])).transpose()?;
    let exprs = AsOfExprs {
        keys,
        key_types,
        null_safe: node.keys.iter().map(|key| key.null_safe).collect(),
        times,
        time_type,
        widths,
        left_condition,
    };
    Ok(Arc::new(AsOfExec::new(AsOf::new(exprs, node.spec), inputs.into(), node.arrow_schema())))
}

fn windows(
    node: &WindowJoinNode,
    inputs: [Arc<dyn ExecutionPlan>; 2],
    physical: impl Fn(&Expr, &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schemas = node.input_schemas();
    let plain = inputs.each_ref().map(|input| input.schema());
    let (mut keys, key_types) = keys_of(&node.keys, schemas, &plain, &physical)?;
    let width = plain[0].fields().len();
    let [left, right] = inputs;
    let inputs = [by_codes(left, &mut keys[0])?, by_codes(right, &mut keys[1])?];
    let window = [physical(&node.window[0], schemas[0])?, physical(&node.window[1], schemas[0])?];
    let time = physical(&node.time, schemas[1])?;
    let right_type = time.data_type(&plain[1])?;
    let mut time_type_found = None;
    for end in &window {
        let left_type = end.data_type(&plain[0])?;
        let found = time_type(&left_type, &right_type);
        if found.is_none() || time_type_found.as_ref().is_some_and(|known| Some(known) != found.as_ref()) {
            return plan_err!("a window join cannot compare {left_type} with {right_type}");
        }
        time_type_found = found;
    }
    let mut aggregates = Vec::with_capacity(node.aggregates.len());
    for (number, expr) in node.aggregates.iter().enumerate() {
        aggregates.push(aggregate(expr, number, schemas[1], &plain[1], &physical)?);
    }
    let exprs = WindowExprs {
        keys,
        key_types,
        null_safe: node.keys.iter().map(|key| key.null_safe).collect(),
        window,
        time,
        time_type: time_type_found.unwrap_or(DataType::Int64),
        left_condition: node.left_condition.as_ref().map(|expr| physical(expr, schemas[0])).transpose()?,
        width,
        aggregates,
        prevailing: node.prevailing,
    };
    Ok(Arc::new(WindowJoinExec::new(exprs, inputs.into(), node.arrow_schema())))
}

fn aggregate(
    expr: &Expr,
    number: usize,
    schema: &DFSchemaRef,
    plain: &SchemaRef,
    physical: &impl Fn(&Expr, &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<WindowAggregate> {
    let bare = expr.clone().unalias();
    let Expr::AggregateFunction(call) = &bare else { return plan_err!("{expr} is no aggregate") };
    let args = call.params.args.iter().map(|arg| physical(arg, schema)).collect::<Result<Vec<_>>>()?;
    let is_long = args.first().map(|arg| arg.data_type(plain)).transpose()?;
    let is_long = matches!(is_long, Some(DataType::Int64 | DataType::UInt64));
    let is_sum = call.func.name() == "sum" && !call.params.distinct;
    let function = if is_sum && is_long { exact_sum() } else { call.func.clone() };
    let built = AggregateExprBuilder::new(function, args)
        .schema(plain.clone())
        .alias(WindowJoinNode::aggregate_name(number))
        .with_distinct(call.params.distinct)
        .with_ignore_nulls(call.params.null_treatment == Some(NullTreatment::IgnoreNulls))
        .build()?;
    let filter = call.params.filter.as_ref().map(|filter| physical(filter, schema)).transpose()?;
    Ok(WindowAggregate { function: Arc::new(built), filter })
}

/// The keys of both sides.
type SideKeys = [Vec<Arc<dyn PhysicalExpr>>; 2];

/// Returns the keys of both sides, and the types under which they are compared.
fn keys_of(
    keys: &[JoinKey],
    schemas: [&DFSchemaRef; 2],
    plain: &[SchemaRef; 2],
    physical: &impl Fn(&Expr, &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<(SideKeys, Vec<DataType>)> {
    let (mut left, mut right, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for key in keys {
        let sides = [physical(&key.left, schemas[0])?, physical(&key.right, schemas[1])?];
        types.push(common_key(&sides[0].data_type(&plain[0])?, &sides[1].data_type(&plain[1])?)?);
        let [of_left, of_right] = sides;
        left.push(of_left);
        right.push(of_right);
    }
    Ok(([left, right], types))
}

/// Returns the type under which two keys are compared.
fn common_key(left: &DataType, right: &DataType) -> Result<DataType> {
    let (left, right) = (key_type(left), key_type(right));
    if left == right {
        return Ok(left);
    }
    match comparison_coercion(&left, &right) {
        Some(common) => Ok(key_type(&common)),
        None => plan_err!("a join by time cannot compare keys of {left} and {right}"),
    }
}
