//! From the nodes of this room to their operators.

use crate::domain::executor::timeseries::asof::{AsOfExec, AsOfExprs, AsOfNode};
use crate::domain::executor::timeseries::gaps::{GapFillExec, GapFillNode, GapPlan};
use crate::domain::executor::timeseries::keys::{key_type, time_type};
use crate::domain::executor::timeseries::latest::{LatestExec, LatestNode};
use crate::domain::executor::timeseries::scalars::gap_buckets;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchemaRef, Result, internal_err, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
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
        if let Some(node) = node.as_any().downcast_ref::<LatestNode>() {
            let [input] = inputs else { return internal_err!("LATEST ON has one input") };
            let schema = node.input_schema();
            let keys = node.keys.iter().map(|key| physical(key, schema)).collect::<Result<Vec<_>>>()?;
            return Ok(Some(Arc::new(LatestExec::new(input.clone(), physical(&node.time, schema)?, keys))));
        }
        if let Some(node) = node.as_any().downcast_ref::<GapFillNode>() {
            let [input] = inputs else { return internal_err!("filling gaps has one input") };
            let Some(buckets) = gap_buckets(&node.call)? else {
                return plan_err!("the width of {} is NULL", node.call.func.name());
            };
            let (filled, bounds) = (node.filled.clone(), node.bounds);
            let plan = GapPlan { buckets, time: node.time, groups: node.groups, filled, bounds };
            return Ok(Some(Arc::new(GapFillExec::new(input.clone(), plan, node.arrow_schema()))));
        }
        Ok(None)
    }
}

fn asof(
    node: &AsOfNode,
    inputs: [Arc<dyn ExecutionPlan>; 2],
    physical: impl Fn(&Expr, &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schemas = node.input_schemas();
    let side = |at: usize, exprs: Vec<&Expr>| {
        exprs.into_iter().map(|expr| physical(expr, schemas[at])).collect::<Result<Vec<_>>>()
    };
    let left_keys = side(0, node.keys.iter().map(|key| &key.left).collect())?;
    let right_keys = side(1, node.keys.iter().map(|key| &key.right).collect())?;
    let plain = inputs.each_ref().map(|input| input.schema());
    let mut key_types = Vec::new();
    for (left, right) in left_keys.iter().zip(&right_keys) {
        key_types.push(common_key(&left.data_type(&plain[0])?, &right.data_type(&plain[1])?)?);
    }
    let times = [physical(&node.times[0], schemas[0])?, physical(&node.times[1], schemas[1])?];
    let types = [times[0].data_type(&plain[0])?, times[1].data_type(&plain[1])?];
    let Some(time_type) = time_type(&types[0], &types[1]) else {
        return plan_err!("a join by time cannot compare {} with {}", types[0], types[1]);
    };
    let left_condition = node.left_condition.as_ref().map(|expr| physical(expr, schemas[0])).transpose()?;
    let exprs = AsOfExprs {
        keys: [left_keys, right_keys],
        key_types,
        null_safe: node.keys.iter().map(|key| key.null_safe).collect(),
        times,
        time_type,
        left_condition,
    };
    Ok(Arc::new(AsOfExec::new(inputs, exprs, node.spec, node.arrow_schema())))
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
