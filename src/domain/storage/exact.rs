//! Casts that keep every value, or refuse.
//!
//! What arrow casts, it may also round, truncate or wrap. Here the value decides: what survives the way there and back
//! is stored (1 in a FLOAT64, 2.0 in an INT64, 1.23 in a DECIMAL(10,2), ISO text in a TIMESTAMP), anything else is
//! `SchemaMismatch`. The SQL statements that write and every text format of ingestion go through this one policy.
//!
//! Invariant: a column that comes out has the target's type, as many rows, and nulls where the source had them.

use crate::domain::storage::number_text::{DecimalText, holds_f32, holds_f64};
use crate::ports::{Error, Result};
use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, Int64Array, MapArray,
    OffsetSizeTrait, PrimitiveArray, StringArray, StructArray, new_null_array,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Field, FieldRef, Float32Type,
    Float64Type, Int64Type, Time64NanosecondType, TimeUnit,
};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use std::collections::HashMap;
use std::sync::Arc;

/// Casts `column` to the type of `field`. `rows_before` rows of its stream came before it, for messages.
///
/// # Errors
///
/// `SchemaMismatch` naming the first value that would change, its column and row.
pub fn cast_exact(column: &ArrayRef, field: &Field, rows_before: u64) -> Result<ArrayRef> {
    let name = Target { column: field.name(), data_type: field.data_type(), rows_before };
    exact(column, field.data_type(), &name)
}

/// What messages say of the column that values go to.
struct Target<'a> {
    column: &'a str,
    data_type: &'a DataType,
    rows_before: u64,
}

impl Target<'_> {
    /// Makes the error for `column[row]`, which does not fit.
    fn refuse(&self, column: &dyn Array, row: usize) -> Error {
        let shown = array_value_to_string(column, row).unwrap_or_else(|_| "a value".to_owned());
        let shown: String = shown.chars().take(80).collect();
        let shown = if is_text(column.data_type()) { format!("{shown:?}") } else { shown };
        Error::mismatch(format!(
            "cannot store {shown} in column {:?} ({}), row {}",
            self.column,
            self.data_type,
            self.rows_before + row as u64
        ))
    }

    /// Makes the error for a type that never becomes the target's.
    fn refuse_type(&self, from: &DataType) -> Error {
        Error::mismatch(format!("cannot store {from} in column {:?} ({})", self.column, self.data_type))
    }
}

