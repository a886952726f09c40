//! Cuts batches into slices of few rows, so that their reader is soon done with one.
//!
//! A join that tests every pair, or that finds much and keeps little, takes as long for a batch as the batch is long.
//! Cutting a batch copies nothing, so such a join gets its rows a slice at a time.

use arrow::array::RecordBatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pairs of rows that a nested loop join tests in one poll: about a tenth of a second.
const PAIRS_PER_POLL: u64 = 1 << 25;

/// Rows of a slice: never more than this, and where the left side is not huge never less than that, below which the
/// join takes a slower way.
const SLICE_ROWS_MAX: usize = 8_192;
const SLICE_ROWS_MIN: usize = 1_024;

/// The left side of a nested loop join beyond which slices may be smaller all the same.
const HUGE_ROWS: u64 = 1 << 18;

/// The size of the slices that are handed on.
#[derive(Debug, Clone)]
pub enum Pace {
    /// Whole batches.
    Plain,
    /// Whole batches, their rows counted: the side of a nested loop join that is collected.
    Counted(Arc<AtomicU64>),
    /// So few rows at a time that all pairs with the counted ones are soon done: its other side.
    Product(Arc<AtomicU64>),
    /// Few rows at first, more for as long as they are soon worked off: the probing side of a hash join.
    Growing,
}

/// Cuts batches into slices, which copies nothing.
#[derive(Debug)]
pub struct Slicer {
    pace: Pace,
    rest: Option<RecordBatch>,
    /// Rows of the next slice where slices grow, and when the last one was handed on.
    growing_rows: usize,
    last_handed_on: Option<Instant>,
}

impl Slicer {
    /// Makes a slicer that has no batch yet.
    pub fn new(pace: Pace) -> Self {
        Self { pace, rest: None, growing_rows: 16, last_handed_on: None }
    }

    /// Stops the clock while the next batch is waited for, which says nothing of how fast slices are worked off.
    pub fn pause(&mut self) {
        self.last_handed_on = None;
    }

    /// Takes in a batch and returns its first slice.
    pub fn push(&mut self, batch: RecordBatch, now: Instant) -> RecordBatch {
        if let Pace::Counted(rows) = &self.pace {
            rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        }
        match self.pace {
            Pace::Plain | Pace::Counted(_) => batch,
            Pace::Product(_) | Pace::Growing => self.cut(batch, now),
        }
    }

    /// Returns the next slice of what is left.
    pub fn next(&mut self, now: Instant) -> Option<RecordBatch> {
        let rest = self.rest.take()?;
        Some(self.cut(rest, now))
    }

    fn cut(&mut self, batch: RecordBatch, now: Instant) -> RecordBatch {
        let rows = self.rows(now).min(batch.num_rows());
        self.last_handed_on = Some(now);
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        batch.slice(0, rows)
    }

    fn rows(&mut self, now: Instant) -> usize {
        match &self.pace {
            Pace::Product(left) => product_rows(left.load(Ordering::Relaxed)),
            _ => {
                // The time that the last slice took decides the size of the next one.
                match self.last_handed_on.map(|handed_on| now - handed_on) {
                    Some(took) if took > Duration::from_millis(100) => {
                        self.growing_rows = (self.growing_rows / 2).max(1)
                    }
                    Some(took) if took < Duration::from_millis(25) => {
                        self.growing_rows = (self.growing_rows * 2).min(SLICE_ROWS_MAX);
                    }
                    _ => {}
                }
                self.growing_rows
            }
        }
    }
}

/// Returns how many rows of the right side are soon tested against `left` rows of the left one.
fn product_rows(left: u64) -> usize {
    let rows = usize::try_from(PAIRS_PER_POLL / left.max(1)).unwrap_or(usize::MAX);
    let least = if left <= HUGE_ROWS { SLICE_ROWS_MIN } else { 1 };
    rows.clamp(least, SLICE_ROWS_MAX)
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::slices::product_rows;

    #[test]
    fn slices_are_as_small_as_the_other_side_is_large() {
        assert_eq!([0, 1, 150_000, 1 << 24].map(product_rows), [8_192, 8_192, 1_024, 2]);
    }
}
