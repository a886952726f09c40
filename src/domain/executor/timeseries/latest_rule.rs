//! Reads the latest row of each key: for LATEST ON, and for the other ways to write it – `DISTINCT ON`, `QUALIFY row_number() … = 1`,
//! `last_value(x ORDER BY t)` –, which this rule finds.
//!
//! Proved here: they take whole rows of one table by the greatest value of a time that no row lacks; which of several rows of that time
//! it is, SQL leaves open. It is the one that arrived last, as for LATEST ON.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::timeseries::coded_keys::by_codes;
use crate::domain::executor::timeseries::latest::{LatestExec, LatestOn};
use crate::domain::executor::timeseries::series::first_half;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::window::StandardWindowExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};
use std::sync::Arc;

/// Finds the latest rows as they are written by hand.
#[derive(Debug)]
pub struct LatestByHand;

impl PhysicalOptimizerRule for LatestByHand {
    fn name(&self) -> &str {
        "LatestByHand"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let made = match (node.downcast_ref::<AggregateExec>(), node.downcast_ref::<FilterExec>()) {
                (Some(aggregate), _) => of_aggregate(aggregate)?,
                (_, Some(filter)) => of_row_number(filter)?,
                _ => None,
            };
            // What has another schema is no whole row.
            let made = made.filter(|made| made.schema() == node.schema());
            Ok(made.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Plans the latest row of each key of an input.
///
/// # Errors
///
/// DataFusion's.
pub fn latest_rows(
    input: Arc<dyn ExecutionPlan>,
    time: Arc<dyn PhysicalExpr>,
    mut keys: Vec<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let answered = input.schema();
    let input = by_codes(last_rows(input, &time, &keys), &mut keys)?;
    Ok(Arc::new(LatestExec::new(LatestOn { time, keys }, vec![input], answered)))
}

/// Returns the latest rows of an input by its own columns; none where it is no table, or some row has no such time.
fn latest_of_table(
    input: &Arc<dyn ExecutionPlan>,
    time: &Column,
    keys: &[&Column],
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = input.downcast_ref::<ScanExec>() else { return Ok(None) };
    let is_time = matches!(input.schema().field(time.index()).data_type(), DataType::Timestamp(..));
    if !is_time || !scan.has_no_nulls(time.index()) {
        return Ok(None);
    }
    let keys = keys.iter().map(|key| Arc::new((*key).clone()) as _).collect();
    // Which of two rows of one time arrived last is known of one partition alone.
    latest_rows(Arc::new(scan.in_one_partition()), Arc::new(time.clone()), keys).map(Some)
}

/// Finds `… QUALIFY row_number() OVER (PARTITION BY keys ORDER BY time DESC) = 1`.
fn of_row_number(filter: &FilterExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(window) = filter.input().downcast_ref::<BoundedWindowAggExec>() else { return Ok(None) };
    let (input, number) = (window.input(), window.input().schema().fields().len());
    let [numbering] = window.window_expr() else { return Ok(None) };
    let is_first = filter.predicate().downcast_ref::<BinaryExpr>().is_some_and(|binary| {
        let one = binary.right().downcast_ref::<Literal>();
        *binary.op() == Operator::Eq
            && binary.left().downcast_ref::<Column>().is_some_and(|column| column.index() == number)
            && one.is_some_and(|one| *one.value() == ScalarValue::UInt64(Some(1)))
    });
    let is_numbering = numbering.as_any().downcast_ref::<StandardWindowExpr>().is_some_and(|standard| {
        let call = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>();
        call.is_some_and(|call| call.fun().name() == "row_number")
    });
    let keys: Option<Vec<&Column>> = numbering.partition_by().iter().map(|key| key.downcast_ref::<Column>()).collect();
    let ([order], Some(keys)) = (numbering.order_by(), keys) else { return Ok(None) };
    let Some(time) = order.expr.downcast_ref::<Column>() else { return Ok(None) };
    if !is_first || !is_numbering || !order.options.descending || filter.fetch().is_some() {
        return Ok(None);
    }
    let Some(latest) = latest_of_table(input, time, &keys)? else { return Ok(None) };
    let schema = window.schema();
    let one: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::UInt64(Some(1))));
    let column = |at: usize| -> (Arc<dyn PhysicalExpr>, String) {
        let name = schema.field(at).name().clone();
        let expr = if at == number { one.clone() } else { Arc::new(Column::new(&name, at)) as _ };
        (expr, name)
    };
    let answered = match filter.projection().as_deref() {
        Some(columns) => columns.iter().map(|at| column(*at)).collect::<Vec<_>>(),
        None => (0..=number).map(column).collect(),
    };
    Ok(Some(Arc::new(ProjectionExec::try_new(answered, latest)?)))
}

/// Finds `last_value(x ORDER BY time) … GROUP BY keys`, and `first_value(x ORDER BY time DESC)`, which DISTINCT ON is.
fn of_aggregate(whole: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(partial) = first_half(whole) else { return Ok(None) };
    let group = partial.group_expr();
    let is_plain = group.is_single() && !group.expr().is_empty() && partial.filter_expr().iter().all(Option::is_none);
    if !is_plain || whole.limit_options().is_some() || partial.aggr_expr().is_empty() {
        return Ok(None);
    }
    let keys: Option<Vec<&Column>> = group.expr().iter().map(|(key, _)| key.downcast_ref::<Column>()).collect();
    let Some(keys) = keys else { return Ok(None) };
    let mut time: Option<Column> = None;
    let mut answered: Vec<Column> = keys.iter().map(|key| (*key).clone()).collect();
    for aggregate in partial.aggr_expr() {
        let Some((value, by)) = latest_value(aggregate, &keys) else { return Ok(None) };
        if time.get_or_insert_with(|| by.clone()) != &by {
            return Ok(None);
        }
        answered.push(value);
    }
    let Some(time) = time else { return Ok(None) };
    let Some(latest) = latest_of_table(partial.input(), &time, &keys)? else { return Ok(None) };
    let schema = whole.schema();
    let columns = answered.into_iter().zip(schema.fields()).map(|(column, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(column);
        (column, field.name().clone())
    });
    Ok(Some(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), latest)?)))
}

