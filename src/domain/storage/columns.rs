//! The columns of a segment: in memory, in a part on the disk, or both.
//!
//! Columns never change once made, so where they are makes no difference to anybody but in time: what was written to a part may
//! leave memory, and is read again, column by column, for who asks. What was read stays in memory where much of that is free.
//! Everybody who holds a column holds the memory that is counted for it.

use crate::domain::storage::allocations::{Allocations, Claim, held_bytes};
use crate::domain::storage::column_facts::KnownFacts;
use crate::domain::storage::place::Place;
use crate::domain::storage::symbols::SegmentCodes;
use crate::ports::{ColumnFacts, Error, Reservation, Result};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Of so many parts of the account's memory, that many may be in use for what is read to stay.
const KEPT_SHARE: (u64, u64) = (10, 6);

/// How long to wait for memory for what was read.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// Pause between two attempts.
const MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// The columns of a segment, shared by all its states.
#[derive(Debug)]
pub struct Columns {
    schema: SchemaRef,
    rows: usize,
    /// For each column what holds it in memory, and its place in there.
    held: RwLock<Vec<Slot>>,
    place: OnceLock<Place>,
    facts: Vec<KnownFacts>,
    /// Of each column, where there are some.
    pub codes: Vec<RwLock<Option<Arc<SegmentCodes>>>>,
    /// When it was asked for last, by a clock that counts.
    used: AtomicU64,
    /// Bytes that it added to what there was.
    added_bytes: u64,
    allocations: Allocations,
}

/// What holds a column in memory, and its place in there.
type Slot = Option<(Arc<Held>, usize)>;

/// Columns in memory that came together.
#[derive(Debug)]
struct Held {
    // Before the batch, and so dropped before it: `allocations.rs` says why.
    claim: Claim,
    /// For rows without allocations, such as those of a column of nulls: counted all the same.
    bare: Reservation,
    batch: RecordBatch,
}

/// Columns of a segment in memory, for as long as this is held.
#[derive(Debug)]
pub struct LoadedColumns {
    /// By their positions in the table; none where they were not asked for.
    columns: Vec<Option<ArrayRef>>,
    held: Vec<Arc<Held>>,
    _memory: Option<Reservation>,
}

impl LoadedColumns {
    /// Returns a column that was asked for; none for any other.
    pub fn get(&self, index: usize) -> Option<&ArrayRef> {
        self.columns.get(index)?.as_ref()
    }
}

fn now() -> u64 {
    static CLOCK: AtomicU64 = AtomicU64::new(1);
    CLOCK.fetch_add(1, Ordering::Relaxed)
}

impl Columns {
    /// Makes the columns of new rows.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for what they do not share with others is not free.
    pub fn try_new(batch: RecordBatch, allocations: &Allocations) -> Result<Self> {
        let claim = allocations.claim(&batch)?;
        let bare = allocations.reserve(bare_bytes(&batch, &claim))?;
        Ok(Self::of_held(Held { claim, bare, batch }, allocations))
    }

    /// Makes columns that take the place of others, which give back their memory soon: never refused.
    pub fn over_limit(batch: RecordBatch, allocations: &Allocations) -> Self {
        let claim = allocations.claim_over_limit(&batch);
        let bare = allocations.account().reserve_over_limit(bare_bytes(&batch, &claim));
        Self::of_held(Held { claim, bare, batch }, allocations)
    }

    fn of_held(held: Held, allocations: &Allocations) -> Self {
        let (schema, rows) = (held.batch.schema(), held.batch.num_rows());
        let added_bytes = held.claim.added_bytes() + held.bare.bytes();
        let held = Arc::new(held);
        let slots = (0..schema.fields().len()).map(|at| Some((held.clone(), at))).collect();
        Self { added_bytes, ..Self::new(schema, rows, slots, Vec::new(), allocations) }
    }

    /// Makes the columns of rows that lie in a part.
    pub fn stored(
        schema: SchemaRef,
        rows: usize,
        place: Place,
        facts: &[ColumnFacts],
        allocations: &Allocations,
    ) -> Self {
        let slots = schema.fields().iter().map(|_| None).collect();
        let facts = facts.iter().map(KnownFacts::of).collect();
        Self { place: OnceLock::from(place), ..Self::new(schema, rows, slots, facts, allocations) }
    }

