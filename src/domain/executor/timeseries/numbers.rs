//! Times beside integers: `t > 1711234567000000000`, `now() - 60000000000`.
//!
//! ZeptoDB's users write times and spans as nanoseconds. DataFusion refuses to compare them, some of it while it still makes
//! the plan; so operators are rewritten as they are planned, BETWEEN and IN before types are settled. Beside a time an integer
//! is nanoseconds since 1970, or as many nanoseconds more or less.

use crate::domain::executor::time_units::unit_ns;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, Like};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast};
use sqlparser::ast::BinaryOperator;

/// Gives integers beside times a meaning.
#[derive(Debug)]
pub struct TimeNumbers;

impl ExprPlanner for TimeNumbers {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, Minus, NotEq, Plus};
        let RawBinaryExpr { op, left, right } = expr;
        let (left_is_time, right_is_time) = (is_time(&left, schema), is_time(&right, schema));
        // A whole number beside a time is a span, before it is asked what the span needs.
        let is_sum = matches!(op, Plus | Minus);
        let right = if is_sum && left_is_time && is_integer(&right, schema) { span(right) } else { right };
        let left = if op == Plus && right_is_time && is_integer(&left, schema) { span(left) } else { left };
        let (left, right) = match op {
            Eq | NotEq | Lt | LtEq | Gt | GtEq => (
                if right_is_time { time(left, schema) } else { left },
                if left_is_time { time(right, schema) } else { right },
            ),
            Plus | Minus if left_is_time && cuts(&left, &right, schema) => (finer(left, &right, schema), right),
            Plus if right_is_time && cuts(&right, &left, schema) => {
                let time = finer(right, &left, schema);
                (left, time)
            }
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

impl FunctionRewrite for TimeNumbers {
    fn name(&self) -> &str {
        "time_numbers"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::Between(Between { expr, negated, low, high })
                if is_time(&expr, schema) && (is_integer(&low, schema) || is_integer(&high, schema)) =>
            {
                let [low, high] = [low, high].map(|bound| Box::new(time(*bound, schema)));
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::IsDistinctFrom | Operator::IsNotDistinctFrom),
                right,
            }) if is_time(&left, schema) != is_time(&right, schema) => {
                let [left, right] = [left, right].map(|side| Box::new(time(*side, schema)));
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            Expr::InList(InList { expr, list, negated })
                if is_time(&expr, schema) && list.iter().any(|item| is_integer(item, schema)) =>
            {
                let list = list.into_iter().map(|item| time(item, schema)).collect();
                Transformed::yes(Expr::InList(InList { expr, list, negated }))
            }
            // ZeptoDB's: digits of a number, nanoseconds of a time.
            Expr::Like(like) if !like.case_insensitive => match digits(&like.expr, schema) {
                Some(digits) => Transformed::yes(Expr::Like(Like { expr: Box::new(digits), ..like })),
                None => Transformed::no(Expr::Like(like)),
            },
            other => Transformed::no(other),
        })
    }
}

/// Returns a number, or the nanoseconds of a time, as text; none for what is neither.
fn digits(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    Some(match expr.get_type(schema).ok()? {
        DataType::Timestamp(..) => {
            let ns = cast(expr.clone(), DataType::Timestamp(TimeUnit::Nanosecond, None));
            cast(cast(ns, DataType::Int64), DataType::Utf8)
        }
        number if number.is_numeric() => cast(expr.clone(), DataType::Utf8),
        _ => return None,
    })
}

fn is_time(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Timestamp(..)))
}

fn is_integer(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| data_type.is_integer())
}

/// Returns an integer as a time, and anything else as it is.
fn time(expr: Expr, schema: &DFSchema) -> Expr {
    match &expr {
        Expr::Literal(value, _) if value.data_type().is_integer() => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(ns)) => Expr::Literal(ScalarValue::TimestampNanosecond(ns, None), None),
            _ => expr,
        },
        _ if is_integer(&expr, schema) => {
            cast(cast(expr, DataType::Int64), DataType::Timestamp(TimeUnit::Nanosecond, None))
        }
        _ => expr,
    }
}

/// Returns an integer as a span of nanoseconds.
fn span(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(ns))) => Expr::Literal(ScalarValue::new_interval_mdn(0, 0, ns), None),
            _ => expr,
        },
        _ => cast(cast(expr, DataType::Int64), DataType::Duration(TimeUnit::Nanosecond)),
    }
}

/// Returns the nanoseconds of a written span, beside its months and days.
fn written_ns(span: &Expr) -> Option<i64> {
    match span {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(span)), _) => Some(span.nanoseconds),
        _ => None,
    }
}

/// Returns whether a time cannot hold what comes of adding a written span: seconds and a millisecond.
fn cuts(time: &Expr, span: &Expr, schema: &DFSchema) -> bool {
    let unit_ns = match time.get_type(schema) {
        Ok(data_type @ DataType::Timestamp(..)) => unit_ns(&data_type).unwrap_or(1),
        _ => return false,
    };
    written_ns(span).is_some_and(|ns| ns % unit_ns != 0)
}

/// Has a time count in the unit that a written span is exact in.
fn finer(time: Expr, span: &Expr, schema: &DFSchema) -> Expr {
    let unit =
        if written_ns(span).is_some_and(|ns| ns % 1_000 == 0) { TimeUnit::Microsecond } else { TimeUnit::Nanosecond };
    match time.get_type(schema) {
        Ok(DataType::Timestamp(_, zone)) => cast(time, DataType::Timestamp(unit, zone)),
        _ => time,
    }
}
