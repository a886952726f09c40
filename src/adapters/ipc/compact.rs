//! Drops the values that a slice shares with other rows and does not use: arrow's writer sends all values of a view, a
//! dictionary, a list view or a union with every slice of it.
//!
//! A column is rebuilt only where it uses less than about half of its values; else copying costs more than sending.

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListViewArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, UnionMode};
use std::sync::Arc;

/// Rebuilds the columns of `batch` that retain unused values.
pub fn compact(batch: &RecordBatch) -> RecordBatch {
    if !retains_unused_values(batch) {
        return batch.clone();
    }
    let columns = batch.columns().iter().map(compact_column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or_else(|_| batch.clone())
}

/// Returns whether a column holds many values that its rows do not use.
pub fn retains_unused_values(batch: &RecordBatch) -> bool {
    batch.columns().iter().any(|column| column_retains_unused_values(column.as_ref()))
}

fn column_retains_unused_values(array: &dyn Array) -> bool {
    match array.data_type() {
        DataType::Utf8View => {
            let views = array.as_string_view();
            buffer_bytes(views.data_buffers()) > 2 * views.total_buffer_bytes_used()
        }
        DataType::BinaryView => {
            let views = array.as_binary_view();
            buffer_bytes(views.data_buffers()) > 2 * views.total_buffer_bytes_used()
        }
        DataType::Dictionary(..) => array.as_any_dictionary().values().len() > array.len(),
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            is_mostly_unused(list.values().len(), list.value_sizes().iter().map(|size| i64::from(*size)).sum())
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            is_mostly_unused(list.values().len(), list.value_sizes().iter().sum())
        }
        DataType::Union(fields, UnionMode::Dense) => {
            let union = array.as_union();
            let held: usize = fields.iter().map(|(id, _)| union.child(id).len()).sum();
            held > 2 * array.len()
        }
        _ => false,
    }
}

fn buffer_bytes(buffers: &[arrow::buffer::Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.len()).sum()
}

fn compact_column(column: &ArrayRef) -> ArrayRef {
    if !column_retains_unused_values(column.as_ref()) {
        return column.clone();
    }
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        DataType::ListView(_) => compact_list_view(column.as_list_view::<i32>()).unwrap_or_else(|| column.clone()),
        DataType::LargeListView(_) => compact_list_view(column.as_list_view::<i64>()).unwrap_or_else(|| column.clone()),
        // `take` builds new children, of the rows that it takes.
        DataType::Union(..) => {
            let all = UInt64Array::from_iter_values(0..column.len() as u64);
            take(column, &all, None).unwrap_or_else(|_| column.clone())
        }
        _ => compact_dictionary(column).unwrap_or_else(|| column.clone()),
    }
}

fn is_mostly_unused(held: usize, used: i64) -> bool {
    held > 2 * usize::try_from(used).unwrap_or(usize::MAX).max(1)
}

/// Rebuilds a list view over the values that it uses, row by row; `None` where they cannot be gathered.
fn compact_list_view<O: OffsetSizeTrait>(list: &GenericListViewArray<O>) -> Option<ArrayRef> {
    let (DataType::ListView(item) | DataType::LargeListView(item)) = list.data_type() else { return None };
    let (mut picks, mut offsets, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..list.len() {
        let (start, size) = match list.is_null(row) {
            true => (0, 0),
            false => (list.value_offset(row).as_usize() as u64, list.value_size(row).as_usize() as u64),
        };
        offsets.push(O::from_usize(picks.len())?);
        sizes.push(O::from_usize(usize::try_from(size).ok()?)?);
        picks.extend(start..start + size);
    }
    let values = take(list.values(), &UInt64Array::from(picks), None).ok()?;
    let made =
        GenericListViewArray::<O>::try_new(item.clone(), offsets.into(), sizes.into(), values, list.nulls().cloned());
    Some(Arc::new(made.ok()?))
}

/// Rebuilds a dictionary array over the values that it uses, in the order of their first use.
fn compact_dictionary(column: &ArrayRef) -> Option<ArrayRef> {
    let DataType::Dictionary(key, _) = column.data_type() else { return None };
    let dictionary = column.as_any_dictionary();
    let keys = dictionary.normalized_keys();
    let mut codes = std::collections::HashMap::new();
    let mut used: Vec<u64> = Vec::new();
    let recoded: arrow::array::UInt64Array = (0..column.len())
        .map(|row| {
            let key = keys.get(row).filter(|_| dictionary.keys().is_valid(row))?;
            Some(*codes.entry(*key).or_insert_with(|| {
                used.push(*key as u64);
                used.len() as u64 - 1
            }))
        })
        .collect();
    let values = arrow::compute::take(dictionary.values(), &arrow::array::UInt64Array::from(used), None).ok()?;
    let keys = arrow::compute::cast(&recoded, key).ok()?;
    let data = keys
        .to_data()
        .into_builder()
        .data_type(column.data_type().clone())
        .add_child_data(values.to_data())
        .build()
        .ok()?;
    Some(arrow::array::make_array(data))
}
