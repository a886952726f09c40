//! Calls of aggregates and windows as they are written, put right before they are planned.
//!
//! ORDER BY within an aggregate that does not depend on the order is dropped: DataFusion 55.2 hands its keys to the aggregate as
//! arguments. One that our own aggregates could not honour is refused, and so is DISTINCT. A whole number that bounds a RANGE
//! over a time counts nanoseconds, as it does everywhere; DataFusion reads months.

use crate::domain::executor::error::refused;
use crate::domain::executor::semantics::moving;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    Expr, ExprSchemable, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast,
};

/// Aggregates whose answer depends on the order of their rows.
const ORDERED: [&str; 5] = ["array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// Our aggregates that go by a time or a key instead.
const BY_KEY: [&str; 9] =
    ["first", "last", "arg_min", "arg_max", "selector_first", "selector_last", "selector_min", "selector_max", "twap"];

/// Our aggregates for which rows of equal values count each.
const WEIGHTED: [&str; 4] = ["vwap", "wavg", "avgweighted", "twap"];

/// Most rows before or behind its own that a frame reaches: more than there are anywhere.
const REACH_MAX: u64 = 1 << 40;

/// Puts calls right.
#[derive(Debug)]
pub struct Calls;

impl FunctionRewrite for Calls {
    fn name(&self) -> &str {
        "calls"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expr {
            Expr::AggregateFunction(mut call) => {
                let name = call.func.name().to_ascii_lowercase();
                if call.params.distinct && WEIGHTED.contains(&name.as_str()) {
                    return Err(refused(format!("{name}(DISTINCT …) is not supported")));
                }
                // WITHIN GROUP comes as an order as well, and is the argument of a percentile.
                if call.params.order_by.is_empty()
                    || ORDERED.contains(&name.as_str())
                    || call.func.supports_within_group_clause()
                {
                    return Ok(Transformed::no(Expr::AggregateFunction(call)));
                }
                if BY_KEY.contains(&name.as_str()) {
                    let text =
                        format!("{name} goes by its time or key, not by ORDER BY; there is first_value(x ORDER BY …)");
                    return Err(refused(text));
                }
                call.params.order_by.clear();
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            Expr::WindowFunction(mut call) => {
                let is_moved = stay_right(&mut call, schema)?;
                let frame = &mut call.params.window_frame;
                let is_moved = is_moved | reach(&mut frame.start_bound) | reach(&mut frame.end_bound);
                let is_over_time = match call.params.order_by.as_slice() {
                    [order] => matches!(order.expr.get_type(schema)?, DataType::Timestamp(..)),
                    _ => false,
                };
                if frame.units != WindowFrameUnits::Range || !is_over_time {
                    return Ok(Transformed::new_transformed(Expr::WindowFunction(call), is_moved));
                }
                let is_changed = is_moved | nanoseconds(&mut frame.start_bound) | nanoseconds(&mut frame.end_bound);
                Ok(Transformed::new_transformed(Expr::WindowFunction(call), is_changed))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// Has aggregates of numbers over a window whose start moves be those that stay right; returns whether it is one.
fn stay_right(call: &mut WindowFunction, schema: &DFSchema) -> Result<bool> {
    let WindowFunctionDefinition::AggregateUDF(function) = &call.fun else { return Ok(false) };
    let name = function.name();
    if call.params.window_frame.start_bound.is_unbounded() || call.params.distinct {
        return Ok(false);
    }
    let takes = |data_type: &DataType| match name {
        // Sums of whole numbers and decimals are exact.
        "sum" => data_type.is_floating(),
        "avg" => data_type.is_floating() || data_type.is_integer(),
        _ => data_type.is_numeric(),
    };
    let types = call.params.args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let Some(moving) = moving(name).filter(|_| types.iter().all(takes)) else {
        return Ok(false);
    };
    for (arg, data_type) in call.params.args.iter_mut().zip(types) {
        if data_type != DataType::Float64 {
            *arg = cast(std::mem::take(arg), DataType::Float64);
        }
    }
    call.fun = WindowFunctionDefinition::AggregateUDF(moving);
    Ok(true)
}

/// Bounds how many rows a frame reaches: DataFusion 55.2 adds that to the number of a row. Returns whether it was more.
fn reach(bound: &mut WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows)))
        | WindowFrameBound::Following(ScalarValue::UInt64(Some(rows)))
            if *rows > REACH_MAX =>
        {
            *rows = REACH_MAX;
            true
        }
        _ => false,
    }
}

/// Has a bound that is a whole number count nanoseconds; returns whether it was one.
fn nanoseconds(bound: &mut WindowFrameBound) -> bool {
    let (WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value)) = bound else { return false };
    let ns = match &*value {
        ScalarValue::Utf8(Some(digits)) => digits.parse::<i64>().ok(),
        number if number.data_type().is_integer() => match number.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(ns)) => ns,
            _ => None,
        },
        _ => None,
    };
    match ns {
        Some(ns) => {
            *value = ScalarValue::new_interval_mdn(0, 0, ns);
            true
        }
        None => false,
    }
}