fn exact(column: &ArrayRef, to: &DataType, target: &Target<'_>) -> Result<ArrayRef> {
    use DataType::*;
    let from = column.data_type();
    match (from, to) {
        (from, to) if from == to => Ok(column.clone()),
        (Null, _) => Ok(new_null_array(to, column.len())),
        // A dictionary holds what its values hold.
        (_, Dictionary(_, values)) => {
            let values = exact(column, values, target)?;
            cast(&values, to).map_err(|_| target.refuse_type(from))
        }
        (Dictionary(_, values), _) => {
            let values = cast(column, values).map_err(|_| target.refuse_type(from))?;
            exact(&values, to, target)
        }
        (List(_), List(item)) => exact_list::<i32>(column, item, target),
        (LargeList(_), LargeList(item)) => exact_list::<i64>(column, item, target),
        (FixedSizeList(_, size), FixedSizeList(item, wanted)) if size == wanted => {
            let list = column.as_fixed_size_list();
            let values = exact(list.values(), item.data_type(), target)?;
            let made = FixedSizeListArray::try_new(item.clone(), *size, values, list.nulls().cloned());
            made.map(|list| Arc::new(list) as ArrayRef).map_err(|_| target.refuse_type(from))
        }
        (Map(..), Map(entries, ordered)) => exact_map(column, entries, *ordered, target),
        (Struct(_), Struct(members)) => exact_struct(column, members, target),
        (text, _) if is_text(text) && !is_text(to) => exact_text(column, to, target),
        _ => exact_value(column, to, target),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn exact_list<O: OffsetSizeTrait>(column: &ArrayRef, item: &FieldRef, target: &Target<'_>) -> Result<ArrayRef> {
    let list = column.as_list::<O>();
    let values = exact(list.values(), item.data_type(), target)?;
    GenericListArray::<O>::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned())
        .map(|list| Arc::new(list) as ArrayRef)
        .map_err(|_| target.refuse_type(column.data_type()))
}

fn exact_map(column: &ArrayRef, entries: &FieldRef, ordered: bool, target: &Target<'_>) -> Result<ArrayRef> {
    let from = column.as_map();
    let made: ArrayRef = Arc::new(from.entries().clone());
    let made = exact(&made, entries.data_type(), target)?.as_struct().clone();
    MapArray::try_new(entries.clone(), from.offsets().clone(), made, from.nulls().cloned(), ordered)
        .map(|map| Arc::new(map) as ArrayRef)
        .map_err(|_| target.refuse_type(column.data_type()))
}

fn exact_struct(column: &ArrayRef, members: &arrow::datatypes::Fields, target: &Target<'_>) -> Result<ArrayRef> {
    let from = column.as_struct();
    // There may be a hundred thousand.
    let columns: HashMap<&str, &ArrayRef> = from.column_names().into_iter().zip(from.columns()).collect();
    let member = |field: &FieldRef| match columns.get(field.name().as_str()) {
        Some(values) => exact(values, field.data_type(), target),
        None => Err(target.refuse_type(column.data_type())),
    };
    if from.num_columns() != members.len() {
        return Err(target.refuse_type(column.data_type()));
    }
    let columns = members.iter().map(member).collect::<Result<Vec<_>>>()?;
    StructArray::try_new(members.clone(), columns, from.nulls().cloned())
        .map(|made| Arc::new(made) as ArrayRef)
        .map_err(|_| target.refuse_type(column.data_type()))
}

/// Casts what is not text, and back again.
fn exact_value(column: &ArrayRef, to: &DataType, target: &Target<'_>) -> Result<ArrayRef> {
    let there = strict_cast(column, to).map_err(|_| first_failure(column, to, target))?;
    let back = match (column.data_type(), to) {
        // A double is as good as its shortest text: 0.1 becomes the float that is written 0.1.
        (DataType::Float64, DataType::Float32) => survives(column.as_primitive::<Float64Type>(), |row, value| {
            let single = there.as_primitive::<Float32Type>().value(row);
            f64::from(single) == value || value.is_nan() || holds_f32(single, &value.to_string())
        }),
        (from, _) => strict_cast(&there, from).and_then(|back| same_values(column, &back)),
    };
    match back.map(|same| first_false(&same)) {
        Ok(None) => Ok(there),
        Ok(Some(row)) => Err(target.refuse(column.as_ref(), row)),
        Err(_) => Err(target.refuse_type(column.data_type())),
    }
}

fn survives<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    check: impl Fn(usize, T::Native) -> bool,
) -> std::result::Result<BooleanArray, ArrowError> {
    Ok(values.iter().enumerate().map(|(row, value)| Some(value.is_none_or(|value| check(row, value)))).collect())
}

/// Compares row by row; floats by value, so that a negative zero is a zero and NaN is NaN.
fn same_values(column: &ArrayRef, back: &ArrayRef) -> std::result::Result<BooleanArray, ArrowError> {
    match column.data_type() {
        DataType::Float64 => {
            let back = back.as_primitive::<Float64Type>();
            survives(column.as_primitive::<Float64Type>(), |row, value| same_float(value, back.value(row)))
        }
        DataType::Float32 => {
            let back = back.as_primitive::<Float32Type>();
            survives(column.as_primitive::<Float32Type>(), |row, value| {
                same_float(f64::from(value), f64::from(back.value(row)))
            })
        }
        _ => not_distinct(column, back),
    }
}

