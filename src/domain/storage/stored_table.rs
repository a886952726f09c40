//! Tables to checkpoints and back.

use crate::domain::storage::allocations::Allocations;
use crate::domain::storage::place::PartInUse;
use crate::domain::storage::segment::Segment;
use crate::domain::storage::table::Table;
use crate::domain::storage::writers::{WriterLimits, Writers};
use crate::ports::{Result, Store, StoredBatch, StoredPart, StoredTable};
use std::collections::HashMap;
use std::sync::Arc;

/// What is kept of the writers that were there: whether they are still known is decided when they are asked for.
pub const ALL_WRITERS: WriterLimits = WriterLimits { writers_max: u64::MAX, keep_us: i64::MAX };

impl Table {
    /// Returns what a checkpoint has of it; none where rows are in memory alone.
    pub fn to_stored(&self) -> Option<StoredTable> {
        Some(StoredTable {
            definition: self.definition(),
            next_row_id: self.next_row_id(),
            writers: self.writers().states().cloned().collect(),
            batches: self.segments().iter().map(|segment| segment.to_stored()).collect::<Option<_>>()?,
        })
    }

    /// Makes a table as a checkpoint has it, whose rows lie in `store`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for what is kept of it is not free.
    pub fn of_stored(stored: &StoredTable, store: &Arc<dyn Store>, allocations: &Allocations) -> Result<Self> {
        let table = Self::of_definition(&stored.definition).counted_in(allocations.asked())?;
        let mut writers = Writers::default();
        for state in &stored.writers {
            writers = writers.with(state.clone(), ALL_WRITERS, allocations.asked())?;
        }
        let mut parts: HashMap<StoredPart, Arc<PartInUse>> = HashMap::new();
        let segment = |batch: &StoredBatch| {
            let StoredBatch { part, .. } = batch;
            let part = parts.entry(*part).or_insert_with(|| PartInUse::new(*part, store.clone())).clone();
            Segment::stored(table.schema(), batch, part, allocations)
        };
        let segments = stored.batches.iter().map(segment).collect();
        Ok(table.with_segments(segments).with_next_row_id(stored.next_row_id).with_writers(writers))
    }
}
