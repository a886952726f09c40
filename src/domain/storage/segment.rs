//! A segment: a record batch that arrived together, its statistics, its memory and a mask of deleted rows.
//!
//! Columns never change once made, so segments are values: a DELETE makes another segment of the same columns with
//! another mask, an ALTER another one with other columns of the same rows. Both keep the segment's id. Its rows have ids of their own,
//! which they keep when they come into another segment.
//!
//! Statistics are computed when they are first asked for: ingestion does not wait for them. They order values as Arrow's
//! comparison kernels do (total order for floats, so NaN is the largest), because the executor prunes by comparing them with
//! the same kernels. They count deleted rows in, so they are bounds rather than extremes.

use crate::domain::storage::allocations::{Allocations, Claim};
use crate::domain::storage::deletion_mask::DeletionMask;
use crate::domain::storage::nan::{has_signed_nan, without_signed_nans};
use crate::domain::storage::row_ids::RowIds;
use crate::domain::storage::symbols::{SegmentCodes, SymbolTable};
use crate::ports::{Error, MemoryAccount, Reservation, Result};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, UInt32Array, downcast_primitive};
use arrow::compute::{self, cast};
use arrow::datatypes::{ArrowNumericType, DataType, Int64Type};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

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

/// The columns of a segment, shared by all its states.
#[derive(Debug)]
struct Columns {
    // Before the batch, and so dropped before it: `allocations.rs` says why.
    claim: Claim,
    /// For rows without allocations, such as those of a column of nulls: counted all the same.
    bare: Reservation,
    stats: Vec<OnceLock<Option<ColumnStats>>>,
    signed_nans: Vec<OnceLock<bool>>,
    codes: Vec<RwLock<Option<Arc<SegmentCodes>>>>,
    in_order: Vec<OnceLock<bool>>,
    account: MemoryAccount,
    batch: RecordBatch,
}

/// What is known of one column of one segment.
#[derive(Debug, Clone)]
pub struct ColumnStats {
    /// Smallest and largest value, in this order: two rows of the column's type.
    pub bounds: ArrayRef,
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
    pub fn physical_batch(&self) -> &RecordBatch {
        &self.columns.batch
    }

    /// Returns its rows, in memory of their own where some are deleted.
    ///
    /// # Errors
    ///
    /// `Internal` where they cannot be copied.
    pub fn batch(&self) -> Result<Cow<'_, RecordBatch>> {
        match &self.mask {
            None => Ok(Cow::Borrowed(&self.columns.batch)),
            Some(mask) => mask
                .filter(&self.columns.batch, 0)
                .map(Cow::Owned)
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
        self.columns.batch.num_rows()
    }

    /// Returns the memory that it keeps alive, in bytes; what it shares with other segments is in it.
    pub fn bytes(&self) -> u64 {
        let mask_bytes = self.mask.as_ref().map_or(0, DeletionMask::bytes);
        self.columns.claim.bytes() + self.columns.bare.bytes() + mask_bytes + self.row_ids.bytes()
    }

    /// Returns whether column `index` holds a NaN with a sign, which is looked for when it is first asked.
    pub fn has_signed_nan(&self, index: usize) -> bool {
        let known = self.columns.signed_nans.get(index);
        known.is_some_and(|known| *known.get_or_init(|| has_signed_nan(self.columns.batch.column(index))))
    }

    /// Returns whether column `index`, of times, is in ascending order, deleted rows included; looked at when it is first asked.
    pub fn is_in_order(&self, index: usize) -> bool {
        let known = self.columns.in_order.get(index);
        known.is_some_and(|known| *known.get_or_init(|| is_sorted(self.columns.batch.column(index))))
    }

    /// Returns the account that its memory is taken from.
    pub fn account(&self) -> &MemoryAccount {
        &self.columns.account
    }

    /// Makes the codes of column `index` in `symbols`, unless they are there; returns whether they are.
    pub fn encode(&self, index: usize, symbols: &Arc<SymbolTable>) -> bool {
        if self.codes(index, symbols).is_some() {
            return true;
        }
        // Whoever makes them meanwhile makes the same.
        let made = symbols.encode(self.columns.batch.column(index)).map(Arc::new);
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
        self.columns.claim.added_bytes() + self.columns.bare.bytes()
    }

    /// Returns what is known of column `index`, if anything.
    pub fn stats(&self, index: usize) -> Option<&ColumnStats> {
        let stats = self.columns.stats.get(index)?;
        let column = self.columns.batch.column(index);
        let compute = || match self.has_signed_nan(index) {
            true => column_stats(&without_signed_nans(column)),
            false => column_stats(column),
        };
        stats.get_or_init(compute).as_ref()
    }
}

impl Columns {
    fn try_new(batch: RecordBatch, allocations: &Allocations) -> Result<Self> {
        let claim = allocations.claim(&batch)?;
        let bare = allocations.reserve(bare_bytes(&batch, &claim))?;
        Ok(Self::claimed(batch, claim, bare, allocations.account()))
    }

