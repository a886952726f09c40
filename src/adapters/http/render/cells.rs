//! One column's values as JSON, or as bare text for CSV.
//!
//! Numbers are numbers with all their digits – 64-bit integers and decimals too, which a reader that holds every number
//! as a double will round. Times are ISO-8601 with the digits of their unit, binary is lowercase hex, a map with string
//! keys is an object and any other a list of pairs. NaN and the infinities have no JSON: they are null, unless strings
//! were asked for.

use crate::ports::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::io::Write;

/// What NaN and the infinities become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanStyle {
    /// `null`
    Null,
    /// `"NaN"`, `"Infinity"`, `"-Infinity"`
    Text,
}

/// How times of day are set off from their days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeStyle {
    /// `T`, as ISO-8601 has it.
    Iso,
    /// A space, as ClickHouse has it.
    Space,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellStyle {
    /// NaN and the infinities.
    pub nan: NanStyle,
    /// Timestamps.
    pub times: TimeStyle,
}

/// A column that can be written value by value.
pub struct Cells {
    array: ArrayRef,
    nan: NanStyle,
    shape: Shape,
}

/// How values of a type are written.
enum Shape {
    /// As text of arrow's own, in quotes or – numbers and booleans – without: made for all rows at once.
    Formatted(Texts, bool),
    /// 16, 32 and 64-bit floats.
    Float,
    /// Strings of any layout.
    Text,
    /// Binary of any layout.
    Hex,
    /// A list: its items, and where each row's are.
    List(Box<Cells>, Vec<usize>),
    /// A struct: names and members.
    Struct(Vec<(String, Cells)>),
    /// A map: keys, values, where each row's are, and whether keys are strings.
    Map(Box<Cells>, Box<Cells>, Vec<usize>, bool),
    /// A dictionary: its values, and which of them each row has.
    Dictionary(Box<Cells>, Vec<usize>),
}

