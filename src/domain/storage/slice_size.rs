//! Bytes of the values of an array: those that it shows, not those of the buffers behind it.
//!
//! Rows of a table are slices of segments, so what an array keeps alive says little of what a copy of it would take.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;

/// Returns the bytes that a copy of `array` would take, about. A dictionary counts by its keys alone.
pub fn slice_bytes(array: &dyn Array) -> u64 {
    let rows = array.len() as u64;
    let values = match array.data_type() {
        DataType::Utf8 => 4 * rows + span(array.as_string::<i32>().value_offsets()),
        DataType::Binary => 4 * rows + span(array.as_binary::<i32>().value_offsets()),
        DataType::LargeUtf8 => 8 * rows + span(array.as_string::<i64>().value_offsets()),
        DataType::LargeBinary => 8 * rows + span(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => 16 * rows + array.as_string_view().total_buffer_bytes_used() as u64,
        DataType::BinaryView => 16 * rows + array.as_binary_view().total_buffer_bytes_used() as u64,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            4 * rows + child(list.values().as_ref(), list.value_offsets())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            8 * rows + child(list.values().as_ref(), list.value_offsets())
        }
        DataType::Map(..) => {
            let map = array.as_map();
            4 * rows + child(map.entries(), map.value_offsets())
        }
        DataType::FixedSizeList(..) => slice_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| slice_bytes(column.as_ref())).sum(),
        DataType::Dictionary(key, _) => rows * key.primitive_width().unwrap_or(8) as u64,
        DataType::FixedSizeBinary(width) => rows * u64::try_from(*width).unwrap_or(0),
        DataType::Boolean => rows.div_ceil(8),
        DataType::Null => 0,
        other => match other.primitive_width() {
            Some(width) => rows * width as u64,
            None => array.to_data().get_slice_memory_size().unwrap_or(array.get_array_memory_size()) as u64,
        },
    };
    values + if array.nulls().is_some() { rows.div_ceil(8) } else { 0 }
}

/// Bytes between the first and the last offset.
fn span<O: Copy + Into<i64>>(offsets: &[O]) -> u64 {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => u64::try_from((*last).into() - (*first).into()).unwrap_or(0),
        _ => 0,
    }
}

fn child<O: Copy + Into<i64>>(values: &dyn Array, offsets: &[O]) -> u64 {
    let first = offsets.first().map_or(0, |first| usize::try_from((*first).into()).unwrap_or(0));
    let items = usize::try_from(span(offsets)).unwrap_or(0);
    slice_bytes(values.slice(first, items).as_ref())
}

/// Bytes of the text or binary value of each row; 0 for null and for what is neither.
pub fn text_lengths(array: &dyn Array) -> Vec<u64> {
    let of = |row: usize| -> u64 {
        if array.is_null(row) {
            return 0;
        }
        let bytes = match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value_length(row) as usize,
            DataType::LargeUtf8 => array.as_string::<i64>().value_length(row) as usize,
            DataType::Binary => array.as_binary::<i32>().value_length(row) as usize,
            DataType::LargeBinary => array.as_binary::<i64>().value_length(row) as usize,
            DataType::Utf8View => array.as_string_view().value(row).len(),
            DataType::BinaryView => array.as_binary_view().value(row).len(),
            _ => 0,
        };
        bytes as u64
    };
    (0..array.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::slice_size::{slice_bytes, text_lengths};
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    #[test]
    fn slices_count_for_what_they_show() {
        assert_eq!(slice_bytes(&Int64Array::from_iter_values(0..1_000).slice(3, 10)), 80);
        let text = StringArray::from(vec![Some("a"), None, Some("bcd")]);
        assert_eq!(slice_bytes(&text.slice(2, 1)), 4 + 3 + 1);
        assert_eq!(text_lengths(&text), [1, 0, 3]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..100).map(|_| Some(vec![Some(1); 10])));
        assert_eq!(slice_bytes(&lists.slice(5, 2)), 2 * 4 + 20 * 8);
    }
}
