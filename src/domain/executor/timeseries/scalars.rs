//! Functions of one time: `xbar`, `time_bucket`, `timestamp_floor`, `epoch_s`, `epoch_ms`.
//!
//! Widths, origins, offsets and zones are constants. Each function keeps the origin that its own system gives it: xbar (kdb+)
//! counts from 1970-01-01, time_bucket (DuckDB, Timescale) from Monday 2000-01-03, timestamp_floor (QuestDB) as calendars do.

use crate::domain::executor::error::refused;
use crate::domain::executor::time_units;
use crate::domain::executor::timeseries::buckets::{Buckets, as_nanoseconds};
use crate::domain::executor::timeseries::spans::Span;
use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

const NANOSECONDS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// Returns the functions.
pub fn scalars() -> Vec<Arc<ScalarUDF>> {
    use Kind::{
        DateBinGapfill, EpochMs, EpochS, Sample, SampleFill, TimeBucket, TimeBucketGapfill, TimestampFloor, Xbar,
    };
    [Xbar, TimeBucket, TimestampFloor, EpochS, EpochMs, DateBinGapfill, TimeBucketGapfill, Sample, SampleFill]
        .map(|kind| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::from(TimeFunction { kind, signature }))
        })
        .to_vec()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// `xbar(x, width)`: of a time or a number.
    Xbar,
    /// `time_bucket(width, t[, origin | offset | zone])`.
    TimeBucket,
    /// `timestamp_floor(width, t)`.
    TimestampFloor,
    /// `date_bin_gapfill(width, t[, origin])` (InfluxDB 3): a bucket since 1970, and the buckets between are filled.
    DateBinGapfill,
    /// `time_bucket_gapfill(width, t[, zone[, start, finish]])` (Timescale).
    TimeBucketGapfill,
    /// What SAMPLE BY becomes: of width, time, zone, offset and the beginning of the first bucket.
    Sample,
    /// The same with FILL, and the end of the last bucket.
    SampleFill,
    /// `epoch_s(t)`: whole seconds since 1970.
    EpochS,
    /// `epoch_ms(t)`: whole milliseconds since 1970.
    EpochMs,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFunction {
    kind: Kind,
    signature: Signature,
}

impl TimeFunction {
    /// Returns the position of the time, and how many arguments there are.
    fn shape(&self) -> (usize, std::ops::RangeInclusive<usize>) {
        match self.kind {
            Kind::Xbar => (0, 2..=2),
            Kind::TimeBucket => (1, 2..=3),
            Kind::TimestampFloor => (1, 2..=2),
            Kind::DateBinGapfill => (1, 2..=3),
            Kind::TimeBucketGapfill => (1, 2..=5),
            Kind::Sample | Kind::SampleFill => (1, 6..=6),
            Kind::EpochS | Kind::EpochMs => (0, 1..=1),
        }
    }
}

impl ScalarUDFImpl for TimeFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Xbar => "xbar",
            Kind::TimeBucket => "time_bucket",
            Kind::TimestampFloor => "timestamp_floor",
            Kind::DateBinGapfill => "date_bin_gapfill",
            Kind::TimeBucketGapfill => "time_bucket_gapfill",
            Kind::Sample => "__zepto_sample",
            Kind::SampleFill => "__zepto_sample_fill",
            Kind::EpochS => "epoch_s",
            Kind::EpochMs => "epoch_ms",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (time, count) = self.shape();
        if !count.contains(&types.len()) {
            return plan_err!(
                "{} takes {} to {} arguments, not {}",
                self.name(),
                count.start(),
                count.end(),
                types.len()
            );
        }
        let mut types = types.to_vec();
        types[time] = match &types[time] {
            known @ DataType::Timestamp(..) => known.clone(),
            DataType::Date32
            | DataType::Date64
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Null => NANOSECONDS,
            number if self.kind == Kind::Xbar && number.is_integer() => DataType::Int64,
            number if self.kind == Kind::Xbar && number.is_numeric() => DataType::Float64,
            other => return plan_err!("{} takes a TIMESTAMP, not {other}", self.name()),
        };
        Ok(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match self.kind {
            Kind::EpochS | Kind::EpochMs => Ok(DataType::Int64),
            _ => Ok(types.get(self.shape().0).cloned().unwrap_or(NANOSECONDS)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let time = &args.args[self.shape().0];
        let is_constant = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if is_constant { 1 } else { args.number_rows })?;
        let computed = match self.kind {
            Kind::EpochS => epoch(&times, 1_000_000_000)?,
            Kind::EpochMs => epoch(&times, 1_000_000)?,
            Kind::Xbar if times.data_type().is_numeric() => {
                floor_number(&times, self.constant(&constants(&args.args), 1)?)?
            }
            _ => match self.buckets(&constants(&args.args))? {
                Some(buckets) => buckets.starts(&times)?,
                None => arrow::array::new_null_array(times.data_type(), times.len()),
            },
        };
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?)),
            false => Ok(ColumnarValue::Array(computed)),
        }
    }
}