impl Cells {
    /// `array`, ready to be written.
    ///
    /// # Errors
    ///
    /// `Internal` for an array that is not of its own type.
    pub fn new(array: ArrayRef, style: CellStyle) -> Result<Self> {
        use DataType::*;
        let cells = |array: &ArrayRef| Self::new(array.clone(), style);
        let shape = match array.data_type() {
            Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Decimal32(..)
            | Decimal64(..) | Decimal128(..) | Decimal256(..) => {
                Shape::Formatted(Texts::of(&array, &FormatOptions::new())?, false)
            }
            Float16 | Float32 | Float64 => Shape::Float,
            Utf8 | LargeUtf8 | Utf8View => Shape::Text,
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Shape::Hex,
            List(_) => {
                let list = array.as_list::<i32>();
                let (values, offsets) = part(list.values(), list.value_offsets());
                Shape::List(Box::new(cells(&values)?), offsets)
            }
            LargeList(_) => {
                let list = array.as_list::<i64>();
                let (values, offsets) = part(list.values(), list.value_offsets());
                Shape::List(Box::new(cells(&values)?), offsets)
            }
            FixedSizeList(_, size) => {
                let size = usize::try_from(*size).unwrap_or(0);
                let offsets = (0..=array.len()).map(|row| row * size).collect();
                Shape::List(Box::new(cells(array.as_fixed_size_list().values())?), offsets)
            }
            Struct(fields) => {
                let columns = array.as_struct().columns();
                let members =
                    fields.iter().zip(columns).map(|(field, column)| Ok((field.name().clone(), cells(column)?)));
                Shape::Struct(members.collect::<Result<_>>()?)
            }
            Map(..) => {
                let map = array.as_map();
                let text = matches!(map.key_type(), Utf8 | LargeUtf8 | Utf8View);
                let (keys, offsets) = part(map.keys(), map.value_offsets());
                let (values, _) = part(map.values(), map.value_offsets());
                Shape::Map(Box::new(cells(&keys)?), Box::new(cells(&values)?), offsets, text)
            }
            Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                if dictionary.values().is_empty() {
                    Shape::Dictionary(Box::new(cells(dictionary.values())?), vec![0; array.len()])
                } else {
                    Shape::Dictionary(Box::new(cells(dictionary.values())?), dictionary.normalized_keys())
                }
            }
            other => Shape::Formatted(Texts::of(&array, &time_format(other, style.times))?, true),
        };
        Ok(Self { array, nan: style.nan, shape })
    }

    /// Whether row `row` has no value.
    pub fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row) || *self.array.data_type() == DataType::Null
    }

    /// Row `row` as JSON.
    ///
    /// # Errors
    ///
    /// `Internal` for a value that has no text.
    pub fn json(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.shape {
            Shape::Formatted(texts, false) => {
                out.extend_from_slice(texts.get(row).as_bytes());
                Ok(())
            }
            Shape::Formatted(texts, true) => {
                string(texts.get(row), out);
                Ok(())
            }
            Shape::Float => {
                self.float(row, out);
                Ok(())
            }
            Shape::Text => {
                string(self.text(row), out);
                Ok(())
            }
            Shape::Hex => {
                out.push(b'"');
                self.hex(row, out);
                out.push(b'"');
                Ok(())
            }
            Shape::List(items, offsets) => {
                separated(out, b'[', b']', offsets[row]..offsets[row + 1], |item, out| items.json(item, out))
            }
            Shape::Struct(members) => separated(out, b'{', b'}', 0..members.len(), |member, out| {
                let (name, cells) = &members[member];
                string(name, out);
                out.push(b':');
                cells.json(row, out)
            }),
            Shape::Map(keys, values, offsets, true) => {
                separated(out, b'{', b'}', offsets[row]..offsets[row + 1], |entry, out| {
                    keys.json(entry, out)?;
                    out.push(b':');
                    values.json(entry, out)
                })
            }
            Shape::Map(keys, values, offsets, false) => {
                separated(out, b'[', b']', offsets[row]..offsets[row + 1], |entry, out| {
                    separated(out, b'[', b']', 0..2, |half, out| [keys, values][half].json(entry, out))
                })
            }
            Shape::Dictionary(values, keys) => values.json(keys[row], out),
        }
    }

    /// Row `row` as bare text: nothing for null, no quotes around a string.
    ///
    /// # Errors
    ///
    /// `Internal` for a value that has no text.
    pub fn plain(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.is_null(row) {
            return Ok(());
        }
        match &self.shape {
            Shape::Text => out.extend_from_slice(self.text(row).as_bytes()),
            Shape::Hex => self.hex(row, out),
            Shape::Formatted(texts, _) => out.extend_from_slice(texts.get(row).as_bytes()),
            Shape::Float => out.extend_from_slice(float_text(self.float_value(row)).as_bytes()),
            Shape::Dictionary(values, keys) => values.plain(keys[row], out)?,
            _ => self.json(row, out)?,
        }
        Ok(())
    }

    fn text(&self, row: usize) -> &str {
        match self.array.data_type() {
            DataType::Utf8 => self.array.as_string::<i32>().value(row),
            DataType::LargeUtf8 => self.array.as_string::<i64>().value(row),
            _ => self.array.as_string_view().value(row),
        }
    }

    fn hex(&self, row: usize, out: &mut Vec<u8>) {
        let bytes = match self.array.data_type() {
            DataType::Binary => self.array.as_binary::<i32>().value(row),
            DataType::LargeBinary => self.array.as_binary::<i64>().value(row),
            DataType::BinaryView => self.array.as_binary_view().value(row),
            _ => self.array.as_fixed_size_binary().value(row),
        };
        for byte in bytes {
            let _ = write!(out, "{byte:02x}");
        }
    }

    fn float_value(&self, row: usize) -> Float {
        use arrow::datatypes::{Float16Type, Float32Type, Float64Type};
        match self.array.data_type() {
            DataType::Float16 => Float::Single(self.array.as_primitive::<Float16Type>().value(row).to_f32()),
            DataType::Float32 => Float::Single(self.array.as_primitive::<Float32Type>().value(row)),
            _ => Float::Double(self.array.as_primitive::<Float64Type>().value(row)),
        }
    }

    fn float(&self, row: usize, out: &mut Vec<u8>) {
        let value = self.float_value(row);
        match (value.is_finite(), self.nan) {
            (true, _) => out.extend_from_slice(float_text(value).as_bytes()),
            (false, NanStyle::Null) => out.extend_from_slice(b"null"),
            (false, NanStyle::Text) => string(&float_text(value), out),
        }
    }
}

