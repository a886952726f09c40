//! One column's values as JSON, or as bare text for CSV.
//!
//! Numbers are numbers with all their digits – 64-bit integers and decimals too, which a reader that holds every number
//! as a double will round. Times are ISO-8601 with the digits of their unit, binary is lowercase hex, a map with string
//! keys is an object and any other a list of pairs. JSON has neither NaN nor infinities: they are null, unless strings
//! were asked for.

use crate::adapters::formats::write::cell_text::{CellText, TimeStyle, text_error, time_format, write_json};
use crate::ports::Result;
use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, LargeStringArray, PrimitiveArray, StringArray,
    StringViewArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType};
use arrow::util::display::FormatOptions;
use serde::Serialize;
use std::io::Write;

/// What NaN and the infinities become in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanStyle {
    /// `null`
    Null,
    /// `"NaN"`, `"Infinity"`, `"-Infinity"`
    Text,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellStyle {
    /// NaN and the infinities.
    pub nan: NanStyle,
    /// Timestamps.
    pub times: TimeStyle,
}

/// A column that is ready to be written value by value.
pub struct Cells {
    nulls: Option<NullBuffer>,
    nan: NanStyle,
    shape: Shape,
}

/// How values of a type are written. What each value needs is found once for the column.
enum Shape {
    /// Integers with a sign.
    Signed(Int64Array),
    /// Integers without one.
    Unsigned(UInt64Array),
    /// Text made for all rows at once, without quotes: decimals, booleans.
    Bare(CellText),
    /// Text made for all rows at once, in quotes: digits and what stands between them.
    Time(CellText),
    /// Text made for all rows at once, in quotes: every type that has no variant of its own, as arrow writes it.
    Other(CellText),
    /// 32-bit floats, and 16-bit ones as these: as few digits as tell them apart.
    Single(Float32Array),
    /// 64-bit floats.
    Double(Float64Array),
    /// Strings of 32-bit offsets.
    Text(StringArray),
    /// Strings of 64-bit offsets.
    LongText(LargeStringArray),
    /// Strings as views.
    TextView(StringViewArray),
    /// Binary of any layout.
    Hex(ArrayRef),
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
    /// Prepares `array`.
    ///
    /// # Errors
    ///
    /// `Internal` for an array that is not of its own type.
    pub fn new(array: ArrayRef, style: CellStyle) -> Result<Self> {
        use DataType::*;
        let cells = |array: &ArrayRef| Self::new(array.clone(), style);
        let shape = match array.data_type() {
            Int8 | Int16 | Int32 | Int64 => Shape::Signed(as_primitive(&array)?),
            UInt8 | UInt16 | UInt32 | UInt64 => Shape::Unsigned(as_primitive(&array)?),
            Boolean | Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => {
                Shape::Bare(CellText::of(&array, &FormatOptions::new())?)
            }
            Float16 | Float32 => Shape::Single(as_primitive(&array)?),
            Float64 => Shape::Double(as_primitive(&array)?),
            Utf8 => Shape::Text(array.as_string::<i32>().clone()),
            LargeUtf8 => Shape::LongText(array.as_string::<i64>().clone()),
            Utf8View => Shape::TextView(array.as_string_view().clone()),
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Shape::Hex(array.clone()),
            List(_) => {
                let list = array.as_list::<i32>();
                let (values, offsets) = sliced(list.values(), list.value_offsets());
                Shape::List(Box::new(cells(&values)?), offsets)
            }
            LargeList(_) => {
                let list = array.as_list::<i64>();
                let (values, offsets) = sliced(list.values(), list.value_offsets());
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
                let (keys, offsets) = sliced(map.keys(), map.value_offsets());
                let (values, _) = sliced(map.values(), map.value_offsets());
                Shape::Map(Box::new(cells(&keys)?), Box::new(cells(&values)?), offsets, text)
            }
            Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let keys = match dictionary.values().is_empty() {
                    true => vec![0; array.len()],
                    false => dictionary.normalized_keys(),
                };
                Shape::Dictionary(Box::new(cells(dictionary.values())?), keys)
            }
            Timestamp(unit, None) => Shape::Time(CellText::of_times(&array, *unit, style.times)?),
            other => Shape::Other(CellText::of(&array, &time_format(other, style.times))?),
        };
        // Logical: a row of a dictionary whose value is null is null.
        Ok(Self { nulls: array.logical_nulls(), nan: style.nan, shape })
    }

    /// Returns whether row `row` is null.
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Writes row `row` as JSON.
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
            Shape::Signed(values) => write_json(&values.value(row), out),
            Shape::Unsigned(values) => write_json(&values.value(row), out),
            Shape::Bare(text) => out.extend_from_slice(text.get(row)),
            Shape::Time(text) => {
                out.push(b'"');
                out.extend_from_slice(text.get(row));
                out.push(b'"');
            }
            Shape::Other(text) => write_json(&*String::from_utf8_lossy(text.get(row)), out),
            Shape::Single(values) => self.float(values.value(row), out),
            Shape::Double(values) => self.float(values.value(row), out),
            Shape::Text(values) => write_json(values.value(row), out),
            Shape::LongText(values) => write_json(values.value(row), out),
            Shape::TextView(values) => write_json(values.value(row), out),
            Shape::Hex(values) => {
                out.push(b'"');
                hex(values, row, out);
                out.push(b'"');
            }
            Shape::List(items, offsets) => {
                separated(out, b'[', b']', offsets[row]..offsets[row + 1], |item, out| items.json(item, out))?;
            }
            Shape::Struct(members) => separated(out, b'{', b'}', 0..members.len(), |member, out| {
                let (name, cells) = &members[member];
                write_json(name, out);
                out.push(b':');
                cells.json(row, out)
            })?,
            Shape::Map(keys, values, offsets, true) => {
                separated(out, b'{', b'}', offsets[row]..offsets[row + 1], |entry, out| {
                    keys.json(entry, out)?;
                    out.push(b':');
                    values.json(entry, out)
                })?;
            }
            Shape::Map(keys, values, offsets, false) => {
                separated(out, b'[', b']', offsets[row]..offsets[row + 1], |entry, out| {
                    separated(out, b'[', b']', 0..2, |half, out| [keys, values][half].json(entry, out))
                })?;
            }
            Shape::Dictionary(values, keys) => values.json(keys[row], out)?,
        }
        Ok(())
    }

    /// Writes row `row` as bare text: nothing for null, no quotes around a string.
    ///
    /// # Errors
    ///
    /// `Internal` for a value that has no text.
    pub fn plain(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.is_null(row) {
            return Ok(());
        }
        match &self.shape {
            Shape::Signed(values) => write_json(&values.value(row), out),
            Shape::Unsigned(values) => write_json(&values.value(row), out),
            Shape::Bare(text) | Shape::Time(text) | Shape::Other(text) => out.extend_from_slice(text.get(row)),
            Shape::Single(values) => plain_float(values.value(row), out),
            Shape::Double(values) => plain_float(values.value(row), out),
            Shape::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Shape::LongText(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Shape::TextView(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Shape::Hex(values) => hex(values, row, out),
            Shape::Dictionary(values, keys) => values.plain(keys[row], out)?,
            Shape::List(..) | Shape::Struct(_) | Shape::Map(..) => self.json(row, out)?,
        }
        Ok(())
    }

    fn float<F: Serialize + Into<f64> + Copy>(&self, value: F, out: &mut Vec<u8>) {
        match (value.into().is_finite(), self.nan) {
            (false, NanStyle::Text) => {
                out.push(b'"');
                plain_float(value, out);
                out.push(b'"');
            }
            // serde_json writes null for anything that is not finite.
            _ => write_json(&value, out),
        }
    }
}

/// Casts a column to the widest type of its kind.
fn as_primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<PrimitiveArray<T>> {
    Ok(cast(array, &T::DATA_TYPE).map_err(text_error)?.as_primitive::<T>().clone())
}

fn plain_float<F: Serialize + Into<f64> + Copy>(value: F, out: &mut Vec<u8>) {
    match value.into() {
        wide if wide.is_nan() => out.extend_from_slice(b"NaN"),
        f64::INFINITY => out.extend_from_slice(b"Infinity"),
        f64::NEG_INFINITY => out.extend_from_slice(b"-Infinity"),
        _ => write_json(&value, out),
    }
}

fn hex(values: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    let bytes = match values.data_type() {
        DataType::Binary => values.as_binary::<i32>().value(row),
        DataType::LargeBinary => values.as_binary::<i64>().value(row),
        DataType::BinaryView => values.as_binary_view().value(row),
        _ => values.as_fixed_size_binary().value(row),
    };
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// Returns the slice of `values` that `offsets` cover, and the offsets into the slice.
fn sliced<O: Copy + TryInto<usize>>(values: &ArrayRef, offsets: &[O]) -> (ArrayRef, Vec<usize>) {
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

#[cfg(test)]
mod tests {
    use crate::adapters::formats::write::cell_text::TimeStyle;
    use crate::adapters::formats::write::cells::{CellStyle, Cells, NanStyle};
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
            &["0.1", "-0.0", "1e+300", "null", "null"],
        );
        check(Float32Array::from(vec![0.1, f32::NAN]), &["0.1", "null"]);
        check(Float64Array::from(vec![1e16, 123_456_789.0, 1e-7]), &["1e+16", "123456789.0", "1e-7"]);
        check(Int8Array::from(vec![-128]), &["-128"]);
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
        let second = 1_000_000_000;
        check(
            TimestampNanosecondArray::from(vec![Some(-1), None, Some(0), Some(86_399 * second), Some(86_400 * second)]),
            &[
                "\"1969-12-31T23:59:59.999999999\"",
                "null",
                "\"1970-01-01T00:00:00.000000000\"",
                "\"1970-01-01T23:59:59.000000000\"",
                "\"1970-01-02T00:00:00.000000000\"",
            ],
        );
        check(
            TimestampMillisecondArray::from(vec![i64::MIN, -1]),
            &["\"-9223372036854775808\"", "\"1969-12-31T23:59:59.999\""],
        );
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
        let with_null = StringArray::from(vec![Some("a"), None]);
        check(DictionaryArray::new(Int32Array::from(vec![1, 0]), Arc::new(with_null)), &["null", "\"a\""]);
        let pairs = record_batch!(("n", Int64, [1, 2]), ("s", Utf8, ["x", "y"])).unwrap();
        check(StructArray::from(pairs), &["{\"n\":1,\"s\":\"x\"}", "{\"n\":2,\"s\":\"y\"}"]);
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        map.keys().append_value("k");
        map.values().append_value(1);
        map.append(true).unwrap();
        check(map.finish(), &["{\"k\":1}"]);
    }
}
