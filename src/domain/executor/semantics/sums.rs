//! Makes sums that do not wrap.
//!
//! DataFusion adds integers in 64 bits and decimals in 128, and lets both wrap. Here integers are added in 128 bits
//! (`exact_sum`) and long decimals as ones of 76 digits whose sum is cast back, which fails where it does not fit. So a
//! sum whose parts would overflow is still right if the whole fits.

use crate::domain::executor::semantics::exact_sum::exact_sum;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Window, WindowFunctionDefinition, cast,
};
use datafusion::optimizer::analyzer::AnalyzerRule;
use std::sync::Arc;

/// Digits of a decimal whose sum over many rows may have more than 38 digits.
const LONG_DIGITS: u8 = 19;

/// Widens the values of sums, and narrows the results.
#[derive(Debug)]
pub struct WideSums;

impl AnalyzerRule for WideSums {
    fn name(&self) -> &str {
        "wide_sums"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => in_aggregate(aggregate),
            LogicalPlan::Window(window) => in_window(window),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

fn in_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let schema = aggregate.input.schema().clone();
    let widened = aggregate.aggr_expr.iter().map(|expr| widened(expr, &schema)).collect::<Result<Vec<_>>>()?;
    if widened.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let sums = widened.into_iter().zip(&aggregate.aggr_expr).map(|(wide, expr)| wide.unwrap_or_else(|| expr.clone()));
    let wide = Aggregate::try_new(aggregate.input.clone(), aggregate.group_expr.clone(), sums.collect())?;
    narrowed(LogicalPlan::Aggregate(wide), &aggregate.schema)
}

fn in_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let schema = window.input.schema().clone();
    let widened = window.window_expr.iter().map(|expr| widened(expr, &schema)).collect::<Result<Vec<_>>>()?;
    if widened.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let sums = widened.into_iter().zip(&window.window_expr).map(|(wide, expr)| wide.unwrap_or_else(|| expr.clone()));
    let wide = Window::try_new(sums.collect(), window.input.clone())?;
    narrowed(LogicalPlan::Window(wide), &window.schema)
}

/// Returns `plan` under the columns of `schema`, with its types.
fn narrowed(plan: LogicalPlan, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let made = plan.schema().clone();
    let columns = schema.iter().zip(made.iter()).map(|((qualifier, field), (made_qualifier, made_field))| {
        let column = Expr::Column(Column::new(made_qualifier.cloned(), made_field.name()));
        if field.data_type() == made_field.data_type() {
            column
        } else {
            cast(column, field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
        }
    });
    let columns: Vec<_> = columns.collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(columns)?.build()?))
}

/// Returns a sum of wider values under the name that it had; none where there is nothing to widen.
fn widened(expr: &Expr, schema: &Arc<DFSchema>) -> Result<Option<Expr>> {
    let name = expr.schema_name().to_string();
    let bare = expr.clone().unalias();
    let wide = match bare {
        // Sums of groups are taken in 128 bits, without a copy of the column; sums of distinct values and of moving windows
        // are rare, and DataFusion's.
        Expr::AggregateFunction(AggregateFunction { func, params })
            if func.name() == "sum" && !params.distinct && is_long(params.args.first(), schema)? =>
        {
            Expr::AggregateFunction(AggregateFunction { func: exact_sum(), params })
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params }) if func.name() == "sum" => {
            let Some(to) = wide_type(params.args.first(), schema)? else { return Ok(None) };
            params.args = params.args.into_iter().map(|arg| cast(arg, to.clone())).collect();
            Expr::AggregateFunction(AggregateFunction { func, params })
        }
        Expr::WindowFunction(call) => {
            let WindowFunction { fun, mut params } = *call;
            let is_sum = matches!(&fun, WindowFunctionDefinition::AggregateUDF(func) if func.name() == "sum");
            let Some(to) = wide_type(params.args.first().filter(|_| is_sum), schema)? else { return Ok(None) };
            params.args = params.args.into_iter().map(|arg| cast(arg, to.clone())).collect();
            Expr::WindowFunction(Box::new(WindowFunction { fun, params }))
        }
        _ => return Ok(None),
    };
    Ok(Some(wide.alias(name)))
}

fn is_long(arg: Option<&Expr>, schema: &Arc<DFSchema>) -> Result<bool> {
    let Some(arg) = arg else { return Ok(false) };
    Ok(matches!(arg.get_type(schema.as_ref())?, DataType::Int64 | DataType::UInt64))
}

fn wide_type(arg: Option<&Expr>, schema: &Arc<DFSchema>) -> Result<Option<DataType>> {
    let Some(arg) = arg else { return Ok(None) };
    Ok(match arg.get_type(schema.as_ref())? {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION - 10, 0)),
        DataType::Decimal128(precision, scale) if precision >= LONG_DIGITS => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION - 10, scale))
        }
        _ => None,
    })
}