/// The text of every value of a column, one after the other.
struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    fn of(array: &ArrayRef, options: &FormatOptions<'_>) -> Result<Self> {
        let unprintable = |error: ArrowError| Error::internal("a value has no text").with_source(error);
        let formatter = ArrayFormatter::try_new(array.as_ref(), options).map_err(unprintable)?;
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(array.len()));
        for row in 0..array.len() {
            let start = text.len();
            if array.is_valid(row) && formatter.value(row).write(&mut text).is_err() {
                // A time too far away for a calendar: its number of units.
                text.truncate(start);
                let number = cast(&array.slice(row, 1), &DataType::Int64).map_err(unprintable)?;
                text.push_str(&number.as_primitive::<Int64Type>().value(0).to_string());
            }
            ends.push(text.len());
        }
        Ok(Self { text, ends })
    }

    fn get(&self, row: usize) -> &str {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.text[start..self.ends[row]]
    }
}

/// A float in its own precision, so that it is written with as few digits as tell it apart.
#[derive(Clone, Copy)]
enum Float {
    Single(f32),
    Double(f64),
}

impl Float {
    fn is_finite(self) -> bool {
        match self {
            Self::Single(value) => value.is_finite(),
            Self::Double(value) => value.is_finite(),
        }
    }
}

fn float_text(value: Float) -> String {
    let text = match value {
        Float::Single(value) => format!("{value:?}"),
        Float::Double(value) => format!("{value:?}"),
    };
    match text.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        _ => text,
    }
}

/// ISO-8601 with the digits of the unit.
fn time_format(data_type: &DataType, style: TimeStyle) -> FormatOptions<'static> {
    let options = FormatOptions::new().with_display_error(false);
    let DataType::Timestamp(unit, _) = data_type else { return options };
    let (naive, zoned) = match (unit, style) {
        (TimeUnit::Second, TimeStyle::Iso) => ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%:z"),
        (TimeUnit::Millisecond, TimeStyle::Iso) => ("%Y-%m-%dT%H:%M:%S%.3f", "%Y-%m-%dT%H:%M:%S%.3f%:z"),
        (TimeUnit::Microsecond, TimeStyle::Iso) => ("%Y-%m-%dT%H:%M:%S%.6f", "%Y-%m-%dT%H:%M:%S%.6f%:z"),
        (TimeUnit::Nanosecond, TimeStyle::Iso) => ("%Y-%m-%dT%H:%M:%S%.9f", "%Y-%m-%dT%H:%M:%S%.9f%:z"),
        (TimeUnit::Second, TimeStyle::Space) => ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S"),
        (TimeUnit::Millisecond, TimeStyle::Space) => ("%Y-%m-%d %H:%M:%S%.3f", "%Y-%m-%d %H:%M:%S%.3f"),
        (TimeUnit::Microsecond, TimeStyle::Space) => ("%Y-%m-%d %H:%M:%S%.6f", "%Y-%m-%d %H:%M:%S%.6f"),
        (TimeUnit::Nanosecond, TimeStyle::Space) => ("%Y-%m-%d %H:%M:%S%.9f", "%Y-%m-%d %H:%M:%S%.9f"),
    };
    options.with_timestamp_format(Some(naive)).with_timestamp_tz_format(Some(zoned))
}

/// The part of `values` that `offsets` speak of, and the offsets into it.
fn part<O: Copy + TryInto<usize>>(values: &ArrayRef, offsets: &[O]) -> (ArrayRef, Vec<usize>) {
    let offsets: Vec<usize> = offsets.iter().map(|offset| (*offset).try_into().unwrap_or(0)).collect();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    (values.slice(first, last - first), offsets.into_iter().map(|offset| offset - first).collect())
}

