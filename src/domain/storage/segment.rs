//! A segment: a record batch that arrived together, its statistics, its memory and a mask of deleted rows.
//!
//! Columns never change once made, so segments are values: a DELETE makes another segment of the same columns with
//! another mask, an ALTER another one with other columns of the same rows. Both keep the segment's id. Its rows have ids of their own,
//! which they keep when they come into another segment.
//!
//! Its columns may be in memory, on the disk or both (`columns.rs`), and what is known of them needs neither (`column_facts.rs`).

use crate::domain::storage::allocations::Allocations;
use crate::domain::storage::columns::Columns;
use crate::domain::storage::deletion_mask::DeletionMask;
use crate::domain::storage::place::{PartInUse, Place};
use crate::domain::storage::row_ids::RowIds;
use crate::domain::storage::symbols::{SegmentCodes, SymbolTable};
use crate::ports::{Error, MemoryAccount, Result, StoredBatch};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Names a segment for as long as its rows have the same values. Never used again in the same process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(u64);

/// Rows of a table that are kept together.
#[derive(Debug)]
pub struct Segment {
    id: SegmentId,
    columns: Arc<Columns>,
    mask: Option<DeletionMask>,
    /// Of all rows, deleted ones included; from 0 until the segment is part of a table.
    row_ids: RowIds,
}

impl SegmentId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Segment {
    /// Makes a segment of new rows.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for what it does not share with others is not free.
    pub fn try_new(batch: RecordBatch, allocations: &Allocations) -> Result<Arc<Self>> {
        let row_ids = RowIds::consecutive(0, batch.num_rows());
        let columns = Columns::try_new(batch, allocations)?;
        Ok(Arc::new(Self { id: SegmentId::next(), columns: Arc::new(columns), mask: None, row_ids }))
    }

    /// Makes a segment of rows that lie in a part, as a checkpoint has them.
    pub fn stored(
        schema: &SchemaRef,
        stored: &StoredBatch,
        part: Arc<PartInUse>,
        allocations: &Allocations,
    ) -> Arc<Self> {
        let StoredBatch { batch, rows, sources, row_ids, deleted, facts, .. } = stored;
        let place = Place { part, batch: *batch, sources: sources.clone() };
        let columns = Columns::stored(schema.clone(), *rows, place, facts, allocations);
        let mask = (!deleted.is_empty()).then(|| DeletionMask::without(deleted, None, *rows, allocations.account()));
        let row_ids = RowIds::of_runs(row_ids.iter().cloned(), allocations.account());
        Arc::new(Self { id: SegmentId::next(), columns: Arc::new(columns), mask, row_ids })
    }

    /// Returns what a checkpoint has of it; none where it is in memory alone.
    pub fn to_stored(&self) -> Option<StoredBatch> {
        let Place { part, batch, sources } = self.columns.place()?.clone();
        let facts = (0..self.columns.schema().fields().len()).map(|index| self.columns.facts(index)).collect();
        Some(StoredBatch {
            part: part.part,
            batch,
            rows: self.physical_rows(),
            sources,
            row_ids: self.row_ids.runs(),
            deleted: self.mask.as_ref().map(DeletionMask::deleted).unwrap_or_default(),
            facts,
        })
    }

    /// Returns its columns, in memory or not.
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// Makes the segment with other columns of the same rows, deleted ones included: each that of `sources`, or one of nulls. None for
    /// one that is in memory alone.
    pub fn reshaped(&self, schema: &SchemaRef, sources: &[Option<usize>]) -> Option<Arc<Self>> {
        let columns = Arc::new(self.columns.reshaped(schema, sources)?);
        Some(Arc::new(Self { id: self.id, columns, mask: self.mask.clone(), row_ids: self.row_ids.clone() }))
    }

    /// Makes a segment that takes the place of others, which give back their memory soon: never refused.
    pub fn over_limit(batch: RecordBatch, row_ids: RowIds, allocations: &Allocations) -> Arc<Self> {
        let columns = Columns::over_limit(batch, allocations);
        Arc::new(Self { id: SegmentId::next(), columns: Arc::new(columns), mask: None, row_ids })
    }

    /// Makes the segment as part of a table, in which its first row has the id `first`.
    pub fn placed(&self, first: u64) -> Arc<Self> {
        let row_ids = RowIds::consecutive(first, self.physical_rows());
        Arc::new(Self { id: self.id, columns: self.columns.clone(), mask: self.mask.clone(), row_ids })
    }

    /// Makes the segment with other columns of the same rows, deleted ones included.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for new columns is not free.
    pub fn with_columns(&self, batch: RecordBatch, allocations: &Allocations) -> Result<Arc<Self>> {
        debug_assert_eq!(batch.num_rows(), self.physical_rows());
        let columns = Columns::try_new(batch, allocations)?;
        Ok(Arc::new(Self {
            id: self.id,
            columns: Arc::new(columns),
            mask: self.mask.clone(),
            row_ids: self.row_ids.clone(),
        }))
    }

    /// Makes the segment with new values for its rows, which keep their ids; it has another one.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for new columns is not free.
    pub fn with_values(&self, batch: RecordBatch, allocations: &Allocations) -> Result<Arc<Self>> {
        let columns = Columns::try_new(batch, allocations)?;
        Ok(Arc::new(Self {
            id: SegmentId::next(),
            columns: Arc::new(columns),
            mask: self.mask.clone(),
            row_ids: self.row_ids.clone(),
        }))
    }