    fn new(
        schema: SchemaRef,
        rows: usize,
        held: Vec<Slot>,
        mut facts: Vec<KnownFacts>,
        allocations: &Allocations,
    ) -> Self {
        facts.resize_with(schema.fields().len(), KnownFacts::default);
        Self {
            codes: schema.fields().iter().map(|_| RwLock::default()).collect(),
            schema,
            rows,
            held: RwLock::new(held),
            place: OnceLock::new(),
            facts,
            used: AtomicU64::new(now()),
            added_bytes: 0,
            allocations: allocations.clone(),
        }
    }

    /// Makes columns of the same rows that lie in a part: each that of `sources`, or one of nulls. None where these do not.
    pub fn reshaped(&self, schema: &SchemaRef, sources: &[Option<usize>]) -> Option<Self> {
        let place = self.place.get()?;
        let slots = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            sources.iter().map(|source| held.get((*source)?)?.clone()).collect()
        };
        let of_part = |source: &Option<usize>| *place.sources.get((*source)?)?;
        let facts = |source: &Option<usize>| match source {
            Some(before) => KnownFacts::of(&self.facts(*before)),
            None => KnownFacts::of(&ColumnFacts {
                bounds: None,
                null_count: self.rows,
                has_signed_nan: false,
                is_in_order: false,
            }),
        };
        let place = Place { sources: sources.iter().map(of_part).collect(), ..place.clone() };
        let facts = sources.iter().map(facts).collect();
        let made = Self::new(schema.clone(), self.rows, slots, facts, &self.allocations);
        Some(Self { place: OnceLock::from(place), ..made })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the columns' names and types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns where memory is counted.
    pub fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// Returns the bytes that it added to what there was when it was made.
    pub fn added_bytes(&self) -> u64 {
        self.added_bytes
    }

    /// Returns the memory that it keeps alive, in bytes; what it shares with others is in it.
    pub fn bytes(&self) -> u64 {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let (mut seen, mut bytes) = (Vec::new(), 0);
        for (held, _) in held.iter().flatten() {
            if !seen.contains(&Arc::as_ptr(held)) {
                seen.push(Arc::as_ptr(held));
                bytes += held.claim.bytes() + held.bare.bytes();
            }
        }
        bytes
    }

    /// Returns about how many bytes its values have, in memory or on the disk.
    pub fn data_bytes(&self) -> u64 {
        let on_disk = self.place.get().map_or(0, |place| {
            let part = place.part.part;
            part.bytes / u64::from(part.batches.max(1))
        });
        self.bytes().max(on_disk)
    }

