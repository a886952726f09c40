//! Makes time spans compare by their length.
//!
//! arrow compares intervals field by field, months before days before nanoseconds, and DataFusion converts a duration
//! to an interval before it compares the two: a duration of 25 hours is then less than an interval of one day
//! (apache/datafusion issue 8468). Before types are settled, both sides of such a comparison become normalised
//! intervals: a day has 24 hours and a month 30 days, as PostgreSQL and DuckDB compare them. Windows that are ordered
//! by spans get frames that need no arithmetic on them (issue 24915).

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationNanosecondType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{InList, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use std::sync::{Arc, LazyLock};

/// The type of every interval that is compared.
const SPAN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

const DAY_NS: i128 = 86_400_000_000_000;
const MONTH_NS: i128 = 30 * DAY_NS;

/// Normalises spans in comparisons, lists and windows.
#[derive(Debug)]
pub struct CompareSpans;

impl FunctionRewrite for CompareSpans {
    fn name(&self) -> &str {
        "compare_spans"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) && are_spans(&[&left, &right], schema) => {
                let spans = BinaryExpr::new(Box::new(span(*left)), op, Box::new(span(*right)));
                Transformed::yes(Expr::BinaryExpr(spans))
            }
            Expr::Between(Between { expr, negated, low, high }) if are_spans(&[&expr, &low, &high], schema) => {
                let [expr, low, high] = [expr, low, high].map(|side| Box::new(span(*side)));
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            Expr::InList(InList { expr, list, negated })
                if list.iter().all(|item| are_spans(&[&expr, item], schema)) =>
            {
                let list = list.into_iter().map(span).collect();
                Transformed::yes(Expr::InList(InList { expr: Box::new(span(*expr)), list, negated }))
            }
            Expr::WindowFunction(call) => in_window(*call, schema),
            other => Transformed::no(other),
        })
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Returns whether all of them are spans, and not all of them durations, which compare as they are.
fn are_spans(sides: &[&Expr], schema: &DFSchema) -> bool {
    let types: Vec<_> = sides.iter().filter_map(|side| side.get_type(schema).ok()).collect();
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    types.len() == sides.len()
        && types.iter().all(|data_type| is_interval(data_type) || matches!(data_type, DataType::Duration(_)))
        && types.iter().any(is_interval)
}

/// Rewrites windows that are ordered by spans: a range over spans is the group of rows of the same length.
fn in_window(mut call: WindowFunction, schema: &DFSchema) -> Transformed<Expr> {
    let frame = &call.params.window_frame;
    let is_simple = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => value.is_null(),
    };
    let [order] = call.params.order_by.as_mut_slice() else {
        return Transformed::no(Expr::WindowFunction(Box::new(call)));
    };
    let data_type = order.expr.get_type(schema);
    let is_interval = matches!(data_type, Ok(DataType::Interval(_)));
    let is_span = is_interval || matches!(data_type, Ok(DataType::Duration(_)));
    if !is_span {
        return Transformed::no(Expr::WindowFunction(Box::new(call)));
    }
    if frame.units == WindowFrameUnits::Range && is_simple(&frame.start_bound) && is_simple(&frame.end_bound) {
        let groups = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::CurrentRow => WindowFrameBound::CurrentRow,
            WindowFrameBound::Preceding(_) => WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
            WindowFrameBound::Following(_) => WindowFrameBound::Following(ScalarValue::UInt64(None)),
        };
        let (start, end) = (groups(&frame.start_bound), groups(&frame.end_bound));
        call.params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
    }
    if is_interval {
        order.expr = span(order.expr.clone());
    }
    Transformed::yes(Expr::WindowFunction(Box::new(call)))
}

fn span(expr: Expr) -> Expr {
    static NORMALISE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        Arc::new(ScalarUDF::from(NormaliseSpan { signature: Signature::any(1, Volatility::Immutable) }))
    });
    Expr::ScalarFunction(ScalarFunction::new_udf(NORMALISE.clone(), vec![expr]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NormaliseSpan {
    signature: Signature,
}

impl ScalarUDFImpl for NormaliseSpan {
    fn name(&self) -> &str {
        "__zepto_span"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SPAN)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(Arc::new(normalised(array)?))),
            Some(ColumnarValue::Scalar(value)) => {
                let array = normalised(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            None => exec_err!("a span is made of one value"),
        }
    }
}

/// Carries nanoseconds over into days, and days into months, so that a longer span is a greater interval.
fn normalised(array: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let ns: Vec<Option<i128>> = match array.data_type() {
        DataType::Duration(_) => {
            let durations = cast(array, &DataType::Duration(TimeUnit::Nanosecond))?;
            durations.as_primitive::<DurationNanosecondType>().iter().map(|ns| ns.map(i128::from)).collect()
        }
        _ => {
            let intervals = cast(array, &SPAN)?;
            let length = |span: IntervalMonthDayNano| {
                i128::from(span.months) * MONTH_NS + i128::from(span.days) * DAY_NS + i128::from(span.nanoseconds)
            };
            intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|span| span.map(length)).collect()
        }
    };
    let carry = |ns: i128| {
        let (months, rest) = (ns.div_euclid(MONTH_NS), ns.rem_euclid(MONTH_NS));
        let months = i32::try_from(months).unwrap_or(if months < 0 { i32::MIN } else { i32::MAX });
        IntervalMonthDayNano::new(months, (rest / DAY_NS) as i32, (rest % DAY_NS) as i64)
    };
    debug_assert_eq!(ns.len(), array.len());
    Ok(ns.into_iter().map(|ns| ns.map(carry)).collect())
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::semantics::spans::normalised;
    use arrow::array::{ArrayRef, DurationSecondArray, IntervalMonthDayNanoArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use std::sync::Arc;

    #[test]
    fn longer_is_greater_whatever_it_is_written_in() {
        let hours = |hours: i64| IntervalMonthDayNano::new(0, 0, hours * 3_600_000_000_000);
        let spans: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![
            hours(25),
            IntervalMonthDayNano::new(0, 1, 0),
            hours(24),
            IntervalMonthDayNano::new(0, 31, 0),
            IntervalMonthDayNano::new(1, 0, 0),
            hours(-1),
        ]));
        let spans = normalised(&spans).unwrap();
        let at = |row: usize| spans.value(row);
        assert!(at(0) > at(1) && at(1) == at(2) && at(3) > at(4) && at(4) > at(0) && at(5) < hours(0));
        let duration: ArrayRef = Arc::new(DurationSecondArray::from(vec![90_000]));
        assert_eq!(normalised(&duration).unwrap().value(0), at(0));
    }
}
