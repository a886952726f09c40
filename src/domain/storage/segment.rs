//! One segment: a record batch, its statistics and its share of memory.
//!
//! Statistics are found when they are first asked for: ingestion does not wait for what perhaps nobody wants to know. They
//! order values as Arrow's comparison kernels do (total order for floats, so NaN is the largest), because the executor
//! prunes by comparing them with the same kernels.

use crate::domain::storage::memory::{Budget, Reservation, held_bytes};
use crate::ports::Result;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, UInt32Array, downcast_primitive};
use arrow::compute;
use arrow::datatypes::{ArrowNumericType, DataType};
use std::sync::{Arc, OnceLock};

/// Rows of a table that arrived together. Never changes once made.
#[derive(Debug)]
pub struct Segment {
    batch: RecordBatch,
    stats: Vec<OnceLock<Option<ColumnStats>>>,
    memory: Reservation,
}

/// What is known of one column of one segment.
#[derive(Debug, Clone)]
pub struct ColumnStats {
    /// Smallest and largest value, in this order: two rows of the column's type.
    pub bounds: ArrayRef,
}

impl Segment {
    /// A segment of `batch`, its memory taken from `budget`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory is not free.
    pub fn try_new(batch: RecordBatch, budget: &Budget) -> Result<Arc<Self>> {
        let memory = budget.reserve(charge(&batch))?;
        Ok(Self::with_memory(batch, memory))
    }

    /// A segment that takes the place of others, which give back their memory soon: never refused.
    pub fn replacing(batch: RecordBatch, budget: &Budget) -> Arc<Self> {
        let memory = budget.reserve_unchecked(charge(&batch));
        Self::with_memory(batch, memory)
    }

    fn with_memory(batch: RecordBatch, memory: Reservation) -> Arc<Self> {
        let stats = batch.columns().iter().map(|_| OnceLock::new()).collect();
        Arc::new(Self { batch, stats, memory })
    }

    /// Its rows.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Number of its rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Memory that it holds, in bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// What is known of column `index`, if anything.
    pub fn stats(&self, index: usize) -> Option<&ColumnStats> {
        let stats = self.stats.get(index)?;
        stats.get_or_init(|| column_stats(self.batch.column(index).as_ref())).as_ref()
    }
}

/// What a batch costs: its allocations, and a bit for each row of a batch that has none.
fn charge(batch: &RecordBatch) -> u64 {
    held_bytes(batch).max(batch.num_rows() as u64 / 8)
}

/// Bounds of a column of a type that queries compare: numbers, times, strings. None where there is no value.
fn column_stats(column: &dyn Array) -> Option<ColumnStats> {
    use DataType::*;
    let ordered = column.data_type().is_primitive() || matches!(column.data_type(), Utf8 | LargeUtf8 | Utf8View);
    if !ordered || matches!(column.data_type(), Interval(_)) || column.null_count() == column.len() {
        return None;
    }
    bounds(column).map(|bounds| ColumnStats { bounds })
}

/// The smallest and the largest value.
fn bounds(column: &dyn Array) -> Option<ArrayRef> {
    macro_rules! primitive {
        ($kind:ty) => {
            return primitive_bounds::<$kind>(column.as_primitive())
        };
    }
    let (min, max) = downcast_primitive! {
        column.data_type() => (primitive),
        DataType::Utf8 => extremes(column.as_string::<i32>().iter())?,
        DataType::LargeUtf8 => extremes(column.as_string::<i64>().iter())?,
        DataType::Utf8View => extremes(column.as_string_view().iter())?,
        _ => return None
    };
    compute::take(column, &UInt32Array::from(vec![min, max]), None).ok()
}

fn primitive_bounds<T: ArrowNumericType>(column: &PrimitiveArray<T>) -> Option<ArrayRef> {
    let ends = [compute::min(column)?, compute::max(column)?];
    let bounds = PrimitiveArray::<T>::from_iter_values(ends).with_data_type(column.data_type().clone());
    Some(Arc::new(bounds))
}

/// Row numbers of the smallest and of the largest string.
fn extremes<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Option<(u32, u32)> {
    let mut there = (0u32..).zip(values).filter_map(|(row, value)| Some((value?, row)));
    let first = there.next()?;
    let (mut min, mut max) = (first, first);
    for found in there {
        if found.0 < min.0 {
            min = found;
        } else if found.0 > max.0 {
            max = found;
        }
    }
    Some((min.1, max.1))
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::segment::column_stats;
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn check(column: ArrayRef, bounds: Option<ArrayRef>) {
        assert_eq!(column_stats(column.as_ref()).map(|stats| stats.bounds), bounds, "{column:?}");
    }

    #[test]
    fn bounds_skip_nulls_and_put_nan_last() {
        check(
            Arc::new(Int64Array::from(vec![None, Some(3), Some(-7), None])),
            Some(Arc::new(Int64Array::from(vec![-7, 3]))),
        );
        check(
            Arc::new(StringArray::from(vec![Some("b"), None, Some("a")])),
            Some(Arc::new(StringArray::from(vec!["a", "b"]))),
        );
        check(Arc::new(Decimal128Array::from(vec![5, 1, 9])), Some(Arc::new(Decimal128Array::from(vec![1, 9]))));
        let stats = column_stats(&Float64Array::from(vec![1.0, f64::NAN, -0.0, 0.0])).unwrap();
        let bounds = stats.bounds.as_any().downcast_ref::<Float64Array>().unwrap();
        assert!(bounds.value(0) == 0.0 && bounds.value(0).is_sign_negative() && bounds.value(1).is_nan());
    }

    #[test]
    fn columns_without_values_or_order_have_none() {
        check(Arc::new(Int64Array::from(vec![None, None])), None);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
        check(Arc::new(lists), None);
    }
}
