//! Compaction: which segments to put together, and how.
//!
//! Segments fall into tiers by size, each sixteen times the one before. Sixteen of one tier, with nothing larger
//! between them, become one of the next: a row is copied at most once per tier, however small the batches that brought
//! it, and a table never keeps more than a few dozen small segments in a row. A segment of which at least half is deleted
//! is copied by itself, which costs no more than what it frees.

use crate::domain::storage::allocations::Allocations;
use crate::domain::storage::row_ids::RowIds;
use crate::domain::storage::segment::Segment;
use crate::domain::storage::views::without_unused_views;
use crate::ports::{Error, Result};
use arrow::compute::concat_batches;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a segment that scans well and is left alone.
pub const ROWS_TARGET: usize = 65_536;

/// Segments of one tier that are put together.
const FAN_IN: usize = 16;

/// Positions of neighbouring segments.
pub type Run = Range<usize>;

/// Finds the first run that is worth compacting: what is half deleted first, then the smallest tier.
pub fn compactable_run(segments: &[Arc<Segment>]) -> Option<Run> {
    let half_deleted = |segment: &Arc<Segment>| segment.rows() <= segment.physical_rows() / 2;
    if let Some(at) = segments.iter().position(half_deleted) {
        return Some(at..at + 1);
    }
    let tiers: Vec<_> = segments.iter().map(|segment| tier(segment.rows())).collect();
    let run = (0..=tier(ROWS_TARGET - 1)).find_map(|level| run_of_tier(&tiers, level))?;
    let mut rows = 0;
    let len = segments[run.clone()]
        .iter()
        .take_while(|segment| {
            let more = rows < ROWS_TARGET;
            rows += segment.rows();
            more
        })
        .count();
    (len > 1).then(|| run.start..run.start + len)
}

/// Copies all rows of `run` into one segment, in order.
///
/// # Errors
///
/// `Internal` where the columns cannot be put together, such as dictionaries that outgrow their keys.
pub fn compact(run: &[Arc<Segment>], allocations: &Allocations) -> Result<Arc<Segment>> {
    let batches = run.iter().map(|segment| segment.batch()).collect::<Result<Vec<_>>>()?;
    let schema = batches.first().ok_or_else(|| Error::internal("nothing to compact"))?.schema();
    let merged = concat_batches(&schema, &batches)
        .map_err(|error| Error::internal("segments could not be put together").with_source(error))?;
    let runs = run.iter().flat_map(|segment| segment.live_row_ids());
    let row_ids = RowIds::of_runs(runs, allocations.account());
    Ok(Segment::over_limit(without_unused_views(merged), row_ids, allocations))
}

fn tier(rows: usize) -> u32 {
    rows.max(1).ilog(FAN_IN)
}

/// Finds a run without anything above `level` that has enough of `level` itself.
fn run_of_tier(tiers: &[u32], level: u32) -> Option<Run> {
    let (mut start, mut count) = (0, 0);
    for (at, tier) in tiers.iter().enumerate() {
        if *tier > level {
            (start, count) = (at + 1, 0);
        } else if *tier == level {
            count += 1;
            if count == FAN_IN {
                return Some(start..at + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::allocations::Allocations;
    use crate::domain::storage::compaction::{ROWS_TARGET, compact, compactable_run};
    use crate::domain::storage::deletion_mask::DeletionMask;
    use crate::domain::storage::segment::Segment;
    use crate::ports::MemoryAccount;
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn segment(first: i64, rows: i64, allocations: &Allocations) -> Arc<Segment> {
        let column = Int64Array::from_iter_values(first..first + rows);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap();
        Segment::try_new(batch, allocations).unwrap()
    }

    /// Appends one at a time and compacts as the engine does.
    fn settle(sizes: impl Iterator<Item = i64>) -> (Vec<Arc<Segment>>, usize) {
        let allocations = Allocations::new(MemoryAccount::default());
        let (mut segments, mut next, mut copied) = (Vec::new(), 0, 0);
        for rows in sizes {
            segments.push(segment(next, rows, &allocations));
            next += rows;
            while let Some(run) = compactable_run(&segments) {
                let merged = compact(&segments[run.clone()], &allocations).unwrap();
                copied += merged.rows();
                segments.splice(run, [merged]);
            }
        }
        assert_eq!(allocations.account().used(), segments.iter().map(|segment| segment.bytes()).sum::<u64>());
        (segments, copied)
    }

    fn values(segments: &[Arc<Segment>]) -> Vec<i64> {
        let column = |segment: &Arc<Segment>| segment.batch().unwrap().column(0).as_primitive::<Int64Type>().clone();
        segments.iter().flat_map(|segment| column(segment).values().to_vec()).collect()
    }

    #[test]
    fn many_tiny_appends_end_as_few_segments_in_order_at_little_cost() {
        let (segments, copied) = settle(std::iter::repeat_n(1, 5_000));
        assert!(segments.len() <= 64, "{} segments", segments.len());
        assert!(copied <= 4 * 5_000, "{copied} rows copied");
        assert_eq!(values(&segments), (0..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn mixed_sizes_settle_and_large_segments_are_left_alone() {
        let large = ROWS_TARGET as i64;
        let sizes = (0..200).map(|at| [1, 300, 5_000, 1, large][at % 5]);
        let (segments, _) = settle(sizes.clone());
        assert_eq!(segments.iter().filter(|segment| segment.rows() == ROWS_TARGET).count(), 40);
        assert_eq!(values(&segments), (0..sizes.sum()).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_half_deleted_is_copied_and_gives_its_memory_back() {
        let allocations = Allocations::new(MemoryAccount::default());
        let segments = [segment(0, 1_000, &allocations), segment(1_000, 1_000, &allocations)];
        let marks = |count| arrow::buffer::BooleanBuffer::collect_bool(1_000, |row| row < count);
        let masked = |count| segments[1].masked(DeletionMask::new(&marks(count), None, allocations.account()));
        assert_eq!(compactable_run(&[segments[0].clone(), masked(499)]), None);
        let half = [segments[0].clone(), masked(500)];
        assert_eq!(compactable_run(&half), Some(1..2));
        let copied = compact(&half[1..], &allocations).unwrap();
        assert_eq!(values(std::slice::from_ref(&copied)), (1_500..2_000).collect::<Vec<_>>());
        assert!(copied.bytes() < segments[1].bytes() && copied.mask().is_none());
    }
}
