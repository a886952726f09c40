//! All batches of one side of a join, from which rows are taken out.
//!
//! Batches stay as they came: putting them together would copy a table.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::Result;
use std::ops::Range;

/// Rows between the first and the last that is taken out up to which all of them are put together, for each row that is taken out.
const NEAR_SHARE: usize = 2;

/// The same, however few are taken out.
const NEAR_ROWS: usize = 8_192;

/// The number of no row.
pub const NO_ROW: u32 = u32::MAX;

/// Batches, whose rows count from 0 through all of them.
#[derive(Debug)]
pub struct Collected {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// The number of the first row of each batch.
    starts: Vec<u32>,
    rows: u32,
}

impl Collected {
    /// Makes an empty collection.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new(), starts: Vec::new(), rows: 0 }
    }

    /// Adds a batch. There are fewer rows than 32 bits count, or nothing is taken out.
    pub fn push(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.starts.push(self.rows);
            self.rows = self.rows.saturating_add(u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
            self.batches.push(batch);
        }
    }

    /// Returns the columns of rows by their numbers, null for [`NO_ROW`].
    ///
    /// # Errors
    ///
    /// arrow's where dictionaries together outgrow their keys.
    pub fn rows(&self, wanted: &[u32]) -> Result<Vec<ArrayRef>> {
        let none = wanted.iter().filter(|row| **row == NO_ROW).count();
        if self.batches.is_empty() || none == wanted.len() {
            let fields = self.schema.fields().iter();
            return Ok(fields.map(|field| new_null_array(field.data_type(), wanted.len())).collect());
        }
        if self.schema.fields().is_empty() {
            return Ok(Vec::new());
        }
        let least = wanted.iter().copied().min().unwrap_or(0);
        let most = wanted.iter().copied().filter(|row| *row != NO_ROW).max().unwrap_or(0);
        let batches = self.batch_of(least)..self.batch_of(most) + 1;
        let span = (most - least) as usize;
        if batches.len() == 1 || span <= NEAR_ROWS.max(NEAR_SHARE * wanted.len()) {
            let nulls = (none > 0).then(|| wanted.iter().map(|row| *row != NO_ROW).collect::<NullBuffer>());
            let rows = UInt32Array::new(wanted.iter().map(|row| row.wrapping_sub(least)).collect(), nulls);
            let part = |column| take(&self.part(column, batches.clone(), least, span + 1)?, &rows, None);
            return (0..self.schema.fields().len()).map(|column| Ok(part(column)?)).collect();
        }
        let (used, picks) = self.picks(wanted);
        (0..self.schema.fields().len()).map(|column| self.gather(column, &used, none > 0, &picks)).collect()
    }

    /// Returns so many rows of a column from `first` on, which lie in `batches`: copied where those are several.
    fn part(&self, column: usize, batches: Range<usize>, first: u32, rows: usize) -> Result<ArrayRef, ArrowError> {
        let end = first as usize + rows;
        let slices = batches.map(|at| {
            let (batch, start) = (&self.batches[at], self.starts[at] as usize);
            let from = (first as usize).saturating_sub(start);
            batch.column(column).slice(from, batch.num_rows().min(end - start) - from)
        });
        let slices: Vec<ArrayRef> = slices.collect();
        match slices.as_slice() {
            [only] => Ok(only.clone()),
            several => concat(&several.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
        }
    }

    fn batch_of(&self, row: u32) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }

    /// Returns the batches that rows are in, as they are first met, and for each row its place among them; no row is in one behind
    /// the last.
    fn picks(&self, wanted: &[u32]) -> (Vec<usize>, Vec<(usize, usize)>) {
        let mut used: Vec<usize> = Vec::new();
        let mut place_of = vec![usize::MAX; self.batches.len()];
        let (mut near, mut picks) = (0, Vec::with_capacity(wanted.len()));
        for row in wanted.iter().copied() {
            if row == NO_ROW {
                picks.push((usize::MAX, 0));
                continue;
            }
            if self.starts[near] > row || self.starts.get(near + 1).is_some_and(|next| *next <= row) {
                near = self.batch_of(row);
            }
            if place_of[near] == usize::MAX {
                place_of[near] = used.len();
                used.push(near);
            }
            picks.push((place_of[near], (row - self.starts[near]) as usize));
        }
        for pick in picks.iter_mut().filter(|pick| pick.0 == usize::MAX) {
            *pick = (used.len(), 0);
        }
        (used, picks)
    }

    fn gather(&self, column: usize, used: &[usize], has_null: bool, picks: &[(usize, usize)]) -> Result<ArrayRef> {
        let mut arrays: Vec<ArrayRef> = used.iter().map(|batch| self.batches[*batch].column(column).clone()).collect();
        if has_null {
            // A null of the same dictionary, so that dictionaries need not be put together.
            arrays.push(take(&arrays[0], &UInt32Array::from(vec![None::<u32>]), None)?);
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        Ok(interleave(&arrays, picks)?)
    }
}
