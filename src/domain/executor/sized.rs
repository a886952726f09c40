//! Functions whose arguments say how much they make: asked for their size before they make it.
//!
//! `range(0, 10^10)` or `repeat('x', 10^9)` are a few bytes of SQL and would take all memory, past every budget: such
//! functions allocate on their own, some of them while the statement is still being planned.

use crate::ports::Error;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use std::sync::Arc;

/// Bytes that one call may make for one batch.
const RESULT_BYTES_MAX: u128 = 256 << 20;

/// The functions in question.
const NAMES: [&str; 7] = ["range", "generate_series", "array_repeat", "array_resize", "repeat", "lpad", "rpad"];

/// Those of `functions` that need it, wrapped.
pub fn sized<'a>(functions: impl Iterator<Item = &'a Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let wanted = functions.filter(|function| NAMES.contains(&function.name()));
    wanted.map(|function| Arc::new(ScalarUDF::from(Checked { inner: function.as_ref().clone() }))).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    inner: ScalarUDF,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let bytes = result_bytes(self.name(), &arrays).unwrap_or(0);
        if bytes > RESULT_BYTES_MAX {
            let text = format!("{} would make {bytes} bytes at once, more than {RESULT_BYTES_MAX}", self.name());
            return Err(DataFusionError::External(Box::new(Error::invalid(text))));
        }
        self.inner.invoke_with_args(args)
    }
}

/// Bytes that a call makes, about. None where the arguments are not of a kind that makes many.
fn result_bytes(name: &str, args: &[ArrayRef]) -> Option<u128> {
    let rows = 0..args.first()?.len();
    let number = |at: usize| args.get(at).and_then(ticks);
    match name {
        "range" | "generate_series" => {
            let (start, stop) = match args.len() {
                1 => (None, number(0)?),
                _ => (Some(number(0)?), number(1)?),
            };
            let step = args.get(2).and_then(ticks);
            let items = rows.map(|row| {
                let start = start.as_ref().map_or(0, |start| start[row]);
                let step = step.as_ref().map_or(1, |step| step[row]).unsigned_abs().max(1);
                u128::from(stop[row].abs_diff(start) / step)
            });
            Some(items.sum::<u128>() * 8)
        }
        _ => {
            let counts = number(1)?;
            let each = match name {
                "repeat" => length(&args[0]).ok().and_then(|lengths| ticks(&lengths))?,
                "lpad" | "rpad" => vec![4; rows.len()],
                _ => vec![i64::try_from(args[0].get_array_memory_size() / rows.len().max(1)).ok()?.max(8); rows.len()],
            };
            let bytes =
                rows.map(|row| u128::from(counts[row].max(0).unsigned_abs()) * u128::from(each[row].unsigned_abs()));
            Some(bytes.sum())
        }
    }
}

/// Numbers as they are, times and intervals in nanoseconds; 0 for null.
fn ticks(array: &ArrayRef) -> Option<Vec<i64>> {
    if matches!(array.data_type(), DataType::Interval(_)) {
        let intervals = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano)).ok()?;
        let day_ns = |days: i64| days.saturating_mul(86_400_000_000_000);
        let ns = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| {
            interval.map_or(0, |interval| {
                let days = i64::from(interval.months) * 30 + i64::from(interval.days);
                day_ns(days).saturating_add(interval.nanoseconds)
            })
        });
        return Some(ns.collect());
    }
    let times = match array.data_type() {
        DataType::Timestamp(_, zone) => cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())).ok()?,
        DataType::Date32 | DataType::Date64 => cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?,
        _ => array.clone(),
    };
    let numbers = cast(&times, &DataType::Int64).ok()?;
    Some(numbers.as_primitive::<Int64Type>().iter().map(|number| number.unwrap_or(0)).collect())
}
