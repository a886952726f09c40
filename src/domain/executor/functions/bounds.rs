//! Bounds the size and time of a call of a guarded function, before it is made.
//!
//! Each bound is proved by the kernel of DataFusion 55.2 that it belongs to, as a formula over the sizes of its
//! arguments; sums run over the rows of the batch, and a constant counts once for each row, because kernels repeat it.
//! Numbers are 128 bits wide, so nothing that a statement can say wraps them.

use crate::domain::executor::error::{refused, unsupported};
use crate::domain::executor::functions::planning_constants::PlanningConstants;
use crate::domain::storage::{slice_bytes, text_lengths};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use std::collections::HashSet;

/// Largest result of one call for one batch, in bytes.
const RESULT_BYTES_MAX: u128 = 256 << 20;

/// Most steps of one call: about a second.
const STEPS_MAX: u128 = 1_000_000_000;

/// Longest pattern of a regular expression with its flags, in bytes: a class of two bytes takes thousands when
/// compiled.
const PATTERN_BYTES_MAX: u64 = 4 << 10;

/// Most patterns of one batch: all of them are kept compiled.
const PATTERNS_MAX: usize = 32;

/// Longest text that names a type, and deepest nesting in it.
const TYPE_BYTES_MAX: usize = 1 << 10;
const TYPE_DEPTH_MAX: usize = 16;

/// Refuses a call of `name` whose result would be too large, or that would take too long; returns the bytes of its result at
/// most.
///
/// # Errors
///
/// `InvalidQuery` naming the function and the bound.
pub fn check_bounds(name: &str, args: &[ColumnarValue], rows: usize) -> Result<u64> {
    let args = Args { values: args, rows };
    let is_constant = args.values.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let bytes = args.repeated_bytes().max(result_bytes(name, &args)?);
    let bytes_max = if is_constant && rows <= 1 { PlanningConstants::left() } else { RESULT_BYTES_MAX };
    if is_constant && rows <= 1 {
        PlanningConstants::add(bytes);
    }
    if bytes > bytes_max {
        return Err(refused(format!("{name} would make {bytes} bytes at once, more than {bytes_max}")));
    }
    let steps = steps(name, &args)?;
    if steps > STEPS_MAX {
        return Err(refused(format!("{name} would take {steps} steps at once, more than {STEPS_MAX}")));
    }
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// Refuses a type that takes a fixed size for each row, and text that is nested too deeply.
///
/// # Errors
///
/// `InvalidQuery`.
pub fn check_type_text(text: &ScalarValue) -> Result<()> {
    let Some(Some(text)) = text.try_as_str() else { return Ok(()) };
    let depth = text.bytes().filter(|byte| *byte == b'(').count();
    if text.len() > TYPE_BYTES_MAX || depth > TYPE_DEPTH_MAX {
        return Err(refused("a type name is too long, or nested too deeply".to_owned()));
    }
    let lower = text.to_ascii_lowercase();
    match ["fixedsize", "union", "runendencoded", "listview"].iter().find(|part| lower.contains(*part)) {
        Some(part) => Err(unsupported(format!("arrow_cast to {part} types is not supported"))),
        None => Ok(()),
    }
}

/// The arguments of a call for a batch of `rows` rows.
struct Args<'a> {
    values: &'a [ColumnarValue],
    rows: usize,
}

/// A number for each row, or one for all of them.
enum PerRow<T> {
    Same(T),
    Each(Vec<T>),
}

impl<T: Copy> PerRow<T> {
    fn get(&self, row: usize) -> T {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[row],
        }
    }
}