/// Returns the arguments that are constants, in their places.
fn constants(args: &[ColumnarValue]) -> Vec<Option<ScalarValue>> {
    let constant = |arg: &ColumnarValue| match arg {
        ColumnarValue::Scalar(value) => Some(value.clone()),
        ColumnarValue::Array(_) => None,
    };
    args.iter().map(constant).collect()
}

/// Returns the buckets of a call of a function that fills gaps; none for another call, and where a constant is NULL.
///
/// # Errors
///
/// `InvalidQuery` for constants that say no buckets.
pub fn gap_buckets(call: &ScalarFunction) -> Result<Option<Buckets>> {
    let Some(function) = call.func.inner().downcast_ref::<TimeFunction>() else { return Ok(None) };
    function.buckets(&literals(call))
}

/// Returns the buckets of a call of a function with these constants, and which argument is the time; none for another function.
///
/// # Errors
///
/// `InvalidQuery` for constants that say no buckets.
pub fn bucket_call(function: &ScalarUDF, literals: &[Option<ScalarValue>]) -> Result<Option<(usize, Buckets)>> {
    let Some(function) = function.inner().downcast_ref::<TimeFunction>() else { return Ok(None) };
    if matches!(function.kind, Kind::EpochS | Kind::EpochMs) {
        return Ok(None);
    }
    Ok(function.buckets(literals)?.map(|buckets| (function.shape().0, buckets)))
}

/// Returns the bounds that a call of a function that fills gaps has itself.
pub fn gap_bounds(call: &ScalarFunction) -> Result<[Option<i64>; 2]> {
    let Some(function) = call.func.inner().downcast_ref::<TimeFunction>() else { return Ok([None, None]) };
    let values = literals(call);
    let places = match function.kind {
        Kind::SampleFill => [4, 5],
        Kind::TimeBucketGapfill => [3, 4],
        _ => return Ok([None, None]),
    };
    let [from, to] = places.map(|at| values.get(at).cloned().flatten().filter(|value| !value.is_null()));
    Ok([from.map(|value| instant(&value)).transpose()?, to.map(|value| instant(&value)).transpose()?])
}

/// Returns whether a call fills gaps, and then whether it needs bounds.
pub fn fills_gaps(call: &ScalarFunction) -> Option<bool> {
    match call.func.inner().downcast_ref::<TimeFunction>()?.kind {
        Kind::SampleFill => Some(false),
        Kind::DateBinGapfill | Kind::TimeBucketGapfill => Some(true),
        _ => None,
    }
}