fn same_float(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

fn first_false(same: &BooleanArray) -> Option<usize> {
    (0..same.len()).find(|row| !same.value(*row))
}

/// A cast that fails rather than makes a null of what does not fit.
fn strict_cast(column: &ArrayRef, to: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// The error for the first row that does not cast: arrow says which value, but not where it is.
fn first_failure(column: &ArrayRef, to: &DataType, target: &Target<'_>) -> Error {
    match (0..column.len()).find(|row| strict_cast(&column.slice(*row, 1), to).is_err()) {
        Some(row) => target.refuse(column.as_ref(), row),
        None => target.refuse_type(column.data_type()),
    }
}

/// Reads text as values of another type.
fn exact_text(column: &ArrayRef, to: &DataType, target: &Target<'_>) -> Result<ArrayRef> {
    use DataType::*;
    let text = cast(column, &Utf8).map_err(|_| target.refuse_type(column.data_type()))?;
    let text = text.as_string::<i32>();
    match to {
        Float64 => each::<Float64Type>(text, to, target, |text| {
            let value = text.parse::<f64>().ok()?;
            holds_f64(value, text).then_some(value)
        }),
        Float32 => each::<Float32Type>(text, to, target, |text| {
            let value = text.parse::<f32>().ok()?;
            holds_f32(value, text).then_some(value)
        }),
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => {
            if let (Int64, Some(short)) = (to, short_integers(text)) {
                return Ok(short);
            }
            // Wide enough for all of them, and for telling what does not fit.
            let wide = each::<Decimal128Type>(text, &Decimal128(38, 0), target, integer)?;
            strict_cast(&wide, to).map_err(|_| first_failure(&wide, to, target))
        }
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) => {
            let wide = Decimal128(*precision, *scale);
            let values = each::<Decimal128Type>(text, &wide, target, |text| {
                DecimalText::parse(text)?.scaled_i128(*precision, *scale)
            })?;
            strict_cast(&values, to).map_err(|_| first_failure(&values, to, target))
        }
        Decimal256(precision, scale) => {
            each::<Decimal256Type>(text, to, target, |text| DecimalText::parse(text)?.scaled_i256(*precision, *scale))
        }
        Timestamp(unit, zone) => {
            let zone: Tz = zone.as_deref().unwrap_or("UTC").parse().map_err(|_| target.refuse_type(&Utf8))?;
            let values = each::<Int64Type>(text, &Int64, target, |text| timestamp(text, *unit, zone))?;
            cast(&values, to).map_err(|_| target.refuse_type(&Utf8))
        }
        Date32 => each::<Date32Type>(text, to, target, date),
        Date64 => each::<Date64Type>(text, to, target, |text| Date64Type::parse(text).or_else(|| text.parse().ok())),
        Time32(unit) | Time64(unit) => {
            let values = each::<Int64Type>(text, &Int64, target, |text| {
                let nanoseconds = Time64NanosecondType::parse(text);
                nanoseconds.map_or_else(|| text.parse().ok(), |ns| divided(ns, nanoseconds_of(*unit)))
            })?;
            // 32-bit times have no cast from 64 bits of their own.
            let values = match to {
                Time32(_) => strict_cast(&values, &Int32).map_err(|_| target.refuse_type(&Utf8))?,
                _ => values,
            };
            cast(&values, to).map_err(|_| target.refuse_type(&Utf8))
        }
        _ => strict_cast(column, to).map_err(|_| first_failure(column, to, target)),
    }
}

/// Reads every value by `read`, which answers none for what the type does not hold exactly.
fn each<T: ArrowPrimitiveType>(
    text: &StringArray,
    to: &DataType,
    target: &Target<'_>,
    read: impl Fn(&str) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let mut values = Vec::with_capacity(text.len());
    for row in 0..text.len() {
        values.push(match text.is_null(row) {
            true => T::default_value(),
            false => read(text.value(row).trim()).ok_or_else(|| target.refuse(text, row))?,
        });
    }
    let values = PrimitiveArray::<T>::new(values.into(), text.nulls().cloned());
    Ok(Arc::new(values.with_data_type(to.clone())))
}

/// Reads whole numbers if all of them are plain and short, which most are.
fn short_integers(text: &StringArray) -> Option<ArrayRef> {
    let mut values = Vec::with_capacity(text.len());
    for row in 0..text.len() {
        values.push(match text.is_null(row) {
            true => 0,
            false => {
                let text = text.value(row);
                let is_plain =
                    text.len() < 19 && (text == "0" || !text.starts_with(['0', '+']) && !text.starts_with("-0"));
                is_plain.then(|| text.parse::<i64>().ok()).flatten()?
            }
        });
    }
    Some(Arc::new(Int64Array::new(values.into(), text.nulls().cloned())))
}

/// Reads a whole number as it would be written again: `007` is not 7.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Most numbers are short.
    if digits.len() < 19 && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i64>().ok().map(i128::from);
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    DecimalText::parse(text)?.scaled_i128(38, 0)
}

