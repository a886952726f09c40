//! The values that are filled in: from a first one, by equal steps, up to and without a last one.

use crate::domain::executor::error::refused;
use crate::domain::executor::time_units::unit_ns;
use crate::domain::executor::timeseries::civil::{DAY_NS, day_of_month_start, month_of_day};
use crate::domain::executor::timeseries::spans::Span;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use std::cmp::Ordering;
use std::sync::Arc;

/// How far it is from one value to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Whole(i64),
    Real(f64),
    /// Calendar months, of so many nanoseconds to a unit of the column.
    Months {
        months: i64,
        unit_ns: i64,
    },
}

/// A value of the filled column: a number, or a time in the unit of its column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An integer, a date or a time.
    Whole(i64),
    /// A floating-point number.
    Real(f64),
}

/// FROM, TO and STEP in the type of a column.
#[derive(Debug, Clone)]
pub struct Steps {
    /// The first value; that of the first row where none.
    pub from: Option<Value>,
    /// Where values end, which is not one of them; at the last row where none.
    pub to: Option<Value>,
    step: Step,
    data_type: DataType,
}

/// The next of the values that begin at `base`: the sum of steps, so that errors of rounding do not add up.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    base: Value,
    steps: i64,
    /// The value; none beyond the range of its type.
    pub value: Option<Value>,
}

impl Steps {
    /// Reads constants for a column of `data_type`. STEP is 1, a day for dates and a second for times where it is not given, and -1 in
    /// descending order; a plain number counts days and seconds there (ClickHouse).
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for another type, a bound that does not fit it, and a step of zero or in the wrong direction.
    pub fn new(data_type: &DataType, [from, to, step]: [ScalarValue; 3], descending: bool) -> Result<Self> {
        let is_known = data_type.is_integer()
            || data_type.is_floating()
            || matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
        if !is_known {
            return Err(refused(format!("WITH FILL fills numbers, dates and times, not {data_type}")));
        }
        let step = match step.is_null() {
            true => ScalarValue::Int64(Some(if descending { -1 } else { 1 })),
            false => step,
        };
        let step = read_step(data_type, &step)?;
        let wrong = match step {
            Step::Whole(step) | Step::Months { months: step, .. } => step == 0 || (step < 0) != descending,
            Step::Real(step) => !step.is_finite() || step == 0.0 || (step < 0.0) != descending,
        };
        if wrong {
            let sign = if descending { "below 0 in descending order" } else { "above 0" };
            return Err(refused(format!("the STEP of WITH FILL has to be {sign}")));
        }
        let bound = |value: ScalarValue| value_of(data_type, value);
        Ok(Self { from: bound(from)?, to: bound(to)?, step, data_type: data_type.clone() })
    }

    /// Returns whether `a` comes before `b`.
    pub fn is_before(&self, a: Value, b: Value) -> bool {
        let order = match (a, b) {
            (Value::Whole(a), Value::Whole(b)) => a.cmp(&b),
            (Value::Real(a), Value::Real(b)) => a.total_cmp(&b),
            _ => Ordering::Equal,
        };
        let descending = match self.step {
            Step::Whole(step) | Step::Months { months: step, .. } => step < 0,
            Step::Real(step) => step < 0.0,
        };
        if descending { order.is_gt() } else { order.is_lt() }
    }

    /// Begins at a value.
    pub fn begin(&self, base: Value) -> Cursor {
        Cursor { base, steps: 0, value: Some(base) }
    }

    /// Goes one step on.
    pub fn advance(&self, cursor: &mut Cursor) {
        cursor.steps += 1;
        cursor.value = match (cursor.base, self.step, cursor.value) {
            (Value::Real(base), Step::Real(step), _) => {
                let value = step.mul_add(cursor.steps as f64, base);
                value.is_finite().then_some(Value::Real(value))
            }
            (_, Step::Whole(step), Some(Value::Whole(value))) => value.checked_add(step).map(Value::Whole),
            (_, Step::Months { months, unit_ns }, Some(Value::Whole(value))) => {
                add_months(value, months, unit_ns).map(Value::Whole)
            }
            _ => None,
        };
    }

    /// Returns the values of a column; none for NULL and NaN.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for integers beyond 64 bits with a sign.
    pub fn values(&self, column: &ArrayRef) -> Result<Vec<Option<Value>>> {
        if self.data_type.is_floating() {
            let column = cast(column, &DataType::Float64)?;
            let values = column.as_primitive::<Float64Type>().iter();
            return Ok(values.map(|value| value.filter(|value| !value.is_nan()).map(Value::Real)).collect());
        }
        let whole = match column.data_type() {
            DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
            DataType::UInt64 if !fits_i64(column) => {
                return Err(refused("WITH FILL does not reach beyond 9223372036854775807".to_owned()));
            }
            _ => cast(column, &DataType::Int64)?,
        };
        Ok(whole.as_primitive::<Int64Type>().iter().map(|value| value.map(Value::Whole)).collect())
    }

