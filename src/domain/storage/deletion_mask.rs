//! Which rows of a segment are left after deletions: one bit a row.
//!
//! A DELETE marks rows instead of copying the others. The columns stay as they are, so a mask costs a bit for each row of
//! its segment; compaction copies what is left once that pays.

use crate::ports::{MemoryAccount, Reservation};
use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use std::ops::Range;
use std::sync::Arc;

/// The rows of one segment that are left. Clones share it.
#[derive(Debug, Clone)]
pub struct DeletionMask {
    left: BooleanBuffer,
    rows: usize,
    memory: Arc<Reservation>,
}

impl DeletionMask {
    /// Marks `deleted` rows of a segment from which `before` had deleted rows already. It is counted but never refused: a
    /// DELETE is how memory becomes free.
    pub fn new(deleted: &BooleanBuffer, before: Option<&Self>, account: &MemoryAccount) -> Self {
        let memory = Arc::new(account.reserve_over_limit(deleted.len() as u64 / 8));
        let left = match before {
            Some(before) => &before.left & &!deleted,
            None => !deleted,
        };
        Self { rows: left.count_set_bits(), left, memory }
    }

    /// Returns the runs of rows that are deleted, as positions in the segment.
    pub fn deleted(&self) -> Vec<Range<usize>> {
        (!&self.left).set_slices().map(|(from, to)| from..to).collect()
    }

    /// Returns the number of rows that are left.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the memory that it holds, in bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// Returns the position of the `n`th row that is left, counted from 0; the segment's length where there are not so many.
    pub fn position(&self, n: usize) -> usize {
        self.left.set_indices().nth(n).unwrap_or(self.left.len())
    }

    /// Returns whether the row at a position of the segment is deleted.
    pub fn is_deleted(&self, position: usize) -> bool {
        !self.left.value(position)
    }

    /// Returns the runs of rows in `range` that are left, as positions in the segment.
    pub fn runs(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let part = self.left.slice(range.start, range.len());
        part.set_slices().map(|(from, to)| range.start + from..range.start + to).collect()
    }

    /// Returns the runs of rows that are left here and not in `after`, as positions in the segment.
    pub fn lost(&self, after: &Self) -> Vec<Range<usize>> {
        (&self.left & &!&after.left).set_slices().map(|(from, to)| from..to).collect()
    }

    /// Makes the mask of a segment of `rows` rows in which only those of `deleted` runs are gone.
    pub fn without(deleted: &[Range<usize>], before: Option<&Self>, rows: usize, account: &MemoryAccount) -> Self {
        let mut marks = BooleanBufferBuilder::new(rows);
        for run in deleted {
            marks.append_n(run.start - marks.len(), false);
            marks.append_n(run.len(), true);
        }
        marks.append_n(rows - marks.len(), false);
        Self::new(&marks.finish(), before, account)
    }

    /// Copies the rows that are left of `batch`, which is the segment's rows from position `offset`.
    ///
    /// # Errors
    ///
    /// Those of Arrow's filter.
    pub fn filter(&self, batch: &RecordBatch, offset: usize) -> Result<RecordBatch, ArrowError> {
        let part = BooleanArray::new(self.left.slice(offset, batch.num_rows()), None);
        filter_record_batch(batch, &part)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::deletion_mask::DeletionMask;
    use crate::ports::MemoryAccount;
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::buffer::BooleanBuffer;
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn marks(rows: usize, deleted: &[usize]) -> BooleanBuffer {
        BooleanBuffer::collect_bool(rows, |row| deleted.contains(&row))
    }

    #[test]
    fn masks_add_up_and_say_what_is_left() {
        let account = MemoryAccount::new(1);
        let first = DeletionMask::new(&marks(80, &[0, 5]), None, &account);
        let mask = DeletionMask::new(&marks(80, &[5, 6, 79]), Some(&first), &account);
        assert_eq!((mask.rows(), mask.bytes(), account.used()), (76, 10, 20));
        assert_eq!(mask.runs(0..80), [1..5, 7..79]);
        assert_eq!(mask.runs(3..8), [3..5, 7..8]);
        assert_eq!((mask.position(0), mask.position(4), mask.position(99)), (1, 7, 80));
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(4..8)) as _)]).unwrap();
        let left = mask.filter(&batch, 4).unwrap();
        assert_eq!(left.column(0).as_primitive::<Int64Type>().values(), &[4, 7]);
        drop(first);
        assert_eq!(account.used(), 10);
    }
}