fn literals(call: &ScalarFunction) -> Vec<Option<ScalarValue>> {
    fn literal(expr: &Expr) -> Option<ScalarValue> {
        match expr {
            Expr::Literal(value, _) => Some(value.clone()),
            Expr::Cast(cast) => literal(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
            Expr::Negative(inner) => literal(inner)?.arithmetic_negate().ok(),
            _ => None,
        }
    }
    call.args.iter().map(literal).collect()
}

/// Returns a constant time in nanoseconds.
///
/// # Errors
///
/// `InvalidQuery` for what is no time.
pub fn instant(value: &ScalarValue) -> Result<i64> {
    let wrong = || refused(format!("{value} is no time"));
    let ns = as_nanoseconds(&value.to_array()?).map_err(|_| wrong())?;
    let ns = ns.as_primitive::<TimestampNanosecondType>();
    if ns.is_null(0) { Err(wrong()) } else { Ok(ns.value(0)) }
}

impl TimeFunction {
    fn constant<'a>(&self, args: &'a [Option<ScalarValue>], at: usize) -> Result<&'a ScalarValue> {
        match args.get(at) {
            Some(Some(value)) => Ok(value),
            _ => Err(refused(format!("argument {} of {} has to be a constant", at + 1, self.name()))),
        }
    }

    /// Returns the buckets that the constants say; none where one of them is NULL.
    fn buckets(&self, args: &[Option<ScalarValue>]) -> Result<Option<Buckets>> {
        let width = self.constant(args, usize::from(self.kind == Kind::Xbar))?;
        let Some(width) = Span::read(width)? else { return Ok(None) };
        let is_sample = matches!(self.kind, Kind::Sample | Kind::SampleFill);
        let width = width.positive(if is_sample { "SAMPLE BY" } else { self.name() })?;
        let is_since_1970 = matches!(self.kind, Kind::Xbar | Kind::DateBinGapfill);
        let buckets = if is_since_1970 { Buckets::since_1970(width) } else { Buckets::calendar(width) };
        if is_sample {
            return self.sample(buckets, args).map(Some);
        }
        if args.len() < 3 {
            return Ok(Some(buckets));
        }
        let third = self.constant(args, 2)?;
        if third.is_null() {
            return Ok((self.kind == Kind::TimeBucketGapfill).then_some(buckets));
        }
        match third {
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                zone(text).map(|zone| Some(buckets.in_zone(zone)))
            }
            time if matches!(time.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => {
                buckets.with_origin(instant(time)?).map(Some)
            }
            span => match Span::read(span)? {
                Some(Span::Ns(shift_ns)) => Ok(Some(buckets.shifted(shift_ns))),
                _ => Err(refused("the offset of a bucket is no number of months".to_owned())),
            },
        }
    }

    /// Returns the buckets of SAMPLE BY.
    fn sample(&self, buckets: Buckets, args: &[Option<ScalarValue>]) -> Result<Buckets> {
        let given = |at: usize| self.constant(args, at).map(|value| Some(value).filter(|value| !value.is_null()));
        let (zone_name, offset, from) = (given(2)?, given(3)?, given(4)?);
        let buckets = match zone_name.and_then(|name| name.try_as_str().flatten()) {
            Some(name) => buckets.in_zone(zone(name)?),
            None => buckets,
        };
        let buckets = match offset.map(Span::read).transpose()?.flatten() {
            Some(Span::Ns(shift_ns)) => buckets.shifted(shift_ns),
            Some(Span::Months(_)) => return Err(refused("the offset of SAMPLE BY is no number of months".to_owned())),
            None => buckets,
        };
        match from {
            Some(from) if zone_name.is_none() => buckets.beginning_at(instant(from)?),
            _ => Ok(buckets),
        }
    }
}

/// Finds a zone by its name, such as `Europe/Berlin`.
///
/// # Errors
///
/// `InvalidQuery`.
pub fn zone(name: &str) -> Result<Tz> {
    name.parse()
        .map_err(|_| refused(format!("unknown time zone {name:?}; expected a name such as Europe/Berlin, or +01:00")))
}

fn epoch(times: &ArrayRef, unit_ns: i64) -> Result<ArrayRef> {
    let column_ns = i128::from(time_units::unit_ns(times.data_type()).unwrap_or(1));
    let counts = cast(times, &DataType::Int64)?;
    let whole =
        counts.as_primitive::<Int64Type>().try_unary::<_, Int64Type, datafusion::error::DataFusionError>(|count| {
            let whole = (i128::from(count) * column_ns).div_euclid(i128::from(unit_ns));
            i64::try_from(whole).map_err(|_| refused("a time is beyond 64 bits of this unit".to_owned()))
        })?;
    Ok(Arc::new(whole))
}

/// Rounds numbers down to a multiple of `width`.
fn floor_number(numbers: &ArrayRef, width: &ScalarValue) -> Result<ArrayRef> {
    let refuse = || refused(format!("the width of xbar is {width}; it has to be a number above 0"));
    if width.is_null() {
        return Ok(arrow::array::new_null_array(numbers.data_type(), numbers.len()));
    }
    match numbers.data_type() {
        DataType::Int64 if width.data_type().is_integer() => {
            let ScalarValue::Int64(Some(width)) = width.cast_to(&DataType::Int64)? else { return Err(refuse()) };
            if width <= 0 {
                return Err(refuse());
            }
            let beyond = || refused("a bucket begins beyond 64 bits".to_owned());
            let floor = |number: i64| number.checked_sub(number.rem_euclid(width)).ok_or_else(beyond);
            let floored: Int64Array = numbers.as_primitive::<Int64Type>().try_unary(floor)?;
            Ok(Arc::new(floored))
        }
        DataType::Int64 | DataType::Float64 => {
            let width = match width.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(value))) if value > 0.0 && value.is_finite() => value,
                _ => return Err(refuse()),
            };
            if *numbers.data_type() == DataType::Int64 {
                return Err(refused("xbar of integers takes a width that is one".to_owned()));
            }
            let floored: Float64Array =
                numbers.as_primitive::<Float64Type>().unary(|number| (number / width).floor() * width);
            Ok(Arc::new(floored))
        }
        other => exec_err!("xbar takes a TIMESTAMP or a number, not {other}"),
    }
}
