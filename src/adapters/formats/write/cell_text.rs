//! The text of a column's values, made for all rows at once: what all values of a type need is found once.

use crate::ports::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::temporal_conversions::date32_to_datetime;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

/// How times of day are set off from their days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeStyle {
    /// `T`, as ISO-8601 has it.
    Iso,
    /// A space, as ClickHouse has it.
    Space,
}

/// The text of every value of a column, one after the other.
pub struct CellText {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl CellText {
    /// Formats times without a zone. The day is formatted again only where it changes: neighbours in a time series
    /// share it.
    pub fn of_times(array: &ArrayRef, unit: TimeUnit, style: TimeStyle) -> Result<Self> {
        let units = cast(array, &DataType::Int64).map_err(text_error)?;
        let (per_second, digits) = match unit {
            TimeUnit::Second => (1, 0),
            TimeUnit::Millisecond => (1_000, 3),
            TimeUnit::Microsecond => (1_000_000, 6),
            TimeUnit::Nanosecond => (1_000_000_000, 9),
        };
        let per_day = per_second * 86_400;
        let (mut today, mut date) = (None, None);
        let mut texts = Self { text: Vec::new(), ends: Vec::with_capacity(array.len()) };
        let out = &mut texts.text;
        for time in units.as_primitive::<Int64Type>().values() {
            let day = time.div_euclid(per_day);
            if today != Some(day) {
                (today, date) = (Some(day), date_text(day));
            }
            match &date {
                Some(date) => {
                    out.extend_from_slice(date.as_bytes());
                    out.push(if style == TimeStyle::Iso { b'T' } else { b' ' });
                    let in_day = time.rem_euclid(per_day);
                    let second = in_day / per_second;
                    push_digits(second / 3_600, 2, out);
                    out.push(b':');
                    push_digits(second / 60 % 60, 2, out);
                    out.push(b':');
                    push_digits(second % 60, 2, out);
                    if digits > 0 {
                        out.push(b'.');
                        push_digits(in_day % per_second, digits, out);
                    }
                }
                // Outside the calendar's range: its number of units.
                None => write_json(time, out),
            }
            texts.ends.push(out.len());
        }
        Ok(texts)
    }

    /// Formats values of any other type, as arrow does.
    pub fn of(array: &ArrayRef, options: &FormatOptions<'_>) -> Result<Self> {
        let formatter = ArrayFormatter::try_new(array.as_ref(), options).map_err(text_error)?;
        let mut text = String::new();
        let mut ends = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            let start = text.len();
            if array.is_valid(row) && formatter.value(row).write(&mut text).is_err() {
                // A time outside the calendar's range: its number of units.
                text.truncate(start);
                let number = cast(&array.slice(row, 1), &DataType::Int64).map_err(text_error)?;
                text.push_str(&number.as_primitive::<Int64Type>().value(0).to_string());
            }
            ends.push(text.len());
        }
        Ok(Self { text: text.into_bytes(), ends })
    }

    /// Returns the text of row `row`; unspecified where that is null.
    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.text[start..self.ends[row]]
    }
}

/// Builds the error for a value that has no text.
pub fn text_error(error: ArrowError) -> Error {
    Error::internal("a value has no text").with_source(error)
}

/// Formats a day since 1970-01-01 as ISO-8601; `None` outside the calendar's range.
fn date_text(day: i64) -> Option<String> {
    let day = date32_to_datetime(i32::try_from(day).ok()?)?;
    Some(day.format("%Y-%m-%d").to_string())
}

/// Appends the last `count` decimal digits of `value`, which is not negative.
fn push_digits(mut value: i64, count: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + count, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Returns options for ISO-8601 with the digits of the unit, for times with a zone; those without have
/// [`CellText::of_times`].
pub fn time_format(data_type: &DataType, style: TimeStyle) -> FormatOptions<'static> {
    let options = FormatOptions::new().with_display_error(false);
    let DataType::Timestamp(unit, _) = data_type else { return options };
    options.with_timestamp_tz_format(Some(match (unit, style) {
        (TimeUnit::Second, TimeStyle::Iso) => "%Y-%m-%dT%H:%M:%S%:z",
        (TimeUnit::Millisecond, TimeStyle::Iso) => "%Y-%m-%dT%H:%M:%S%.3f%:z",
        (TimeUnit::Microsecond, TimeStyle::Iso) => "%Y-%m-%dT%H:%M:%S%.6f%:z",
        (TimeUnit::Nanosecond, TimeStyle::Iso) => "%Y-%m-%dT%H:%M:%S%.9f%:z",
        (TimeUnit::Second, TimeStyle::Space) => "%Y-%m-%d %H:%M:%S",
        (TimeUnit::Millisecond, TimeStyle::Space) => "%Y-%m-%d %H:%M:%S%.3f",
        (TimeUnit::Microsecond, TimeStyle::Space) => "%Y-%m-%d %H:%M:%S%.6f",
        (TimeUnit::Nanosecond, TimeStyle::Space) => "%Y-%m-%d %H:%M:%S%.9f",
    }))
}

/// Appends a value as JSON.
pub fn write_json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "a vector takes what is written to it");
}
