//! Splits a batch into pieces that each fit a message.
//!
//! The bytes that a slice sends count, not the buffers behind it: rows of a table are always slices of something larger.
//! Pieces are even, so that a batch a little over the limit does not become one large and one tiny piece.

use crate::adapters::ipc::compact::compact;
use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use std::sync::Arc;

/// Splits `batch` into pieces of at most `bytes_target`, unless a single row has more. Rows keep their order; a batch
/// without rows has no piece.
pub fn split(batch: &RecordBatch, bytes_target: usize) -> Vec<RecordBatch> {
    let mut pieces = Vec::new();
    split_into(batch, bytes_target, &mut pieces);
    pieces
}

fn split_into(batch: &RecordBatch, bytes_target: usize, pieces: &mut Vec<RecordBatch>) {
    let rows = batch.num_rows();
    if rows == 0 {
        return;
    }
    let count = batch_bytes(batch).div_ceil(bytes_target.max(1)).clamp(1, rows);
    if count == 1 {
        pieces.push(compact(batch));
        return;
    }
    let step = rows.div_ceil(count);
    for first in (0..rows).step_by(step) {
        // Rows differ in size, so a piece may be too large still.
        split_into(&batch.slice(first, step.min(rows - first)), bytes_target, pieces);
    }
}

/// Estimates the bytes of a batch's rows in messages, not those of the buffers that it is a slice of.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| slice_bytes(column.as_ref())).sum()
}

/// Estimates the bytes of an array in a message. Values that all rows share – a dictionary – are not counted.
fn slice_bytes(array: &dyn Array) -> usize {
    let rows = array.len();
    let nulls = if array.nulls().is_some() { rows.div_ceil(8) } else { 0 };
    let offsets = |width: usize| (rows + 1) * width;
    let values = match array.data_type() {
        DataType::Utf8 => offsets(4) + span(array.as_string::<i32>().value_offsets()),
        DataType::Binary => offsets(4) + span(array.as_binary::<i32>().value_offsets()),
        DataType::LargeUtf8 => offsets(8) + span(array.as_string::<i64>().value_offsets()),
        DataType::LargeBinary => offsets(8) + span(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => rows * 16 + array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => rows * 16 + array.as_binary_view().total_buffer_bytes_used(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            offsets(4) + child_bytes(list.values(), list.value_offsets())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            offsets(8) + child_bytes(list.values(), list.value_offsets())
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            offsets(4) + child_bytes(&entries, map.value_offsets())
        }
        DataType::FixedSizeList(..) => slice_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| slice_bytes(column.as_ref())).sum(),
        DataType::Dictionary(key, _) => rows * key.primitive_width().unwrap_or(8),
        DataType::FixedSizeBinary(width) => rows * usize::try_from(*width).unwrap_or(0),
        DataType::Boolean => rows.div_ceil(8),
        DataType::Null => 0,
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            rows * 8 + share(list.values().as_ref(), list.value_sizes().iter().map(|size| i64::from(*size)).sum())
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            rows * 16 + share(list.values().as_ref(), list.value_sizes().iter().sum())
        }
        DataType::Union(fields, _) => {
            let union = array.as_union();
            // A dense row is in one of the children, a sparse one takes a place in all of them.
            let of = |rows| fields.iter().map(move |(id, _)| share(union.child(id).as_ref(), rows));
            let dense = of(i64::try_from(rows).unwrap_or(i64::MAX)).max().unwrap_or(0) + rows * 4;
            rows + if union.offsets().is_some() { dense } else { of(i64::try_from(rows).unwrap_or(i64::MAX)).sum() }
        }
        other => match other.primitive_width() {
            Some(width) => rows * width,
            // Run-end encoded: an upper bound, as if each row were a run.
            None => array.to_data().child_data().iter().map(|child| rows.min(child.len()) * bytes_each(child)).sum(),
        },
    };
    nulls + values
}

/// Estimates the bytes of `rows` rows of an array, wherever they are in it.
fn share(array: &dyn Array, rows: i64) -> usize {
    let bytes = slice_bytes(array) as u128 * u128::try_from(rows).unwrap_or(0);
    usize::try_from(bytes / array.len().max(1) as u128).unwrap_or(usize::MAX)
}

fn bytes_each(data: &ArrayData) -> usize {
    data.get_slice_memory_size().unwrap_or(0) / data.len().max(1)
}

/// Returns the bytes between the first and the last offset.
fn span<O: Copy + Into<i64>>(offsets: &[O]) -> usize {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => usize::try_from((*last).into() - (*first).into()).unwrap_or(0),
        _ => 0,
    }
}

