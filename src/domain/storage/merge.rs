//! Which small segments to merge, and how.
//!
//! Segments fall into tiers by size, each sixteen times the one before. Sixteen of one tier, with nothing larger
//! between them, become one of the next: a row is copied at most once per tier, however small the batches that brought
//! it, and a table never keeps more than a few dozen small segments in a row.

use crate::domain::storage::memory::Budget;
use crate::domain::storage::segment::Segment;
use crate::ports::{Error, Result};
use arrow::compute::concat_batches;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a segment that scans well and is left alone.
pub const ROWS_TARGET: usize = 65_536;

/// Segments of one tier that are merged together.
const FAN_IN: usize = 16;

/// Positions of neighbouring segments.
pub type Run = Range<usize>;

/// The first run that is worth merging, smallest tier first.
pub fn mergeable_run(segments: &[Arc<Segment>]) -> Option<Run> {
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

/// All rows of `run` as one segment, in order.
///
/// # Errors
///
/// `Internal` where the columns cannot be put together, such as dictionaries that outgrow their keys.
pub fn merge_run(segments: &[Arc<Segment>], budget: &Budget) -> Result<Arc<Segment>> {
    let batches: Vec<_> = segments.iter().map(|segment| segment.batch()).collect();
    let merged = concat_batches(&batches[0].schema(), batches)
        .map_err(|error| Error::internal("segments could not be merged").with_source(error))?;
    Ok(Segment::replacing(merged, budget))
}

fn tier(rows: usize) -> u32 {
    rows.max(1).ilog(FAN_IN)
}

/// A run without anything above `level` that has enough of `level` itself.
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
    use crate::domain::storage::memory::Budget;
    use crate::domain::storage::merge::{ROWS_TARGET, merge_run, mergeable_run};
    use crate::domain::storage::segment::Segment;
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn segment(first: i64, rows: i64, budget: &Budget) -> Arc<Segment> {
        let column = Int64Array::from_iter_values(first..first + rows);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap();
        Segment::try_new(batch, budget).unwrap()
    }

    /// Appends one at a time and merges as the engine does.
    fn settle(sizes: impl Iterator<Item = i64>) -> (Vec<Arc<Segment>>, usize) {
        let budget = Budget::new(u64::MAX);
        let (mut segments, mut next, mut copied) = (Vec::new(), 0, 0);
        for rows in sizes {
            segments.push(segment(next, rows, &budget));
            next += rows;
            while let Some(run) = mergeable_run(&segments) {
                let merged = merge_run(&segments[run.clone()], &budget).unwrap();
                copied += merged.rows();
                segments.splice(run, [merged]);
            }
        }
        assert_eq!(budget.used(), segments.iter().map(|segment| segment.bytes()).sum::<u64>());
        (segments, copied)
    }

    fn values(segments: &[Arc<Segment>]) -> Vec<i64> {
        let column = |segment: &Arc<Segment>| segment.batch().column(0).as_primitive::<Int64Type>().clone();
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
}