impl Args<'_> {
    fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns the bytes of constants, repeated for each row.
    fn repeated_bytes(&self) -> u128 {
        let constants = self.values.iter().map(|arg| match arg {
            ColumnarValue::Scalar(value) => u128::from(scalar_bytes(value)),
            ColumnarValue::Array(_) => 0,
        });
        constants.sum::<u128>() * self.rows as u128
    }

    /// Returns the bytes of all arguments, each for every row.
    fn all_bytes(&self) -> u128 {
        (0..self.len()).map(|at| self.bytes(at)).sum()
    }

    fn bytes(&self, at: usize) -> u128 {
        match self.values.get(at) {
            None => 0,
            Some(ColumnarValue::Array(array)) => u128::from(slice_bytes(array.as_ref())),
            Some(ColumnarValue::Scalar(value)) => u128::from(scalar_bytes(value)) * self.rows as u128,
        }
    }

    /// Returns the lengths of texts, 0 where there is none.
    fn lengths(&self, at: usize) -> PerRow<u64> {
        match self.values.get(at) {
            None => PerRow::Same(0),
            Some(ColumnarValue::Array(array)) => PerRow::Each(text_lengths(array.as_ref())),
            Some(ColumnarValue::Scalar(value)) => PerRow::Same(scalar_bytes(value)),
        }
    }

    /// Returns numbers as they are, 0 for null.
    fn numbers(&self, at: usize) -> PerRow<i64> {
        match self.values.get(at) {
            None => PerRow::Same(0),
            Some(ColumnarValue::Array(array)) => PerRow::Each(integers(array).unwrap_or(vec![0; array.len()])),
            Some(ColumnarValue::Scalar(value)) => {
                let one = value.to_array().ok().and_then(|array| integers(&array));
                PerRow::Same(one.and_then(|one| one.first().copied()).unwrap_or(0))
            }
        }
    }

    /// Returns the number of items of lists, 0 where there is none.
    fn items(&self, at: usize) -> PerRow<u64> {
        match self.values.get(at) {
            None => PerRow::Same(0),
            Some(ColumnarValue::Array(array)) => PerRow::Each(list_lengths(array)),
            Some(ColumnarValue::Scalar(value)) => {
                let one = value.to_array().map(|array| list_lengths(&array)).unwrap_or_default();
                PerRow::Same(one.first().copied().unwrap_or(0))
            }
        }
    }

    /// Returns the bytes of the value of each row.
    fn row_bytes(&self, at: usize) -> PerRow<u64> {
        match self.values.get(at) {
            None => PerRow::Same(0),
            Some(ColumnarValue::Array(array)) => {
                PerRow::Each((0..array.len()).map(|row| slice_bytes(array.slice(row, 1).as_ref())).collect())
            }
            Some(ColumnarValue::Scalar(value)) => PerRow::Same(scalar_bytes(value)),
        }
    }

    fn is_scalar(&self, at: usize) -> bool {
        matches!(self.values.get(at), Some(ColumnarValue::Scalar(_)))
    }

    /// Returns the sum of `of` over all rows.
    fn sum(&self, of: impl Fn(usize) -> u128) -> u128 {
        (0..self.rows).map(of).fold(0, u128::saturating_add)
    }
}

fn wide(value: u64) -> u128 {
    u128::from(value)
}

fn positive(value: i64) -> u128 {
    u128::from(value.max(0).unsigned_abs())
}

/// Returns the approximate bytes of a result; 0 where it is no larger than the arguments.
fn result_bytes(name: &str, args: &Args) -> Result<u128> {
    Ok(match name {
        "repeat" => {
            let (text, count) = (args.lengths(0), args.numbers(1));
            args.sum(|row| 2 * wide(text.get(row)) * positive(count.get(row)))
        }
        "lpad" | "rpad" => {
            let count = args.numbers(1);
            if let PerRow::Each(counts) = &count
                && counts.iter().any(|count| *count < 0)
            {
                return Err(refused(format!("{name} does not take a negative length")));
            }
            args.sum(|row| 4 * positive(count.get(row)))
        }
        "replace" => {
            let (text, from, to) = (args.lengths(0), args.lengths(1), args.lengths(2));
            args.sum(|row| {
                let found = if from.get(row) == 0 { 0 } else { wide(text.get(row)) / wide(from.get(row)) };
                wide(text.get(row)) + found * wide(to.get(row))
            })
        }
        "regexp_replace" => {
            let (text, to) = (args.lengths(0), args.lengths(2));
            args.sum(|row| wide(text.get(row)) + (wide(text.get(row)) + 1) * wide(to.get(row)))
        }
        "regexp_match" => {
            let (text, pattern) = (args.lengths(0), args.lengths(1));
            args.sum(|row| (1 + wide(pattern.get(row)) / 2) * (wide(text.get(row)) + 16))
        }
        "overlay" | "encode" => 2 * args.all_bytes(),
        "to_char" => args.sum(|_| 40) + 20 * args.bytes(1),
        "concat" | "concat_ws" | "__zepto_concat" => {
            let separators = args.len().saturating_sub(2) as u128 * args.bytes(0);
            args.all_bytes() + if name == "concat_ws" { separators } else { 0 }
        }
        "array_to_string" => {
            let (items, separator, null) = (args.items(0), args.lengths(1), args.lengths(2));
            let leaves = |row| wide(items.get(row)) * (330 + wide(separator.get(row)) + wide(null.get(row)));
            args.sum(leaves) + args.bytes(0)
        }
        "string_to_array" => 17 * args.bytes(0),
        "array_append" | "array_prepend" | "array_concat" | "make_array" | "struct" | "named_struct" | "map"
        | "array_union" => args.all_bytes(),
        _ => list_bytes(name, args)?,
    })
}