fn separated(
    out: &mut Vec<u8>,
    open: u8,
    close: u8,
    items: std::ops::Range<usize>,
    write: impl Fn(usize, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    out.push(open);
    let first = items.start;
    for item in items {
        if item > first {
            out.push(b',');
        }
        write(item, out)?;
    }
    out.push(close);
    Ok(())
}

/// A JSON string.
pub fn string(text: &str, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok(), "a vector takes what is written to it");
}

#[cfg(test)]
mod tests {
    use crate::adapters::http::render::cells::{CellStyle, Cells, NanStyle, TimeStyle};
    use arrow::array::*;
    use arrow::datatypes::{Int32Type, Int64Type, i256};
    use std::sync::Arc;

    fn check(array: impl Array + 'static, json: &[&str]) {
        let array: ArrayRef = Arc::new(array);
        let cells = Cells::new(array.clone(), CellStyle { nan: NanStyle::Null, times: TimeStyle::Iso }).unwrap();
        for (row, expected) in json.iter().enumerate() {
            let mut out = Vec::new();
            cells.json(row, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, *expected, "{:?} row {row}", array.data_type());
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        check(Int64Array::from(vec![Some(i64::MAX), None]), &["9223372036854775807", "null"]);
        check(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"]);
        check(
            Float64Array::from(vec![0.1, -0.0, 1e300, f64::NAN, f64::INFINITY]),
            &["0.1", "-0.0", "1e300", "null", "null"],
        );
        check(Float32Array::from(vec![0.1]), &["0.1"]);
        check(Decimal128Array::from(vec![-12345]).with_precision_and_scale(7, 2).unwrap(), &["-123.45"]);
        check(Decimal256Array::from(vec![i256::from_i128(5)]).with_precision_and_scale(60, 3).unwrap(), &["0.005"]);
        check(BooleanArray::from(vec![true]), &["true"]);
    }

    #[test]
    fn times_are_iso_with_the_digits_of_their_unit() {
        let ns = 1_711_234_567_000_000_001;
        check(TimestampNanosecondArray::from(vec![ns]), &["\"2024-03-23T22:56:07.000000001\""]);
        check(TimestampSecondArray::from(vec![1_711_234_567]), &["\"2024-03-23T22:56:07\""]);
        check(TimestampMillisecondArray::from(vec![0]).with_timezone("UTC"), &["\"1970-01-01T00:00:00.000+00:00\""]);
        check(
            TimestampMicrosecondArray::from(vec![0]).with_timezone("Asia/Tokyo"),
            &["\"1970-01-01T09:00:00.000000+09:00\""],
        );
        check(TimestampSecondArray::from(vec![i64::MAX]), &["\"9223372036854775807\""]);
        check(Date32Array::from(vec![0]), &["\"1970-01-01\""]);
        check(Time64NanosecondArray::from(vec![1]), &["\"00:00:00.000000001\""]);
    }

    #[test]
    fn text_binary_and_nested_values_are_valid_json() {
        check(StringArray::from(vec![Some("a\"\n\u{1}ü"), Some("")]), &["\"a\\\"\\n\\u0001ü\"", "\"\""]);
        check(StringViewArray::from(vec!["long enough not to be inlined"]), &["\"long enough not to be inlined\""]);
        check(BinaryArray::from_vec(vec![b"\x00\xff"]), &["\"00ff\""]);
        check(NullArray::new(1), &["null"]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        check(lists.clone(), &["[1,null]", "null", "[]"]);
        check(lists.slice(1, 2), &["null", "[]"]);
        let dictionary: DictionaryArray<Int32Type> = vec![Some("b"), None, Some("a")].into_iter().collect();
        check(dictionary.slice(1, 2), &["null", "\"a\""]);
        let pairs = record_batch!(("n", Int64, [1, 2]), ("s", Utf8, ["x", "y"])).unwrap();
        check(StructArray::from(pairs), &["{\"n\":1,\"s\":\"x\"}", "{\"n\":2,\"s\":\"y\"}"]);
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        map.keys().append_value("k");
        map.values().append_value(1);
        map.append(true).unwrap();
        check(map.finish(), &["{\"k\":1}"]);
    }
}