    /// Returns values as a column.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a value that the type cannot hold.
    pub fn column(&self, values: &[Value]) -> Result<ArrayRef> {
        let beyond = |_| refused(format!("WITH FILL goes beyond what {} holds", self.data_type));
        let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
        if self.data_type.is_floating() {
            let reals = values.iter().map(|value| match value {
                Value::Real(value) => *value,
                Value::Whole(value) => *value as f64,
            });
            let reals: ArrayRef = Arc::new(Float64Array::from_iter_values(reals));
            return arrow::compute::cast_with_options(&reals, &self.data_type, &strict).map_err(beyond);
        }
        let wholes = values.iter().map(|value| match value {
            Value::Whole(value) => *value,
            Value::Real(_) => 0,
        });
        let mut wholes: ArrayRef = Arc::new(Int64Array::from_iter_values(wholes));
        if self.data_type == DataType::Date32 {
            wholes = arrow::compute::cast_with_options(&wholes, &DataType::Int32, &strict).map_err(beyond)?;
        }
        arrow::compute::cast_with_options(&wholes, &self.data_type, &strict).map_err(beyond)
    }
}

fn fits_i64(column: &ArrayRef) -> bool {
    let values = column.as_primitive_opt::<arrow::datatypes::UInt64Type>();
    values.is_none_or(|values| values.iter().flatten().all(|value| i64::try_from(value).is_ok()))
}

fn read_step(data_type: &DataType, step: &ScalarValue) -> Result<Step> {
    let unit_ns = unit_ns(data_type).unwrap_or(1);
    let is_number = step.data_type().is_numeric();
    match data_type {
        DataType::Timestamp(..) | DataType::Date32 if !is_number => match Span::read(step)? {
            Some(Span::Months(months)) => Ok(Step::Months { months, unit_ns }),
            Some(Span::Ns(ns)) if ns % unit_ns == 0 => Ok(Step::Whole(ns / unit_ns)),
            _ => Err(refused(format!("the STEP of WITH FILL is no whole number of units of {data_type}"))),
        },
        _ if !is_number => Err(refused(format!("the STEP of WITH FILL is {step}, which is no number"))),
        data_type if data_type.is_floating() => match step.cast_to(&DataType::Float64)? {
            ScalarValue::Float64(Some(step)) => Ok(Step::Real(step)),
            other => Err(refused(format!("the STEP of WITH FILL is {other}"))),
        },
        _ => {
            let whole = step.cast_to(&DataType::Int64)?;
            let back = whole.cast_to(&step.data_type())?;
            let ScalarValue::Int64(Some(count)) = whole else {
                return Err(refused(format!("the STEP of WITH FILL is {step}")));
            };
            if back != *step {
                return Err(refused(format!("the STEP of WITH FILL is {step}, and {data_type} holds whole numbers")));
            }
            let scale = if matches!(data_type, DataType::Timestamp(..)) { 1_000_000_000 / unit_ns } else { 1 };
            let scaled = count.checked_mul(scale).map(Step::Whole);
            scaled.ok_or_else(|| refused("the STEP of WITH FILL is beyond 64 bits".to_owned()))
        }
    }
}

fn value_of(data_type: &DataType, value: ScalarValue) -> Result<Option<Value>> {
    if value.is_null() {
        return Ok(None);
    }
    let wrong = |_| refused(format!("a bound of WITH FILL is {value}, which is no {data_type}"));
    if data_type.is_floating() {
        return match value.cast_to(&DataType::Float64).map_err(wrong)? {
            ScalarValue::Float64(Some(real)) if real.is_finite() => Ok(Some(Value::Real(real))),
            _ => Err(refused(format!("a bound of WITH FILL is {value}, which is no number"))),
        };
    }
    let typed = value.cast_to(data_type).map_err(wrong)?;
    let typed = if *data_type == DataType::Date32 { typed.cast_to(&DataType::Int32)? } else { typed };
    match typed.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(whole)) => Ok(Some(Value::Whole(whole))),
        _ => Err(refused(format!("a bound of WITH FILL is {value}, which {data_type} cannot hold"))),
    }
}

/// Adds months to a time, at the same day of the month, or the last one of a shorter month.
fn add_months(value: i64, months: i64, unit_ns: i64) -> Option<i64> {
    let at_ns = i128::from(value) * i128::from(unit_ns);
    let day = i64::try_from(at_ns.div_euclid(i128::from(DAY_NS))).ok()?;
    let month = month_of_day(day);
    let day_of_month = day - day_of_month_start(month);
    let month = month.checked_add(months).filter(|month| (-12_000_000..=12_000_000).contains(month))?;
    let start = day_of_month_start(month);
    let length = day_of_month_start(month + 1) - start;
    let moved = i128::from(start + day_of_month.min(length - 1) - day) * i128::from(DAY_NS);
    i64::try_from((at_ns + moved).div_euclid(i128::from(unit_ns))).ok()
}