fn list_bytes(name: &str, args: &Args) -> Result<u128> {
    Ok(match name {
        "range" | "generate_series" => series_bytes(args)?,
        "array_repeat" => {
            let (value, count) = (args.row_bytes(0), args.numbers(1));
            args.sum(|row| positive(count.get(row)) * (wide(value.get(row)) + 16))
        }
        "array_resize" => {
            let (count, fill) = (args.numbers(1), args.row_bytes(2));
            args.bytes(0) + args.sum(|row| positive(count.get(row)) * (wide(fill.get(row)) + 16))
        }
        "array_replace" => args.bytes(0) + args.bytes(2),
        "array_replace_n" | "array_replace_all" => {
            let (items, to) = (args.items(0), args.row_bytes(2));
            args.bytes(0) + args.sum(|row| wide(items.get(row)) * wide(to.get(row)))
        }
        "arrays_zip" => {
            let lists: Vec<_> = (0..args.len()).map(|at| args.items(at)).collect();
            let longest = |row| lists.iter().map(|items| wide(items.get(row))).max().unwrap_or(0);
            args.all_bytes() + args.sum(|row| longest(row) * 16 * args.len() as u128)
        }
        "array_has" if args.is_scalar(0) && !args.is_scalar(1) => args.bytes(0),
        "array_slice" => {
            let stride = args.numbers(3);
            match (0..args.rows).find(|row| stride.get(*row).unsigned_abs() > 1 << 30) {
                Some(_) => return Err(refused("the stride of array_slice is out of range".to_owned())),
                None => 0,
            }
        }
        _ => 0,
    })
}

/// Returns the bytes of a series. A step whose parts have different signs may never reach the end, whatever their sum.
fn series_bytes(args: &Args) -> Result<u128> {
    if let Some(step) = args.values.get(2) {
        check_step(step)?;
    }
    let (start, stop) = match args.len() {
        1 => (PerRow::Same(0), args.numbers(0)),
        _ => (args.numbers(0), args.numbers(1)),
    };
    let step = if args.len() > 2 { args.numbers(2) } else { PerRow::Same(1) };
    Ok(8 * args.sum(|row| {
        let (start, stop, step) = (start.get(row), stop.get(row), step.get(row));
        let fits = step == 0 || (stop >= start) == (step > 0);
        if fits { u128::from(stop.abs_diff(start) / step.unsigned_abs().max(1)) + 1 } else { 0 }
    }))
}

/// Refuses a step that goes forward in one of its parts and back in another.
fn check_step(step: &ColumnarValue) -> Result<()> {
    let intervals = step.to_array(1)?;
    if !matches!(intervals.data_type(), DataType::Interval(_)) {
        return Ok(());
    }
    let intervals = cast(&intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    for step in intervals.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
        let signs = [i64::from(step.months).signum(), i64::from(step.days).signum(), step.nanoseconds.signum()];
        if signs.contains(&1) && signs.contains(&-1) {
            return Err(refused("the parts of a step have different signs: it would go back and forth".to_owned()));
        }
    }
    Ok(())
}