/// Reads an instant: ISO-8601, or a whole number of units since 1970.
fn timestamp(text: &str, unit: TimeUnit, zone: Tz) -> Option<i64> {
    let Ok(instant) = string_to_datetime(&zone, text) else { return integer(text)?.try_into().ok() };
    if lost_digits(text) {
        return None;
    }
    let unit_ns = nanoseconds_of(unit);
    let (seconds, nanoseconds) = (instant.timestamp(), i64::from(instant.timestamp_subsec_nanos()));
    let per_second = 1_000_000_000 / unit_ns;
    seconds.checked_mul(per_second)?.checked_add(divided(nanoseconds, unit_ns)?)
}

/// Returns whether a time has more digits than nanoseconds take: arrow passes over them.
fn lost_digits(text: &str) -> bool {
    let Some((_, fraction)) = text.split_once('.') else { return false };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    digits.skip(9).any(|digit| digit != b'0')
}

/// Reads a day, and nothing that is more than a day.
fn date(text: &str) -> Option<i32> {
    let day = Date32Type::parse(text).or_else(|| text.parse().ok())?;
    if text.len() > 10 && !text.starts_with(['+', '-']) {
        let instant = string_to_datetime(&"UTC".parse::<Tz>().ok()?, text).ok()?;
        let has_time = instant.timestamp().rem_euclid(86_400) != 0 || instant.timestamp_subsec_nanos() != 0;
        if has_time || lost_digits(text) {
            return None;
        }
    }
    Some(day)
}

fn divided(value: i64, by: i64) -> Option<i64> {
    (value % by == 0).then(|| value / by)
}

