//! New values for rows of a table: what an UPDATE comes to.
//!
//! The segments that hold such rows are made anew, and share their other columns with the ones before. Rows keep their places
//! and their ids.

use crate::domain::storage::allocations::Allocations;
use crate::domain::storage::segment::Segment;
use crate::domain::storage::slice_size::slice_bytes;
use crate::domain::storage::table::Table;
use crate::domain::storage::views::array_without_unused_views;
use crate::ports::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::error::ArrowError;
use std::ops::Range;
use std::sync::Arc;

/// New values, in the order of the rows.
#[derive(Debug, Clone)]
pub struct RowValues {
    /// Positions of the rows in the table, deleted ones counted, ascending.
    pub rows: Vec<u64>,
    /// Positions of the columns that change.
    pub columns: Vec<usize>,
    /// A value for each row, one array for each of those columns.
    pub values: Vec<ArrayRef>,
}

impl RowValues {
    /// Makes the state of `table` with these values.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for new columns is not free.
    pub fn put_into(&self, table: &Table, allocations: &Allocations) -> Result<Table> {
        let (mut segments, mut first, mut at) = (Vec::new(), 0, 0);
        for segment in table.segments() {
            let end = first + segment.physical_rows() as u64;
            let until = at + self.rows[at..].partition_point(|row| *row < end);
            segments.push(match until > at {
                true => self.segment(segment, first, at..until, allocations)?,
                false => segment.clone(),
            });
            (first, at) = (end, until);
        }
        let removed: Vec<_> = table.segments().iter().map(|segment| segment.id()).collect();
        table.replace(&removed, &segments)
    }

    /// Makes `segment`, which begins at row `first`, with the values `at`.
    fn segment(
        &self,
        segment: &Segment,
        first: u64,
        at: Range<usize>,
        allocations: &Allocations,
    ) -> Result<Arc<Segment>> {
        let batch = segment.physical_batch()?;
        let before = self.columns.iter().map(|column| slice_bytes(batch.column(*column).as_ref()));
        let after = self.values.iter().map(|values| slice_bytes(values.slice(at.start, at.len()).as_ref()));
        let picks_bytes = (batch.num_rows() * size_of::<(usize, usize)>()) as u64;
        let room = allocations.reserve(before.chain(after).sum::<u64>() + picks_bytes)?;
        // For each row the array that its value comes from, 0 the old one, and the place in there.
        let mut picks: Vec<_> = (0..batch.num_rows()).map(|row| (0, row)).collect();
        for place in at {
            picks[(self.rows[place] - first) as usize] = (1, place);
        }
        let mut arrays = batch.columns().to_vec();
        for (column, value) in self.columns.iter().zip(&self.values) {
            let mixed = interleave(&[&arrays[*column], value], &picks).map_err(failed)?;
            arrays[*column] = array_without_unused_views(&mixed);
        }
        let batch = RecordBatch::try_new(batch.schema(), arrays).map_err(failed)?;
        drop((picks, room));
        segment.with_values(batch, allocations)
    }
}

fn failed(error: ArrowError) -> Error {
    Error::internal("a segment could not be rewritten").with_source(error)
}
