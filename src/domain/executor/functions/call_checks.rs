//! Checks the constant arguments of calls in an optimised plan.
//!
//! Aggregates, window functions and patterns are not called through a guard, so the constants that
//! could make them too costly are checked in the plan, once the optimiser has computed them.

use crate::domain::executor::error::{refused, unsupported};
use crate::domain::executor::functions::classes::{is_known_aggregate, is_known_window};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, WindowFrameBound, WindowFunctionDefinition};

/// Centroids of an approximate percentile: each group takes room for all of them.
const CENTROIDS_MAX: i64 = 1_000;

/// Bytes of a constant that an aggregate or window function repeats for each row.
const REPEATED_BYTES_MAX: usize = 1 << 10;

/// Bytes of a pattern of LIKE and of regular expressions that stand as operators.
const PATTERN_BYTES_MAX: usize = 4 << 10;

/// Checks the constants that calls in an optimised plan are given, all of which are computed by now.
///
/// # Errors
///
/// `InvalidQuery` for a constant that would be too much, `Unsupported` for a function that is not known.
pub fn check_calls(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                check_call(expr)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn check_call(expr: &Expr) -> Result<()> {
    match expr {
        Expr::AggregateFunction(call) => check_aggregate(call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => check_window(call),
        Expr::Like(like) => check_pattern(&like.pattern, true),
        Expr::SimilarTo(like) => check_pattern(&like.pattern, false),
        Expr::BinaryExpr(operation) => match operation.op {
            Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
                check_pattern(&operation.right, false)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &Expr, may_be_computed: bool) -> Result<()> {
    match constant(pattern) {
        Some(pattern) if text_bytes(pattern) > PATTERN_BYTES_MAX => {
            Err(refused(format!("a pattern is longer than {PATTERN_BYTES_MAX} bytes")))
        }
        None if !may_be_computed => Err(refused(
            "a regular expression that is not a constant is not supported here; use regexp_like".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn check_aggregate(name: &str, args: &[Expr]) -> Result<()> {
    if !is_known_aggregate(name) {
        return Err(unsupported(format!("function {name} is not supported")));
    }
    let centroids = match name {
        "approx_percentile_cont" => args.get(2),
        "approx_percentile_cont_with_weight" => args.get(3),
        _ => None,
    };
    let centroids =
        centroids.and_then(constant).and_then(|value| value.cast_to(&arrow::datatypes::DataType::Int64).ok());
    if let Some(ScalarValue::Int64(Some(count))) = centroids
        && !(1..=CENTROIDS_MAX).contains(&count)
    {
        return Err(refused(format!("{name} takes 1 to {CENTROIDS_MAX} centroids, not {count}")));
    }
    match (name, args.get(1).and_then(constant)) {
        ("string_agg", Some(separator)) if text_bytes(separator) > REPEATED_BYTES_MAX => {
            Err(refused(format!("the separator of string_agg is longer than {REPEATED_BYTES_MAX} bytes")))
        }
        _ => Ok(()),
    }
}

fn check_window(call: &WindowFunction) -> Result<()> {
    let (name, args) = (call.fun.name(), &call.params.args);
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => check_aggregate(name, args)?,
        WindowFunctionDefinition::WindowUDF(_) if !is_known_window(name) => {
            return Err(unsupported(format!("function {name} is not supported")));
        }
        WindowFunctionDefinition::WindowUDF(_) => {}
    }
    let frame = &call.params.window_frame;
    // Every row would hold all rows before it, which grows with the square of the rows.
    let grows = frame.start_bound.is_unbounded()
        && !matches!(&frame.end_bound, WindowFrameBound::Following(end) if end.is_null());
    if grows && matches!(name, "array_agg" | "string_agg") {
        return Err(refused(format!(
            "{name} over a window that grows is not supported; bound its start, or leave out ORDER BY"
        )));
    }
    match (name, args.get(2).and_then(constant)) {
        ("lag" | "lead", Some(default)) if text_bytes(default) > REPEATED_BYTES_MAX => {
            Err(refused(format!("the default of {name} is longer than {REPEATED_BYTES_MAX} bytes")))
        }
        _ => Ok(()),
    }
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Cast(cast) => constant(&cast.expr),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

fn text_bytes(value: &ScalarValue) -> usize {
    value.try_as_str().flatten().map_or(0, str::len)
}