fn nanoseconds_of(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::exact::cast_exact;
    use arrow::array::*;
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use std::sync::Arc;

    fn text(column: impl Array + 'static, to: &DataType) -> Result<String, String> {
        let column: ArrayRef = Arc::new(column);
        let stored = cast_exact(&column, &Field::new("n", to.clone(), true), 0).map_err(|error| error.to_string())?;
        assert_eq!(stored.data_type(), to);
        Ok(arrow::util::display::array_value_to_string(&stored, 0).unwrap())
    }

    fn stored(column: impl Array + 'static, to: DataType, expected: &str) {
        assert_eq!(text(column, &to).as_deref(), Ok(expected), "{to}");
    }

    fn refused(column: impl Array + 'static, to: DataType) {
        let error = text(column, &to).expect_err(&to.to_string());
        assert!(error.contains("cannot store") && error.contains("\"n\""), "{error}");
    }

    fn s(value: &str) -> StringArray {
        StringArray::from(vec![value])
    }

    fn f(value: f64) -> Float64Array {
        Float64Array::from(vec![value])
    }

    #[test]
    fn numbers_survive_or_are_refused() {
        use DataType::*;
        stored(Int64Array::from(vec![1]), Float64, "1.0");
        stored(f(2.0), Int64, "2");
        stored(f(-0.0), Int64, "0");
        stored(f(1.23), Decimal128(10, 2), "1.23");
        stored(f(0.1), Float32, "0.1");
        stored(f(f64::NAN), Float32, "NaN");
        for (column, to) in [
            (f(1.9), Int64),
            (f(1.239), Decimal128(10, 2)),
            (f(2.7), UInt32),
            (f(1e30), Int64),
            (f(f64::NAN), Int64),
            (f(0.1 + 0.2), Float32),
            (f(1e300), Float32),
        ] {
            refused(column, to);
        }
        refused(Int64Array::from(vec![9_007_199_254_740_993]), Float64);
        refused(Int64Array::from(vec![-1]), UInt64);
        refused(UInt64Array::from(vec![u64::MAX]), Int64);
        refused(Int64Array::from(vec![16_777_217]), Float32);
    }

    #[test]
    fn text_is_read_as_it_is_written() {
        use DataType::*;
        for (value, to, expected) in [
            ("1", Int64, "1"),
            ("-9223372036854775808", Int64, "-9223372036854775808"),
            ("2.0", Int64, "2"),
            ("1e3", Int16, "1000"),
            ("0", UInt8, "0"),
            ("9007199254740992", Float64, "9007199254740992.0"),
            ("0.10000000000000001", Float64, "0.1"),
            ("NaN", Float64, "NaN"),
            ("0.1", Float32, "0.1"),
            ("1.50", Decimal128(10, 2), "1.50"),
            ("-1.5e1", Decimal128(10, 2), "-15.00"),
            (
                "12345678901234567890123456789012345678901.5",
                Decimal256(60, 3),
                "12345678901234567890123456789012345678901.500",
            ),
            ("true", Boolean, "true"),
        ] {
            stored(s(value), to, expected);
        }
        for (value, to) in [
            ("1.5", Int64),
            ("-9223372036854775809", Int64),
            ("007", Int64),
            ("", Int64),
            ("9007199254740993.0", Float64),
            ("9007199254740993", Float64),
            ("1e400", Float64),
            ("16777217", Float32),
            ("1.005", Decimal128(10, 2)),
            ("123456789", Decimal128(10, 2)),
            ("abc", Decimal128(10, 2)),
            ("maybe", Boolean),
        ] {
            refused(s(value), to);
        }
    }

    #[test]
    fn times_keep_their_digits_or_are_refused() {
        use DataType::*;
        let seconds = || Timestamp(TimeUnit::Second, None);
        let nanos = || Timestamp(TimeUnit::Nanosecond, None);
        stored(s("2024-01-01"), seconds(), "2024-01-01T00:00:00");
        stored(s("2024-01-01T10:00:00.5"), nanos(), "2024-01-01T10:00:00.500");
        stored(s("2024-01-01 10:00:00Z"), nanos(), "2024-01-01T10:00:00");
        stored(s("9999-12-31T03:00:00"), seconds(), "9999-12-31T03:00:00");
        stored(s("1711234567000000000"), nanos(), "2024-03-23T22:56:07");
        stored(s("2024-01-01"), Date32, "2024-01-01");
        stored(s("2024-01-01T00:00:00"), Date32, "2024-01-01");
        stored(s("10:00:00.25"), Time64(TimeUnit::Nanosecond), "10:00:00.250");
        stored(s("10:00:00"), Time32(TimeUnit::Second), "10:00:00");
        refused(s("2024-01-01T00:00:00.9"), seconds());
        refused(s("9999-12-31T03:00:00"), nanos());
        refused(s("2024-01-01T00:00:00.1234567891"), nanos());
        refused(s("2024-01-01T00:00:01"), Date32);
        refused(s("10:00:00.25"), Time32(TimeUnit::Second));
        refused(s("yesterday"), nanos());
        refused(TimestampNanosecondArray::from(vec![1]), seconds());
        refused(TimestampNanosecondArray::from(vec![1]), Date32);
        stored(TimestampNanosecondArray::from(vec![86_400_000_000_000]), Date32, "1970-01-02");
    }

    #[test]
    fn nested_values_are_held_to_the_same() {
        let list = |values: Vec<Option<f64>>| {
            ListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>([Some(values)])
        };
        let ints = DataType::new_list(DataType::Int64, true);
        stored(list(vec![Some(1.0), None]), ints.clone(), "[1, ]");
        refused(list(vec![Some(1.5)]), ints);
        let nulls: ArrayRef = Arc::new(NullArray::new(2));
        assert_eq!(cast_exact(&nulls, &Field::new("n", DataType::Int64, true), 0).unwrap().null_count(), 2);
    }
}
