//! Finds aggregates that go by code, and puts [`SeriesAggregateExec`] in their place.
//!
//! Proved here: the aggregate groups by one column that has codes, by one bucket of a time, or by both; each aggregate is
//! one that `states` knows, without DISTINCT, ORDER BY or FILTER; and groups are few enough for a number each.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::timeseries::buckets::Buckets;
use crate::domain::executor::timeseries::scalars::bucket_call;
use crate::domain::executor::timeseries::series::exec::{SeriesAggregateExec, SeriesPlan};
use crate::domain::executor::timeseries::series::kind::{Kind, kind_of};
use crate::domain::storage::SymbolKind;
use arrow::array::Array;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::ProjectionExec;
use std::sync::Arc;

/// Most symbols that are grouped by number.
const SYMBOLS_MAX: usize = 1 << 17;

/// Most numbers that groups by symbol and bucket may take, by what is known of the times.
const NUMBERS_MAX: i128 = 1 << 25;

/// Groups by code where that is proved to be the same.
#[derive(Debug)]
pub struct AggregateByCodes;

impl PhysicalOptimizerRule for AggregateByCodes {
    fn name(&self) -> &str {
        "AggregateByCodes"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let made = node.downcast_ref::<AggregateExec>().map(by_codes).transpose()?.flatten();
            Ok(made.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What an aggregate groups by.
#[derive(Default)]
struct Grouped {
    /// Position of the symbol in the input.
    symbol: Option<usize>,
    bucket: Option<(Arc<dyn PhysicalExpr>, Buckets)>,
    symbol_first: bool,
}

/// Returns the half of an aggregate that reads its input, which may be the whole; none where something stands between both.
pub fn first_half(whole: &AggregateExec) -> Option<&AggregateExec> {
    let is_final = matches!(whole.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
    match whole.input().downcast_ref::<AggregateExec>() {
        Some(partial) if is_final && *partial.mode() == AggregateMode::Partial => Some(partial),
        _ => (*whole.mode() == AggregateMode::Single).then_some(whole),
    }
}

fn by_codes(whole: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(partial) = first_half(whole) else { return Ok(None) };
    if whole.limit_options().is_some() || partial.limit_options().is_some() {
        return Ok(None);
    }
    if let Some(distinct) = distinct(whole, partial)? {
        return Ok(Some(distinct));
    }
    let Some(mut grouped) = grouped(partial)? else { return Ok(None) };
    let Some(mut aggregates) = aggregates(partial)? else { return Ok(None) };
    let projection = partial.input().downcast_ref::<ProjectionExec>();
    if let Some(projection) = projection
        && !look_below(projection, &mut grouped, &mut aggregates)?
    {
        return Ok(None);
    }
    let input = projection.map_or(partial.input(), ProjectionExec::input);
    let (scan, filter) = match input.downcast_ref::<FilterExec>() {
        Some(filter) if filter.projection().is_none() && filter.fetch().is_none() => (filter.input(), Some(filter)),
        Some(_) => return Ok(None),
        None => (input, None),
    };
    let Some(scan) = scan.downcast_ref::<ScanExec>() else { return Ok(None) };
    let exprs = aggregates.iter().flat_map(|(_, args)| args).chain(filter.map(FilterExec::predicate));
    let is_read = |symbol| exprs.clone().any(|expr| collect_columns(expr).iter().any(|used| used.index() == symbol));
    let coded = match grouped.symbol {
        None => None,
        Some(symbol) if is_read(symbol) => Some((scan.with_codes(symbol), scan.schema().fields().len())),
        Some(symbol) => Some((scan.with_codes_alone(symbol), symbol)),
    };
    let (coded, code) = match coded {
        None => (None, None),
        Some((Some(coded), code)) => (Some(coded), Some(code)),
        Some((None, _)) => return Ok(None),
    };
    let symbols = coded.as_ref().and_then(ScanExec::symbols);
    let count = symbols.as_ref().map_or(1, |symbols| symbols.len());
    if count > SYMBOLS_MAX || !are_few(scan, grouped.bucket.as_ref(), count) {
        return Ok(None);
    }
    // Partitions are put together in their order, so that more of them do not change which row came first.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let split = coded.as_ref().unwrap_or(scan).in_partitions(if scan.has_many_rows() { cores } else { 1 });
    let input: Arc<dyn ExecutionPlan> = match filter {
        None => Arc::new(split),
        Some(filter) => Arc::new(FilterExecBuilder::new(filter.predicate().clone(), Arc::new(split)).build()?),
    };
    let Grouped { bucket, symbol_first, .. } = grouped;
    let plan = SeriesPlan { code, symbols, bucket, symbol_first, aggregates };
    Ok(Some(Arc::new(SeriesAggregateExec::new(plan, vec![input], whole.schema()))))
}

/// Has what is grouped by and aggregated be computed of the input of a projection. Returns whether the symbol and the time are columns
/// there too.
fn look_below(projection: &ProjectionExec, grouped: &mut Grouped, aggregates: &mut Aggregates) -> Result<bool> {
    let below = |expr: &mut Arc<dyn PhysicalExpr>| -> Result<()> {
        let replaced = expr.clone().transform_up(|expr| {
            let made = expr.downcast_ref::<Column>().map(|column| projection.expr()[column.index()].expr.clone());
            Ok(made.map_or_else(|| Transformed::no(expr), Transformed::yes))
        });
        *expr = replaced.data()?;
        Ok(())
    };
    if let Some(symbol) = &mut grouped.symbol {
        let Some(column) = projection.expr()[*symbol].expr.downcast_ref::<Column>() else { return Ok(false) };
        *symbol = column.index();
    }
    if let Some((time, _)) = &mut grouped.bucket {
        below(time)?;
        if !time.is::<Column>() {
            return Ok(false);
        }
    }
    aggregates.iter_mut().flat_map(|(_, args)| args).try_for_each(below)?;
    Ok(true)
}

/// Reads one row of each symbol where only the distinct ones are asked for, constants beside them.
fn distinct(whole: &AggregateExec, partial: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let by = partial.group_expr();
    if by.has_grouping_set() || !partial.aggr_expr().is_empty() {
        return Ok(None);
    }
    // Constants stand in a projection below, or beside the column.
    let projection = partial.input().downcast_ref::<ProjectionExec>();
    let below = |expr: &Arc<dyn PhysicalExpr>| match (projection, expr.downcast_ref::<Column>()) {
        (Some(projection), Some(column)) => projection.expr()[column.index()].expr.clone(),
        _ => expr.clone(),
    };
    let exprs: Vec<_> = by.expr().iter().map(|(expr, _)| below(expr)).collect();
    let columns = exprs.iter().filter(|expr| !expr.is::<Literal>());
    let columns: Vec<_> = columns.map(|expr| expr.downcast_ref::<Column>()).collect();
    let input = projection.map_or(partial.input(), ProjectionExec::input);
    let (Some(scan), [Some(symbol)]) = (input.downcast_ref::<ScanExec>(), columns.as_slice()) else {
        return Ok(None);
    };
    let Some(scan) = scan.of_last_rows(symbol.index(), None) else { return Ok(None) };
    let mut input: Arc<dyn ExecutionPlan> = Arc::new(scan);
    if projection.is_some() {
        input = replace_children_if_necessary(partial.input().clone(), vec![input])?;
    }
    let below = replace_children_if_necessary(Arc::new(partial.clone()), vec![input])?;
    Ok(Some(match std::ptr::eq(whole, partial) {
        true => below,
        false => replace_children_if_necessary(Arc::new(whole.clone()), vec![below])?,
    }))
}

fn grouped(partial: &AggregateExec) -> Result<Option<Grouped>> {
    let by = partial.group_expr();
    if by.has_grouping_set() || by.expr().is_empty() || by.expr().len() > 2 {
        return Ok(None);
    }
    let schema = partial.input().schema();
    let mut found = Grouped::default();
    for (at, (expr, _)) in by.expr().iter().enumerate() {
        if let Some(column) = expr.downcast_ref::<Column>() {
            if SymbolKind::of(&column.data_type(&schema)?).is_none() || found.symbol.is_some() {
                return Ok(None);
            }
            (found.symbol, found.symbol_first) = (Some(column.index()), at == 0);
            continue;
        }
        let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else { return Ok(None) };
        let literals: Vec<_> = call
            .args()
            .iter()
            .map(|arg| arg.downcast_ref::<Literal>().map(|literal| literal.value().clone()))
            .collect();
        // What is wrong with the width of a bucket, or of numbers, is said by whoever computes it.
        let Ok(Some((time, buckets))) = bucket_call(call.fun(), &literals) else { return Ok(None) };
        let time = call.args()[time].clone();
        if found.bucket.is_some() || !buckets.fit(&time.data_type(&schema)?) || !time.is::<Column>() {
            return Ok(None);
        }
        found.bucket = Some((time, buckets));
    }
    Ok(Some(found))
}

type Aggregates = Vec<(Kind, Vec<Arc<dyn PhysicalExpr>>)>;

fn aggregates(partial: &AggregateExec) -> Result<Option<Aggregates>> {
    let schema = partial.input().schema();
    let mut known = Vec::new();
    for (aggregate, filter) in partial.aggr_expr().iter().zip(partial.filter_expr()) {
        let is_plain = |aggregate: &AggregateFunctionExpr| {
            !aggregate.is_distinct() && aggregate.order_bys().is_empty() && !aggregate.ignore_nulls()
        };
        if filter.is_some() || !is_plain(aggregate) {
            return Ok(None);
        }
        let mut args = aggregate.expressions();
        let types = args.iter().map(|arg| arg.data_type(&schema)).collect::<Result<Vec<_>>>()?;
        let Some(kind) = kind_of(aggregate.fun().name(), &types) else { return Ok(None) };
        if kind == Kind::Count
            && args.iter().all(|arg| arg.downcast_ref::<Literal>().is_some_and(|one| !one.value().is_null()))
        {
            // Of all rows: there is nothing to look at.
            args.clear();
        }
        known.push((kind, args));
    }
    Ok(Some(known))
}

/// Returns whether groups by bucket and code take few numbers, by the bounds of the time.
fn are_few(scan: &ScanExec, bucket: Option<&(Arc<dyn PhysicalExpr>, Buckets)>, symbols: usize) -> bool {
    let Some((time, buckets)) = bucket else { return true };
    let Some(column) = time.downcast_ref::<Column>() else { return false };
    let Some([first_ns, last_ns]) = scan.time_range_ns(column.index()) else { return false };
    let Some(width) = buckets.start_ns(first_ns).and_then(|start| Some((start, buckets.next_ns(start)?))) else {
        return false;
    };
    let count = (i128::from(last_ns) - i128::from(first_ns)) / i128::from((width.1 - width.0).max(1)) + 2;
    count.saturating_mul(symbols as i128 + 1) <= NUMBERS_MAX
}
