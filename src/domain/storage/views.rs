//! View columns without the text that they do not show.
//!
//! arrow's kernels put views together and leave their data where it is: a copy of half of the rows keeps the text of all of
//! them alive. What storage copies it copies in order to let go of the rest, so views are given buffers of their own.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use std::sync::Arc;

/// Returns `batch` with view columns, nested ones included, that keep at most about twice of what they show.
pub fn without_unused_views(batch: RecordBatch) -> RecordBatch {
    if !batch.schema_ref().flattened_fields().iter().any(|field| is_view(field.data_type())) {
        return batch;
    }
    let columns = batch.columns().iter().map(array_without_unused_views).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or(batch)
}

/// Returns `array` with views, nested ones included, that keep at most about twice of what they show.
pub fn array_without_unused_views(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => {
            let views = array.as_string_view();
            match keeps_unused(views.data_buffers(), views.total_buffer_bytes_used()) {
                true => Arc::new(views.gc()),
                false => array.clone(),
            }
        }
        DataType::BinaryView => {
            let views = array.as_binary_view();
            match keeps_unused(views.data_buffers(), views.total_buffer_bytes_used()) {
                true => Arc::new(views.gc()),
                false => array.clone(),
            }
        }
        nested if nested.is_nested() => children_without_unused_views(array).unwrap_or_else(|| array.clone()),
        _ => array.clone(),
    }
}

/// Rebuilds a nested array whose children keep what they do not show; `None` where none does.
fn children_without_unused_views(array: &ArrayRef) -> Option<ArrayRef> {
    let data = array.to_data();
    let before: Vec<_> = data.child_data().iter().map(|child| make_array(child.clone())).collect();
    let after: Vec<_> = before.iter().map(array_without_unused_views).collect();
    if before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)) {
        return None;
    }
    let children = after.iter().map(|child| child.to_data()).collect();
    data.into_builder().child_data(children).build().ok().map(make_array)
}

fn is_view(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8View | DataType::BinaryView)
}

fn keeps_unused(buffers: &[Buffer], used: usize) -> bool {
    buffers.iter().map(Buffer::capacity).sum::<usize>() > 2 * used
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::allocations::held_bytes;
    use crate::domain::storage::views::without_unused_views;
    use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringViewArray, StructArray};
    use arrow::compute::take_record_batch;
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    #[test]
    fn a_copy_of_few_rows_lets_go_of_the_text_of_the_others() {
        let text: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..1_000).map(|n| format!("{n:0100}"))));
        let field = Arc::new(Field::new("text", DataType::Utf8View, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, text.clone())]));
        for column in [text, nested] {
            let all = RecordBatch::try_from_iter([("c", column)]).unwrap();
            let few = take_record_batch(&all, &Int32Array::from(vec![1, 500, 999])).unwrap();
            assert!(held_bytes(&few) > 100_000, "arrow keeps it");
            let own = without_unused_views(few.clone());
            assert!(held_bytes(&own) < 20_000, "{}", held_bytes(&own));
            assert_eq!(own, few);
            assert!(held_bytes(&without_unused_views(all.clone())) >= 100_000);
        }
    }
}
