//! Finds window functions that go by code from row to row, and puts [`SeriesWindowExec`] in their place.
//!
//! Proved here: each row has a time, the rows lie in the order of those or are few enough to be put in it, and every function is one that
//! `window_states` knows. Of rows of equal time the one that arrived first comes first.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::timeseries::series::window_exec::{SeriesWindowExec, SeriesWindows};
use crate::domain::executor::timeseries::series::window_states::{SeriesWindow, WindowKind};
use crate::domain::executor::timeseries::windows::step_of;
use arrow::array::Array;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::window::{
    PlainAggregateWindowExpr, SlidingAggregateWindowExpr, StandardWindowExpr, WindowExpr,
};
use datafusion::physical_expr::{PhysicalExpr, aggregate::AggregateFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr};
use std::sync::Arc;

/// Most symbols that have a state each.
const SYMBOLS_MAX: usize = 1 << 20;

/// Most rows that all rolling windows of one function keep.
const KEPT_MAX: usize = 1 << 23;

/// Most rows that are put in the order of their times: none of it can be interrupted, should all of them be late.
const LATE_ROWS_MAX: usize = 1 << 24;

/// Goes from row to row where that is proved to be the same.
#[derive(Debug)]
pub struct WindowByCodes;

impl PhysicalOptimizerRule for WindowByCodes {
    fn name(&self) -> &str {
        "WindowByCodes"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let parts = match (node.downcast_ref::<WindowAggExec>(), node.downcast_ref::<BoundedWindowAggExec>()) {
                (Some(window), _) => Some((window.window_expr(), window.input())),
                (_, Some(window)) => Some((window.window_expr(), window.input())),
                _ => None,
            };
            let made = parts.map(|(windows, input)| by_codes(windows, input, &node)).transpose()?.flatten();
            Ok(made.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn by_codes(
    windows: &[Arc<dyn WindowExpr>],
    input: &Arc<dyn ExecutionPlan>,
    node: &Arc<dyn ExecutionPlan>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (Some(scan), Some(first)) = (input.downcast_ref::<ScanExec>(), windows.first()) else { return Ok(None) };
    let [order] = first.order_by() else { return Ok(None) };
    let Some(time) = order.expr.downcast_ref::<Column>() else { return Ok(None) };
    let symbol = match first.partition_by() {
        [] => None,
        [symbol] => match symbol.downcast_ref::<Column>() {
            Some(symbol) => Some(symbol),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let is_time = matches!(order.expr.data_type(&input.schema())?, DataType::Timestamp(..));
    let in_order = scan.is_in_order(time.index());
    let may_be_late = scan.rows_max() <= LATE_ROWS_MAX && scan.has_no_nulls(time.index());
    if !is_time || order.options.descending || !(in_order || may_be_late) {
        return Ok(None);
    }
    let mut known = Vec::with_capacity(windows.len());
    for window in windows {
        let is_same = |a: &[Arc<dyn PhysicalExpr>], b: &[Arc<dyn PhysicalExpr>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq(b))
        };
        if !is_same(window.partition_by(), first.partition_by()) || window.order_by() != first.order_by() {
            return Ok(None);
        }
        match kind_of(window.as_ref(), &input.schema())? {
            Some((kind, value)) => known.push(SeriesWindow { kind, value, time: order.expr.clone() }),
            None => return Ok(None),
        }
    }
    let (coded, codes) = match symbol {
        None => (None, 1),
        Some(symbol) => match scan.with_codes(symbol.index()) {
            Some(coded) => {
                let codes = coded.symbols().map_or(0, |symbols| symbols.len()) + 1;
                (Some(coded), codes)
            }
            None => return Ok(None),
        },
    };
    let is_large = |window: &SeriesWindow| match window.kind {
        WindowKind::Step(_) => false,
        WindowKind::RollingMean(before) | WindowKind::RollingSum(before) => {
            before.saturating_add(1).saturating_mul(codes) > KEPT_MAX
        }
    };
    if codes > SYMBOLS_MAX || known.iter().any(is_large) {
        return Ok(None);
    }
    let code = coded.as_ref().map(|coded| coded.schema().fields().len() - 1);
    let whole = coded.as_ref().unwrap_or(scan).in_one_partition();
    let windows = SeriesWindows { code, codes, windows: known, in_order };
    Ok(Some(Arc::new(SeriesWindowExec::new(windows, vec![Arc::new(whole)], node.schema()))))
}

/// Returns what a window function computes, and of what; none for one that is DataFusion's.
fn kind_of(window: &dyn WindowExpr, schema: &Schema) -> Result<Option<(WindowKind, Arc<dyn PhysicalExpr>)>> {
    if let Some(standard) = window.as_any().downcast_ref::<StandardWindowExpr>() {
        let Some(call) = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>() else {
            return Ok(None);
        };
        let step = step_of(call.fun(), call.args(), schema)?;
        return Ok(step.and_then(|step| Some((WindowKind::Step(step), call.args().first()?.clone()))));
    }
    let plain = window.as_any().downcast_ref::<PlainAggregateWindowExpr>().map(|window| window.get_aggregate_expr());
    let sliding =
        window.as_any().downcast_ref::<SlidingAggregateWindowExpr>().map(|window| window.get_aggregate_expr());
    let Some(aggregate) = plain.or(sliding) else { return Ok(None) };
    // FILTER is kept where nobody else can look; its text is in the name.
    if window.field()?.name().contains("FILTER") {
        return Ok(None);
    }
    let Some(before) = rows_before(window.get_window_frame()) else { return Ok(None) };
    rolling(aggregate, before, schema)
}

fn rolling(
    aggregate: &AggregateFunctionExpr,
    before: usize,
    schema: &Schema,
) -> Result<Option<(WindowKind, Arc<dyn PhysicalExpr>)>> {
    let args = aggregate.expressions();
    let [value] = args.as_slice() else { return Ok(None) };
    if aggregate.is_distinct() || !aggregate.order_bys().is_empty() || value.data_type(schema)? != DataType::Float64 {
        return Ok(None);
    }
    let kind = match aggregate.fun().name() {
        "avg" => WindowKind::RollingMean(before),
        "sum" => WindowKind::RollingSum(before),
        _ => return Ok(None),
    };
    Ok(Some((kind, value.clone())))
}

/// Returns the n of `ROWS n PRECEDING`.
fn rows_before(frame: &WindowFrame) -> Option<usize> {
    match (frame.units, &frame.start_bound, &frame.end_bound) {
        (
            WindowFrameUnits::Rows,
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(n))),
            WindowFrameBound::CurrentRow,
        ) => usize::try_from(*n).ok(),
        _ => None,
    }
}
