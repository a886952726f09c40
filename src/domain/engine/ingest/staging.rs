//! The stage of a stream: its rows in segments, counted against memory, visible to nobody.
//!
//! Dropping a stage gives everything back, which is all that undoing an ingestion takes.

use crate::domain::engine::Inner;
use crate::domain::storage::{
    Allocations, ROWS_TARGET, Segment, compact, held_bytes, slice_bytes, without_unused_views,
};
use crate::ports::{BatchStream, Error, IngestSummary, Limits, Result};
use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use futures::StreamExt;
use std::sync::Arc;

/// Bytes beyond its own that a batch may keep alive in any case.
const KEPT_BYTES: u64 = 64 << 10;

/// Batches below this are put together while they come; larger ones are kept as they arrived.
const SMALL_ROWS: usize = ROWS_TARGET / 8;

/// Segments that wait for their publication.
#[derive(Debug)]
pub struct Stage {
    segments: Vec<Arc<Segment>>,
    /// Rows of the small segments at the end, which wait for enough others.
    small_rows: usize,
    summary: IngestSummary,
    /// Bytes that the stream added to what there was: a dictionary that its batches share counts once.
    staged_bytes: u64,
    rows_max: u64,
    bytes_max: u64,
    allocations: Allocations,
}

impl Inner {
    /// Stages all of a stream, each batch as `convert` makes it, which is given the number of rows before it. `growth_bytes`
    /// is how much larger than itself a batch may become, and is asked for first.
    ///
    /// # Errors
    ///
    /// Those of the stream and of `convert`, and `LimitExceeded`.
    pub(in crate::domain::engine) async fn stage(
        &self,
        mut batches: BatchStream,
        growth_bytes: impl Fn(&RecordBatch) -> u64,
        convert: impl Fn(&RecordBatch, u64) -> Result<RecordBatch>,
    ) -> Result<Stage> {
        let mut stage = Stage::new(&self.allocations, &self.options.limits);
        let slot = self.backpressure.acquire();
        while let Some(batch) = slot.idle(batches.next()).await {
            let batch = batch?;
            self.wait_for_memory(growth_bytes(&batch).saturating_add(held_bytes(&batch))).await;
            let room = self.allocations.account().reserve(growth_bytes(&batch))?;
            stage.push(convert(&batch, stage.rows())?)?;
            // What this stream does not need any more must not keep another one waiting.
            drop((batch, room));
            slot.staged(stage.staged_bytes);
            slot.wait(self.stall_timeout()).await?;
        }
        self.wait_for_disk(stage.staged_bytes).await?;
        Ok(stage)
    }
}

impl Stage {
    /// Makes an empty stage.
    pub fn new(allocations: &Allocations, limits: &Limits) -> Self {
        Self {
            segments: Vec::new(),
            small_rows: 0,
            summary: IngestSummary::default(),
            staged_bytes: 0,
            rows_max: limits.stream_rows_max,
            bytes_max: limits.stream_bytes_max,
            allocations: allocations.clone(),
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
        let segment = Segment::try_new(with_own_memory(batch), &self.allocations)?;
        self.summary.bytes += segment.bytes();
        self.staged_bytes += segment.added_bytes();
        if self.staged_bytes > self.bytes_max {
            return Err(Error::limit(format!("the stream has more than {} bytes (stream_bytes_max)", self.bytes_max)));
        }
        self.small_rows = if segment.rows() < SMALL_ROWS { self.small_rows + segment.rows() } else { 0 };
        self.segments.push(segment);
        if self.small_rows >= ROWS_TARGET {
            self.compact_small();
        }
        Ok(())
    }

    /// Puts the small segments at the end together: here their rows are copied once, in the background once for each tier.
    fn compact_small(&mut self) {
        let small = self.segments.iter().rev().scan(self.small_rows, |left, segment| {
            *left = left.checked_sub(segment.rows())?;
            Some(())
        });
        let first = self.segments.len() - small.count();
        self.small_rows = 0;
        match compact(&self.segments[first..], &self.allocations) {
            Ok(merged) => {
                self.segments.truncate(first);
                self.segments.push(merged);
            }
            // Dictionaries that together outgrow their keys stay apart.
            Err(error) => tracing::debug!(%error, "small batches stay as they are"),
        }
    }

    /// Returns the number of rows taken in.
    pub fn rows(&self) -> u64 {
        self.summary.rows
    }

    /// Returns what was taken in.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Sums it up, but for whether a table is made of it.
    pub fn summary(&self) -> IngestSummary {
        self.summary.clone()
    }
}

/// Copies rows that are a small part of what they would keep alive: results of a query are slices of other tables' segments.
fn with_own_memory(batch: RecordBatch) -> RecordBatch {
    let used = |column: &ArrayRef| {
        let dictionary =
            column.as_any_dictionary_opt().map_or(0, |dictionary| slice_bytes(dictionary.values().as_ref()));
        slice_bytes(column.as_ref()) + dictionary
    };
    let used: u64 = batch.columns().iter().map(used).sum();
    if held_bytes(&batch) <= 2 * used + KEPT_BYTES {
        return batch;
    }
    let rows = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
    take_record_batch(&batch, &rows).map(without_unused_views).unwrap_or(batch)
}