/// Returns the steps of a call where they are more than its arguments have bytes.
fn steps(name: &str, args: &Args) -> Result<u128> {
    Ok(match name {
        "levenshtein" | "btrim" | "ltrim" | "rtrim" => {
            let (a, b) = (args.lengths(0), args.lengths(1));
            args.sum(|row| wide(a.get(row)) * wide(b.get(row)))
        }
        "strpos" if !args.is_scalar(1) || args.is_scalar(0) => {
            let (text, part) = (args.lengths(0), args.lengths(1));
            args.sum(|row| wide(text.get(row)) * wide(part.get(row)) / 16)
        }
        "array_has_all" | "array_has_any" => {
            let (a, b) = (args.items(0), args.items(1));
            args.sum(|row| 16 * wide(a.get(row)) * wide(b.get(row)))
        }
        "regexp_count" | "regexp_instr" | "regexp_like" | "regexp_match" | "regexp_replace" => {
            check_patterns(args)?;
            let (text, pattern) = (args.lengths(0), args.lengths(1));
            args.sum(|row| wide(text.get(row)) * wide(pattern.get(row).max(1)))
        }
        _ => 0,
    })
}

/// Refuses patterns that are too long or too many.
fn check_patterns(args: &Args) -> Result<()> {
    for value in args.values.iter().skip(1) {
        let longest = match value {
            ColumnarValue::Scalar(value) => scalar_bytes(value),
            ColumnarValue::Array(array) => text_lengths(array.as_ref()).into_iter().max().unwrap_or(0),
        };
        if longest > PATTERN_BYTES_MAX && !is_replacement(args, value) {
            return Err(refused(format!("a regular expression is longer than {PATTERN_BYTES_MAX} bytes")));
        }
    }
    if let Some(ColumnarValue::Array(patterns)) = args.values.get(1) {
        let text = cast(patterns, &DataType::LargeUtf8)?;
        let distinct: HashSet<_> = text.as_string::<i64>().iter().flatten().collect();
        if distinct.len() > PATTERNS_MAX {
            return Err(refused(format!("a batch has more than {PATTERNS_MAX} regular expressions")));
        }
    }
    Ok(())
}

/// Returns whether `value` is the third argument: the replacement of regexp_replace.
fn is_replacement(args: &Args, value: &ColumnarValue) -> bool {
    args.values.get(2).is_some_and(|third| std::ptr::eq(third, value))
}

fn scalar_bytes(value: &ScalarValue) -> u64 {
    match value.try_as_str() {
        Some(text) => text.map_or(0, |text| text.len() as u64),
        None => match value {
            ScalarValue::List(list) => slice_bytes(list.as_ref()),
            ScalarValue::LargeList(list) => slice_bytes(list.as_ref()),
            ScalarValue::FixedSizeList(list) => slice_bytes(list.as_ref()),
            ScalarValue::Struct(members) => slice_bytes(members.as_ref()),
            ScalarValue::Binary(bytes) | ScalarValue::LargeBinary(bytes) | ScalarValue::BinaryView(bytes) => {
                bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)
            }
            _ => 16,
        },
    }
}

fn list_lengths(array: &ArrayRef) -> Vec<u64> {
    let of = |row: usize| match array.data_type() {
        DataType::List(_) if array.is_valid(row) => array.as_list::<i32>().value(row).len() as u64,
        DataType::LargeList(_) if array.is_valid(row) => array.as_list::<i64>().value(row).len() as u64,
        DataType::FixedSizeList(_, size) => u64::try_from(*size).unwrap_or(0),
        _ => 0,
    };
    (0..array.len()).map(of).collect()
}

/// Returns numbers as they are, times and intervals in nanoseconds; 0 for null.
fn integers(array: &ArrayRef) -> Option<Vec<i64>> {
    if matches!(array.data_type(), DataType::Interval(_)) {
        let intervals = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano)).ok()?;
        let day_ns = |days: i64| days.saturating_mul(86_400_000_000_000);
        let ns = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| {
            interval.map_or(0, |interval| {
                // The shortest month, so that there are never more steps than were counted.
                let days = i64::from(interval.months) * 28 + i64::from(interval.days);
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
