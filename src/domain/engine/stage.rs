//! Data on its way in: already in segments and counted against memory, visible to nobody.
//!
//! Dropping a stage gives everything back, which is all that undoing an ingestion takes.

use crate::domain::storage::{Budget, ROWS_TARGET, Segment, held_bytes, merge_run};
use crate::ports::{Error, IngestSummary, Limits, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use std::sync::Arc;

/// Bytes beyond its own that a batch may keep alive in any case.
const KEPT_BYTES: u64 = 64 << 10;

/// Batches below this are merged while they come; larger ones are kept as they arrived.
const SMALL_ROWS: usize = ROWS_TARGET / 8;

/// Segments that wait for their publication.
#[derive(Debug)]
pub struct Stage {
    segments: Vec<Arc<Segment>>,
    /// Rows of the small segments at the end, which wait for enough others.
    small_rows: usize,
    summary: IngestSummary,
    rows_max: u64,
    bytes_max: u64,
    budget: Budget,
}

impl Stage {
    /// An empty stage.
    pub fn new(budget: &Budget, limits: &Limits) -> Self {
        Self {
            segments: Vec::new(),
            small_rows: 0,
            summary: IngestSummary::default(),
            rows_max: limits.stream_rows_max,
            bytes_max: limits.stream_bytes_max,
            budget: budget.clone(),
        }
    }

    /// Takes a batch in.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` past the rows or bytes of one stream, or the memory of all tables.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.summary.batches += 1;
        self.summary.rows = self.summary.rows.saturating_add(batch.num_rows() as u64);
        if self.summary.rows > self.rows_max {
            return Err(Error::limit(format!("the stream has more than {} rows (stream_rows_max)", self.rows_max)));
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let segment = Segment::try_new(compact(batch), &self.budget)?;
        self.summary.bytes += segment.bytes();
        if self.summary.bytes > self.bytes_max {
            return Err(Error::limit(format!("the stream has more than {} bytes (stream_bytes_max)", self.bytes_max)));
        }
        self.small_rows = if segment.rows() < SMALL_ROWS { self.small_rows + segment.rows() } else { 0 };
        self.segments.push(segment);
        if self.small_rows >= ROWS_TARGET {
            self.merge_small();
        }
        Ok(())
    }

    /// Makes one segment of the small ones at the end: their rows are copied once here, and once for each tier if it were
    /// left to the background.
    fn merge_small(&mut self) {
        let small = self.segments.iter().rev().scan(self.small_rows, |left, segment| {
            *left = left.checked_sub(segment.rows())?;
            Some(())
        });
        let first = self.segments.len() - small.count();
        self.small_rows = 0;
        match merge_run(&self.segments[first..], &self.budget) {
            Ok(merged) => {
                self.segments.truncate(first);
                self.segments.push(merged);
            }
            // Dictionaries that together outgrow their keys stay apart.
            Err(error) => tracing::debug!(%error, "small batches stay as they are"),
        }
    }

    /// Rows taken in.
    pub fn rows(&self) -> u64 {
        self.summary.rows
    }

    /// What was taken in.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// What it came to; whether a table was made, its publisher knows.
    pub fn summary(&self) -> IngestSummary {
        self.summary
    }
}

/// The same rows in memory of their own, where they are a small part of what they would keep alive: results of a query
/// are slices of other tables' segments.
fn compact(batch: RecordBatch) -> RecordBatch {
    let sliced = |column: &ArrayRef| column.to_data().get_slice_memory_size().ok();
    let used: Option<usize> = batch.columns().iter().map(sliced).sum();
    match used {
        Some(used) if held_bytes(&batch) > 2 * used as u64 + KEPT_BYTES => {
            let rows = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
            take_record_batch(&batch, &rows).unwrap_or(batch)
        }
        _ => batch,
    }
}