    /// Makes the segment of which only the rows of `mask` are left.
    pub fn masked(&self, mask: DeletionMask) -> Arc<Self> {
        Arc::new(Self { id: self.id, columns: self.columns.clone(), mask: Some(mask), row_ids: self.row_ids.clone() })
    }

    /// Returns the name of its rows.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Returns the ids of its rows, deleted ones included.
    pub fn row_ids(&self) -> &RowIds {
        &self.row_ids
    }

    /// Returns the ids of the rows that are left, as runs.
    pub fn live_row_ids(&self) -> Vec<Range<u64>> {
        match &self.mask {
            None => self.row_ids.runs(),
            Some(mask) => self.row_ids.at(&mask.runs(0..self.physical_rows())),
        }
    }

    /// Returns all its rows, deleted ones included.
    ///
    /// # Errors
    ///
    /// Those of the store, where they are not in memory.
    pub fn physical_batch(&self) -> Result<RecordBatch> {
        self.columns.batch()
    }

    /// Returns a column of all its rows, deleted ones included.
    ///
    /// # Errors
    ///
    /// Those of the store, where it is not in memory.
    pub fn column(&self, index: usize) -> Result<ArrayRef> {
        self.columns.column(index)
    }

    /// Returns its rows, in memory of their own where some are deleted.
    ///
    /// # Errors
    ///
    /// Those of the store, and `Internal` where they cannot be copied.
    pub fn batch(&self) -> Result<RecordBatch> {
        let batch = self.columns.batch()?;
        match &self.mask {
            None => Ok(batch),
            Some(mask) => mask
                .filter(&batch, 0)
                .map_err(|error| Error::internal("rows of a segment could not be copied").with_source(error)),
        }
    }

    /// Returns which rows are left, where some are deleted.
    pub fn mask(&self) -> Option<&DeletionMask> {
        self.mask.as_ref()
    }

    /// Returns the number of its rows.
    pub fn rows(&self) -> usize {
        self.mask.as_ref().map_or_else(|| self.physical_rows(), DeletionMask::rows)
    }

    /// Returns the number of its rows, deleted ones included.
    pub fn physical_rows(&self) -> usize {
        self.columns.rows()
    }

    /// Returns the memory that it keeps alive, in bytes; what it shares with other segments is in it.
    pub fn bytes(&self) -> u64 {
        let mask_bytes = self.mask.as_ref().map_or(0, DeletionMask::bytes);
        self.columns.bytes() + mask_bytes + self.row_ids.bytes()
    }

    /// Returns whether column `index` holds a NaN with a sign, which is looked for when it is first asked.
    pub fn has_signed_nan(&self, index: usize) -> bool {
        let known = self.columns.known(index);
        known.is_some_and(|known| known.has_signed_nan(|| self.column(index).ok()))
    }

    /// Returns whether column `index`, of times, is in ascending order, deleted rows included; looked at when it is first asked.
    pub fn is_in_order(&self, index: usize) -> bool {
        let known = self.columns.known(index);
        known.is_some_and(|known| known.is_in_order(|| self.column(index).ok()))
    }

    /// Returns how many rows have no value in column `index`, deleted ones included, by the values of dictionaries too.
    pub fn null_count(&self, index: usize) -> usize {
        let known = self.columns.known(index);
        known.map_or(0, |known| known.null_count(|| self.column(index).ok()))
    }

    /// Returns the account that its memory is taken from.
    pub fn account(&self) -> &MemoryAccount {
        self.columns.allocations().account()
    }

    /// Makes the codes of column `index` in `symbols`, unless they are there; returns whether they are.
    pub fn encode(&self, index: usize, symbols: &Arc<SymbolTable>) -> bool {
        if self.codes(index, symbols).is_some() {
            return true;
        }
        // Whoever makes them meanwhile makes the same.
        let made = self.column(index).ok().and_then(|column| symbols.encode(&column)).map(Arc::new);
        let is_made = made.is_some();
        if let (Some(codes), true) = (self.columns.codes.get(index), is_made) {
            *codes.write().unwrap_or_else(PoisonError::into_inner) = made;
        }
        is_made
    }

    /// Returns the codes of column `index` in `symbols`, where they are there.
    pub fn codes(&self, index: usize, symbols: &Arc<SymbolTable>) -> Option<Arc<SegmentCodes>> {
        let codes = self.columns.codes.get(index)?.read().unwrap_or_else(PoisonError::into_inner);
        codes.as_ref().filter(|codes| codes.is_of(symbols)).cloned()
    }

    /// Forgets the codes of all columns; returns how many bytes they took. Queries that hold them go on.
    pub fn forget_codes(&self) -> u64 {
        let taken = |codes: &RwLock<Option<Arc<SegmentCodes>>>| {
            codes.write().unwrap_or_else(PoisonError::into_inner).take().map_or(0, |codes| codes.bytes())
        };
        self.columns.codes.iter().map(taken).sum()
    }

    /// Returns the memory that its columns added to what there was, in bytes: a dictionary that many segments share counts for
    /// the first of them.
    pub fn added_bytes(&self) -> u64 {
        self.columns.added_bytes()
    }

    /// Returns the smallest and the largest value of column `index`, if it has some that are compared: two rows of its type.
    pub fn bounds(&self, index: usize) -> Option<&ArrayRef> {
        self.columns.known(index)?.bounds(|| self.column(index).ok())
    }
}