    fn over_limit(batch: RecordBatch, allocations: &Allocations) -> Self {
        let claim = allocations.claim_over_limit(&batch);
        let bare = allocations.account().reserve_over_limit(bare_bytes(&batch, &claim));
        Self::claimed(batch, claim, bare, allocations.account())
    }

    fn claimed(batch: RecordBatch, claim: Claim, bare: Reservation, account: &MemoryAccount) -> Self {
        let stats = batch.columns().iter().map(|_| OnceLock::new()).collect();
        let signed_nans = batch.columns().iter().map(|_| OnceLock::new()).collect();
        let codes = batch.columns().iter().map(|_| RwLock::default()).collect();
        let in_order = batch.columns().iter().map(|_| OnceLock::new()).collect();
        Self { claim, bare, stats, signed_nans, codes, in_order, account: account.clone(), batch }
    }
}

/// Returns whether times are in ascending order; false for what is no time.
fn is_sorted(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Timestamp(..) => {
            let times = cast(column, &DataType::Int64);
            times.is_ok_and(|times| times.as_primitive::<Int64Type>().values().is_sorted())
        }
        _ => false,
    }
}

/// Returns what a batch costs beside its allocations: a bit for each row that has none, so that rows are never free.
fn bare_bytes(batch: &RecordBatch, claim: &Claim) -> u64 {
    (batch.num_rows() as u64 / 8).saturating_sub(claim.bytes())
}

/// Computes the bounds of a column of a type that queries compare: numbers, times, strings. None where there is no value.
fn column_stats(column: &dyn Array) -> Option<ColumnStats> {
    use DataType::*;
    let ordered = column.data_type().is_primitive() || matches!(column.data_type(), Utf8 | LargeUtf8 | Utf8View);
    if !ordered || matches!(column.data_type(), Interval(_)) || column.null_count() == column.len() {
        return None;
    }
    bounds(column).map(|bounds| ColumnStats { bounds })
}

/// The smallest and the largest value.
fn bounds(column: &dyn Array) -> Option<ArrayRef> {
    macro_rules! primitive {
        ($kind:ty) => {
            return primitive_bounds::<$kind>(column.as_primitive())
        };
    }
    let (min, max) = downcast_primitive! {
        column.data_type() => (primitive),
        DataType::Utf8 => extremes(column.as_string::<i32>().iter())?,
        DataType::LargeUtf8 => extremes(column.as_string::<i64>().iter())?,
        DataType::Utf8View => extremes(column.as_string_view().iter())?,
        _ => return None
    };
    compute::take(column, &UInt32Array::from(vec![min, max]), None).ok()
}

fn primitive_bounds<T: ArrowNumericType>(column: &PrimitiveArray<T>) -> Option<ArrayRef> {
    let ends = [compute::min(column)?, compute::max(column)?];
    let bounds = PrimitiveArray::<T>::from_iter_values(ends).with_data_type(column.data_type().clone());
    Some(Arc::new(bounds))
}

/// Finds the row numbers of the smallest and of the largest string.
fn extremes<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Option<(u32, u32)> {
    let mut there = (0u32..).zip(values).filter_map(|(row, value)| Some((value?, row)));
    let first = there.next()?;
    let (mut min, mut max) = (first, first);
    for found in there {
        if found.0 < min.0 {
            min = found;
        } else if found.0 > max.0 {
            max = found;
        }
    }
    Some((min.1, max.1))
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::segment::column_stats;
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn check(column: ArrayRef, bounds: Option<ArrayRef>) {
        assert_eq!(column_stats(column.as_ref()).map(|stats| stats.bounds), bounds, "{column:?}");
    }

    #[test]
    fn bounds_skip_nulls_and_put_nan_last() {
        check(
            Arc::new(Int64Array::from(vec![None, Some(3), Some(-7), None])),
            Some(Arc::new(Int64Array::from(vec![-7, 3]))),
        );
        check(
            Arc::new(StringArray::from(vec![Some("b"), None, Some("a")])),
            Some(Arc::new(StringArray::from(vec!["a", "b"]))),
        );
        check(Arc::new(Decimal128Array::from(vec![5, 1, 9])), Some(Arc::new(Decimal128Array::from(vec![1, 9]))));
        let stats = column_stats(&Float64Array::from(vec![1.0, f64::NAN, -0.0, 0.0])).unwrap();
        let bounds = stats.bounds.as_any().downcast_ref::<Float64Array>().unwrap();
        assert!(bounds.value(0) == 0.0 && bounds.value(0).is_sign_negative() && bounds.value(1).is_nan());
    }

    #[test]
    fn columns_without_values_or_order_have_none() {
        check(Arc::new(Int64Array::from(vec![None, None])), None);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
        check(Arc::new(lists), None);
    }
}