/// Returns the column whose latest value an aggregate is, and the time that it goes by; none for another one. Keys in its order say nothing.
fn latest_value(aggregate: &AggregateFunctionExpr, keys: &[&Column]) -> Option<(Column, Column)> {
    let is_key = |sort: &&PhysicalSortExpr| {
        sort.expr.downcast_ref::<Column>().is_some_and(|column| keys.iter().any(|key| **key == *column))
    };
    let mut orders = aggregate.order_bys().iter().skip_while(is_key);
    let (order, None) = (orders.next()?, orders.next()) else { return None };
    let is_latest = match aggregate.fun().name() {
        "first_value" => order.options.descending,
        "last_value" => !order.options.descending,
        _ => false,
    };
    if !is_latest || aggregate.is_distinct() || aggregate.ignore_nulls() {
        return None;
    }
    let args = aggregate.expressions();
    let [value] = args.as_slice() else { return None };
    Some((value.downcast_ref::<Column>()?.clone(), order.expr.downcast_ref::<Column>()?.clone()))
}

/// Reads only the last row of each symbol where that is the latest one.
fn last_rows(
    input: Arc<dyn ExecutionPlan>,
    time: &Arc<dyn PhysicalExpr>,
    keys: &[Arc<dyn PhysicalExpr>],
) -> Arc<dyn ExecutionPlan> {
    let narrowed = || {
        let scan = input.downcast_ref::<ScanExec>()?;
        let [key] = keys else { return None };
        let times = time.downcast_ref::<Column>()?.index();
        scan.of_last_rows(key.downcast_ref::<Column>()?.index(), Some(times))
    };
    match narrowed() {
        Some(scan) => Arc::new(scan),
        None => input,
    }
}