    /// Returns column `index`, which is read where it is not in memory.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn column(&self, index: usize) -> Result<ArrayRef> {
        let loaded = self.load(&[index])?;
        loaded.get(index).cloned().ok_or_else(|| Error::internal(format!("a segment has no column {index}")))
    }

    /// Returns all columns.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn batch(&self) -> Result<RecordBatch> {
        let all: Vec<_> = (0..self.schema.fields().len()).collect();
        let columns = self.load(&all)?.columns.into_iter().flatten().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::internal("a segment's columns do not fit its schema").with_source(error))
    }

    /// Returns whether those columns are in memory; one that there is not is.
    pub fn are_in_memory(&self, wanted: &[usize]) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().all(|index| held.get(*index).is_none_or(Option::is_some))
    }

    /// Returns columns, which are read where they are not in memory; those that there are not are left out.
    ///
    /// # Errors
    ///
    /// Those of the store, and `LimitExceeded` where there is no memory for them.
    pub fn load(&self, wanted: &[usize]) -> Result<LoadedColumns> {
        self.used.store(now(), Ordering::Relaxed);
        let mut loaded =
            LoadedColumns { columns: vec![None; self.schema.fields().len()], held: Vec::new(), _memory: None };
        let mut missing = Vec::new();
        {
            let slots = self.held.read().unwrap_or_else(PoisonError::into_inner);
            for index in wanted.iter().copied().filter(|index| *index < slots.len()) {
                match &slots[index] {
                    Some((held, at)) => {
                        loaded.columns[index] = Some(held.batch.column(*at).clone());
                        if !loaded.held.iter().any(|known| Arc::ptr_eq(known, held)) {
                            loaded.held.push(held.clone());
                        }
                    }
                    None => missing.push(index),
                }
            }
        }
        if !missing.is_empty() {
            self.read(&missing, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn read(&self, missing: &[usize], loaded: &mut LoadedColumns) -> Result<()> {
        let place =
            self.place.get().ok_or_else(|| Error::internal("a segment is neither in memory nor on the disk"))?;
        let sources: Vec<u32> =
            missing.iter().filter_map(|index| place.sources.get(*index).copied().flatten()).collect();
        let mut read = match sources.is_empty() {
            true => Vec::new(),
            false => place.part.read(place.batch, &sources)?,
        }
        .into_iter();
        let mut bytes = 0;
        for index in missing {
            let array = match place.sources.get(*index).copied().flatten() {
                Some(_) => read.next().ok_or_else(|| Error::internal("the store gave too few columns"))?,
                None => new_null_array(self.schema.field(*index).data_type(), self.rows),
            };
            loaded.columns[*index] = Some(array.clone());
            match self.keep(*index, array)? {
                Kept::Held(held) => loaded.held.push(held),
                Kept::No(not_kept) => bytes += not_kept,
            }
        }
        loaded._memory = Some(self.reserve(bytes)?);
        Ok(())
    }

    /// Reserves memory for what was read. Where there is none, what is flushed meanwhile gives some.
    fn reserve(&self, bytes: u64) -> Result<Reservation> {
        let begun = Instant::now();
        loop {
            match self.allocations.reserve(bytes) {
                Err(_) if begun.elapsed() < MEMORY_WAIT && bytes <= self.allocations.account().bytes_max() => {
                    std::thread::sleep(MEMORY_PAUSE);
                }
                reserved => return reserved,
            }
        }
    }

    /// Keeps a column that was read, where much memory is free; says else what it takes.
    fn keep(&self, index: usize, array: ArrayRef) -> Result<Kept> {
        let schema = Arc::new(Schema::new(vec![self.schema.field(index).clone()]));
        let batch = RecordBatch::try_new(schema, vec![array])
            .map_err(|error| Error::internal("a column on the disk is not that of the table").with_source(error))?;
        let (bytes, account) = (held_bytes(&batch), self.allocations.account());
        let most = (account.bytes_max() / KEPT_SHARE.0).saturating_mul(KEPT_SHARE.1);
        if account.used().saturating_add(bytes) > most {
            return Ok(Kept::No(bytes));
        }
        let claim = self.allocations.claim_over_limit(&batch);
        let bare = account.reserve_over_limit(bare_bytes(&batch, &claim));
        let held = Arc::new(Held { claim, bare, batch });
        self.held.write().unwrap_or_else(PoisonError::into_inner)[index] = Some((held.clone(), 0));
        Ok(Kept::Held(held))
    }

    /// Returns what is known of column `index`.
    pub fn known(&self, index: usize) -> Option<&KnownFacts> {
        self.facts.get(index)
    }

    /// Finds out all that is kept of column `index` without its values.
    pub fn facts(&self, index: usize) -> ColumnFacts {
        self.facts[index].all(|| self.column(index).ok())
    }

    /// Returns where it lies on the disk, if it does.
    pub fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// Says where it lies on the disk; it may leave memory from now on.
    pub fn set_place(&self, place: Place) {
        for index in 0..self.facts.len() {
            self.facts(index);
        }
        // A second place would be as good.
        let _ = self.place.set(place);
    }

    /// Returns when it was asked for last, where it could leave memory: nobody reads it, and it is on the disk.
    pub fn evictable(&self) -> Option<u64> {
        self.place.get()?;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.iter().any(Option::is_some).then(|| self.used.load(Ordering::Relaxed))
    }

    /// Leaves memory, unless it is nowhere else or somebody reads it; returns how many bytes it held.
    pub fn evict(&self) -> u64 {
        if self.place.get().is_none() {
            return 0;
        }
        let mut slots = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut uses: Vec<(&Arc<Held>, usize)> = Vec::new();
        for (held, _) in slots.iter().flatten() {
            match uses.iter_mut().find(|(known, _)| Arc::ptr_eq(known, held)) {
                Some((_, count)) => *count += 1,
                None => uses.push((held, 1)),
            }
        }
        if uses.iter().any(|(held, count)| Arc::strong_count(held) > *count) {
            return 0;
        }
        let bytes = uses.iter().map(|(held, _)| held.claim.bytes() + held.bare.bytes()).sum();
        let empty = slots.iter().map(|_| None).collect();
        let evicted = std::mem::replace(&mut *slots, empty);
        // Without the lock: whoever frees memory is waited for by nobody.
        drop(slots);
        drop(evicted);
        bytes
    }
}

enum Kept {
    Held(Arc<Held>),
    No(u64),
}

/// Returns what a batch costs beside its allocations: a bit for each row that has none, so that rows are never free.
fn bare_bytes(batch: &RecordBatch, claim: &Claim) -> u64 {
    (batch.num_rows() as u64 / 8).saturating_sub(claim.bytes())
}
