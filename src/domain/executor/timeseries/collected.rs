//! All batches of one side of a join, from which rows are taken out.
//!
//! Batches stay as they came: putting them together would copy a table.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;

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

    /// Returns the columns of rows by their numbers, null where there is none.
    ///
    /// # Errors
    ///
    /// arrow's where dictionaries together outgrow their keys.
    pub fn rows(&self, wanted: &[Option<u32>]) -> Result<Vec<ArrayRef>> {
        let has_null = wanted.iter().any(Option::is_none);
        if self.batches.is_empty() || wanted.iter().all(Option::is_none) {
            return Ok(self
                .schema
                .fields()
                .iter()
                .map(|field| new_null_array(field.data_type(), wanted.len()))
                .collect());
        }
        // The batches that are needed, as they are first met, and for each row the place among them.
        let mut used: Vec<usize> = Vec::new();
        let mut place_of = vec![usize::MAX; self.batches.len()];
        let (mut near, mut picks) = (0, Vec::with_capacity(wanted.len()));
        for row in wanted {
            let Some(row) = *row else {
                picks.push((usize::MAX, 0));
                continue;
            };
            if self.starts[near] > row || self.starts.get(near + 1).is_some_and(|next| *next <= row) {
                near = self.starts.partition_point(|start| *start <= row) - 1;
            }
            if place_of[near] == usize::MAX {
                place_of[near] = used.len();
                used.push(near);
            }
            picks.push((place_of[near], (row - self.starts[near]) as usize));
        }
        if let ([only], false) = (used.as_slice(), has_null) {
            let rows: UInt32Array = picks.iter().map(|(_, row)| Some(*row as u32)).collect();
            return self.batches[*only].columns().iter().map(|column| Ok(take(column, &rows, None)?)).collect();
        }
        for pick in picks.iter_mut().filter(|pick| pick.0 == usize::MAX) {
            *pick = (used.len(), 0);
        }
        (0..self.schema.fields().len()).map(|column| self.gather(column, &used, has_null, &picks)).collect()
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
