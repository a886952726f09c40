//! Rows of a table by their ids, wherever they lie: what the journal knows of them.

use crate::domain::storage::deletion_mask::DeletionMask;
use crate::domain::storage::row_ids::joined;
use crate::domain::storage::segment::{Segment, SegmentId};
use crate::domain::storage::table::Table;
use crate::ports::MemoryAccount;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

impl Table {
    /// Returns the state without the rows of these ids, which ascend.
    pub fn erase(&self, ids: &[Range<u64>], account: &MemoryAccount) -> Self {
        let mut segments = Vec::with_capacity(self.segments().len());
        for segment in self.segments() {
            let deleted = segment.row_ids().positions(overlapping(ids, &segment.row_ids().span()));
            if deleted.is_empty() {
                segments.push(segment.clone());
                continue;
            }
            let mask = DeletionMask::without(&deleted, segment.mask(), segment.physical_rows(), account);
            if mask.rows() > 0 {
                segments.push(segment.masked(mask));
            }
        }
        self.with_segments(segments)
    }

    /// Returns the ids of the rows that `masks` delete and that are not deleted yet.
    pub fn erased_by(&self, masks: &[(SegmentId, DeletionMask)]) -> Vec<Range<u64>> {
        let masks: HashMap<_, _> = masks.iter().map(|(id, mask)| (*id, mask)).collect();
        let ids_of = |segment: &Arc<Segment>| {
            let mask = masks.get(&segment.id())?;
            let lost = segment.mask().map_or_else(|| mask.deleted(), |before| before.lost(mask));
            Some(segment.row_ids().at(&lost))
        };
        joined(self.segments().iter().filter_map(ids_of).flatten())
    }

    /// Returns the ids of the rows at `positions`, deleted ones counted, which ascend.
    pub fn row_ids(&self, positions: &[u64]) -> Vec<Range<u64>> {
        let (mut ids, mut first, mut at) = (Vec::new(), 0, 0);
        for segment in self.segments() {
            let end = first + segment.physical_rows() as u64;
            let until = at + positions[at..].partition_point(|position| *position < end);
            let within = joined(positions[at..until].iter().map(|position| position - first..position - first + 1));
            let within: Vec<_> = within.into_iter().map(|run| run.start as usize..run.end as usize).collect();
            ids.extend(segment.row_ids().at(&within));
            (first, at) = (end, until);
        }
        joined(ids)
    }

    /// Returns the positions of the rows of these ids, deleted ones counted; both ascend.
    pub fn positions(&self, ids: &[Range<u64>]) -> Vec<u64> {
        let (mut positions, mut first) = (Vec::new(), 0);
        for segment in self.segments() {
            let runs = segment.row_ids().positions(overlapping(ids, &segment.row_ids().span()));
            positions.extend(runs.into_iter().flatten().map(|position| first + position as u64));
            first += segment.physical_rows() as u64;
        }
        positions
    }
}

/// Returns those of `ids`, which ascend, that may have something in `span`.
fn overlapping<'a>(ids: &'a [Range<u64>], span: &Range<u64>) -> &'a [Range<u64>] {
    let from = ids.partition_point(|run| run.end <= span.start);
    let until = ids.partition_point(|run| run.start < span.end);
    &ids[from..until.max(from)]
}