fn child_bytes<O: Copy + Into<i64>>(values: &ArrayRef, offsets: &[O]) -> usize {
    let first = offsets.first().map_or(0, |first| usize::try_from((*first).into()).unwrap_or(0));
    slice_bytes(values.slice(first, span(offsets)).as_ref())
}

#[cfg(test)]
mod tests {
    use crate::adapters::ipc::split;
    use arrow::array::*;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
    use std::sync::Arc;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("c", column)]).unwrap()
    }

    #[test]
    fn pieces_are_even_small_enough_and_together_the_batch() {
        let whole = batch(Arc::new(Int64Array::from_iter_values(0..100_000)));
        for part in [whole.clone(), whole.slice(500, 65_537)] {
            let pieces = split(&part, 65_536);
            let most = pieces.iter().map(RecordBatch::num_rows).max().unwrap();
            let least = pieces.iter().map(RecordBatch::num_rows).min().unwrap();
            assert!(most <= 8_192 && most - least <= pieces.len(), "{most} {least}");
            assert_eq!(concat_batches(&part.schema(), &pieces).unwrap(), part);
        }
        assert_eq!(split(&whole.slice(7, 10), 65_536).len(), 1, "a small slice of a large buffer is one piece");
        assert!(split(&whole.slice(0, 0), 65_536).is_empty());
    }

    #[test]
    fn skewed_values_are_cut_where_they_are() {
        let text: Vec<String> =
            (0..1_000).map(|row| if row % 100 == 0 { "x".repeat(50_000) } else { "y".into() }).collect();
        let whole = batch(Arc::new(StringArray::from(text)));
        let pieces = split(&whole, 60_000);
        assert!(pieces.iter().all(|piece| piece.num_rows() == 1 || super::slice_bytes(piece.column(0)) <= 60_000));
        assert_eq!(concat_batches(&whole.schema(), &pieces).unwrap(), whole);
    }

    #[test]
    fn a_slice_sends_only_the_dictionary_values_and_views_that_it_uses() {
        let names: Vec<String> = (0..1_000).map(|n| format!("a rather long symbol name {n}")).collect();
        let keys = Int32Array::from_iter((0..5_000).map(|n| (n % 7 != 0).then_some(n % 1_000)));
        let values: ArrayRef = Arc::new(StringArray::from(names.clone()));
        let dictionary = DictionaryArray::<Int32Type>::try_new(keys, values).unwrap();
        let whole = batch(Arc::new(dictionary));
        let [piece] = split(&whole.slice(100, 10), 1 << 20).try_into().unwrap();
        assert!(piece.column(0).as_any_dictionary().values().len() <= 10);
        assert_eq!(piece, whole.slice(100, 10));
        let views = batch(Arc::new(StringViewArray::from_iter_values(names)));
        let [piece] = split(&views.slice(100, 10), 1 << 20).try_into().unwrap();
        assert!(piece.get_array_memory_size() < 2_000);
        assert_eq!(piece, views.slice(100, 10));
    }

    #[test]
    fn columns_that_share_their_children_send_what_they_use() {
        let rows = 20_000;
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>((0..rows).map(|n| Some(vec![Some(n); 10])));
        let views =
            arrow::compute::cast(&list, &DataType::ListView(Arc::new(Field::new_list_field(DataType::Int64, true))));
        let ids = arrow::buffer::ScalarBuffer::from_iter((0..rows).map(|_| 0_i8));
        let offsets = arrow::buffer::ScalarBuffer::from_iter(0..rows as i32);
        let fields = arrow::datatypes::UnionFields::try_new([0], [Field::new("n", DataType::Int64, true)]).unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let union = UnionArray::try_new(fields, ids, Some(offsets), vec![numbers.clone()]).unwrap();
        let runs = RunArray::<Int32Type>::try_new(&Int32Array::from_iter_values(1..=rows as i32), &numbers).unwrap();
        for column in [views.unwrap(), Arc::new(union) as ArrayRef, Arc::new(runs)] {
            let whole = batch(column);
            let pieces = split(&whole, 256 << 10);
            assert!(pieces.len() < 20, "{}: {} pieces", whole.schema(), pieces.len());
            assert_eq!(pieces.iter().map(RecordBatch::num_rows).sum::<usize>(), whole.num_rows());
            let mut sent = Vec::new();
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut sent, &whole.schema()).unwrap();
            pieces.iter().for_each(|piece| writer.write(piece).unwrap());
            drop(writer);
            assert!(sent.len() < 4 << 20, "{}: {} bytes", whole.schema(), sent.len());
        }
    }
}
