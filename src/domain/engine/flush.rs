//! From memory to the disk and out of the journal: one flush at a time.
//!
//! A flush takes the visible state, writes those of its segments that are in memory alone to parts, publishes it as a checkpoint,
//! and trims the journal. Nothing that readers or writers see changes by it and nobody waits for it: a segment learns where it
//! lies, and may leave memory from then on. What it writes is what a crash would have found in the journal, so it may be interrupted
//! anywhere.
//!
//! The journal is kept back to the checkpoint before the newest one, which so can take its place.

use crate::domain::catalog::Snapshot;
use crate::domain::engine::{Inner, time_limit};
use crate::domain::storage::{Columns, PartInUse, Place, Segment};
use crate::ports::{Error, Journal, Limits, Lsn, Result, Store, StoreFile};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes of memory that are written to parts before the next look at who waits.
const PORTION_BYTES: u64 = 256 << 20;

/// Batches of one part at most.
const PORTION_BATCHES: usize = 1_024;

/// Pause between two looks at whether something is to be flushed.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause after a flush that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Time after which parts that nobody reads are worth a checkpoint of their own.
const RELEASE_AFTER: Duration = Duration::from_secs(10);

/// Of so many parts of the memory, how many may be in use before some of it is flushed, and how many have to be in memory alone.
const MEMORY_SHARE: (u64, u64, u64) = (10, 7, 1);

/// Of so many parts of the memory, one is freed at a time.
const EVICTED_SHARE: u64 = 32;

/// Writes what is in memory alone.
#[derive(Debug)]
pub struct Flusher {
    store: Arc<dyn Store>,
    journal: Arc<dyn Journal>,
    limits: Limits,
    last: Mutex<LastFlush>,
    /// Held by whoever flushes.
    flushing: tokio::sync::Mutex<()>,
    /// Somebody waits for memory or disk.
    wanted: Notify,
    /// A portion was written, or the journal was trimmed.
    freed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct LastFlush {
    /// The commit of the newest checkpoint.
    lsn: Option<u64>,
    at: Instant,
    /// Bytes of the journal behind it.
    journal_bytes: u64,
}

impl Flusher {
    /// Makes a flusher to `store`, whose newest checkpoint is of commit `lsn`.
    pub fn new(store: Arc<dyn Store>, journal: Arc<dyn Journal>, limits: &Limits, lsn: Option<Lsn>) -> Self {
        let last = LastFlush { lsn: lsn.map(|lsn| lsn.0), at: Instant::now(), journal_bytes: 0 };
        Self {
            store,
            journal,
            limits: limits.clone(),
            last: Mutex::new(last),
            flushing: tokio::sync::Mutex::default(),
            wanted: Notify::new(),
            freed: Notify::new(),
        }
    }

    /// Returns where it writes to.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn last(&self) -> MutexGuard<'_, LastFlush> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the journal is long, the last flush long ago, or space waits for a checkpoint to be given back.
    fn is_due(&self, version: u64) -> bool {
        let LastFlush { lsn, at, journal_bytes } = *self.last();
        let is_old = time_limit(self.limits.flush_age_ms).is_some_and(|age| at.elapsed() >= age);
        let has_released = at.elapsed() >= RELEASE_AFTER && self.store.released_bytes() > 0;
        let journal = self.journal.state();
        // What is before the newest checkpoint stays until the next one.
        let (limit, grown) = (self.limits.journal_bytes_max, journal.bytes.saturating_sub(journal_bytes));
        let is_long = journal.bytes > limit / 2 && grown > limit / 8;
        // Once the journal has failed nothing is committed any more.
        !journal.is_failed && (has_released || lsn != Some(version) && (is_old || is_long))
    }

    /// Returns the bytes that the data directory takes.
    fn disk_bytes(&self) -> u64 {
        self.store.bytes() + self.journal.state().bytes
    }
}

/// Flushes the tables of an engine when it is time, for as long as there is one.
pub async fn flush_tables(engine: Weak<Inner>) {
    loop {
        let Some(flusher) = engine.upgrade().and_then(|inner| inner.flusher.clone()) else { return };
        let was_asked = tokio::time::timeout(PAUSE, flusher.wanted.notified()).await.is_ok();
        drop(flusher);
        let Some(inner) = engine.upgrade() else { return };
        if !was_asked && !inner.is_flush_due() {
            continue;
        }
        if let Err(error) = inner.flush().await {
            tracing::warn!(%error, "tables could not be flushed to the disk; it is tried again");
            drop(inner);
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Inner {
    fn is_flush_due(&self) -> bool {
        let Some(flusher) = &self.flusher else { return false };
        let (account, snapshot) = (self.allocations.account(), self.catalog.current());
        if flusher.is_due(snapshot.version()) {
            return true;
        }
        let (parts, in_use, alone) = MEMORY_SHARE;
        let share = account.bytes_max() / parts;
        account.used() > share.saturating_mul(in_use) && alone_bytes(&snapshot) > share.saturating_mul(alone)
    }

    /// Writes all rows to the disk and publishes a checkpoint; nothing where tables are kept in memory alone.
    ///
    /// # Errors
    ///
    /// The store's; what was written until then stays.
    pub(in crate::domain::engine) async fn flush(self: &Arc<Self>) -> Result<()> {
        let Some(flusher) = &self.flusher else { return Ok(()) };
        let _one = flusher.flushing.lock().await;
        self.flush_alone(flusher).await.map(|_| ())
    }

    /// Flushes, and returns the store, the files of its newest checkpoint, and the state that keeps them.
    ///
    /// # Errors
    ///
    /// `Unsupported` where tables are kept in memory alone, and the store's.
    pub(in crate::domain::engine) async fn begin_backup(
        self: &Arc<Self>,
    ) -> Result<(Arc<dyn Store>, Vec<StoreFile>, Arc<Snapshot>)> {
        let Some(flusher) = &self.flusher else {
            return Err(Error::unsupported("tables are kept in memory alone here, and there are no files to back up"));
        };
        let _one = flusher.flushing.lock().await;
        let snapshot = self.flush_alone(flusher).await?;
        let store = flusher.store.clone();
        let listing = store.clone();
        let files = tokio::task::spawn_blocking(move || listing.files()).await;
        let files = files.map_err(|error| Error::internal("a backup was interrupted").with_source(error))??;
        Ok((store, files, snapshot))
    }

    /// Flushes, while nobody else does; returns the state that the newest checkpoint has.
    async fn flush_alone(self: &Arc<Self>, flusher: &Arc<Flusher>) -> Result<Arc<Snapshot>> {
        let snapshot = self.catalog.current();
        let before = flusher.last().lsn;
        if before == Some(snapshot.version()) && flusher.store.released_bytes() == 0 {
            return Ok(snapshot);
        }
        let (work, state) = (flusher.clone(), snapshot.clone());
        blocking(move || work.write(&state)).await?;
        let checkpoint = self.catalog.checkpoint(&snapshot);
        let checkpoint = checkpoint.ok_or_else(|| Error::internal("a segment was not flushed"))?;
        let work = flusher.clone();
        blocking(move || {
            work.store.publish(&checkpoint)?;
            // Two states of the same commit have two checkpoints and one place in the journal.
            before.map_or(Ok(()), |before| work.journal.trim(Lsn(before)))
        })
        .await?;
        let journal_bytes = flusher.journal.state().bytes;
        *flusher.last() = LastFlush { lsn: Some(snapshot.version()), at: Instant::now(), journal_bytes };
        flusher.freed.notify_waiters();
        Ok(snapshot)
    }

    /// Has segments leave memory that are on the disk, those first that nobody asked for the longest; false where there are none.
    pub(in crate::domain::engine) fn evict_segments(&self) -> bool {
        let wanted = self.allocations.account().bytes_max() / EVICTED_SHARE;
        self.flusher.is_some() && evict(&self.catalog.current(), wanted) > 0
    }

    /// Waits until memory for so many bytes is free, as long as flushing could free some and nobody loses patience. Whether there is
    /// enough in the end is for the reservation to say.
    pub(in crate::domain::engine) async fn wait_for_memory(&self, bytes: u64) {
        let account = self.allocations.account();
        let is_free = || account.reserve(bytes).is_ok();
        let could_free = || alone_bytes(&self.catalog.current()) > 0;
        if bytes <= account.bytes_max() {
            self.wait_for_flush(is_free, could_free).await;
        }
    }

    /// Waits until the data directory may take so many bytes more.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where it may not.
    pub(in crate::domain::engine) async fn wait_for_disk(&self, bytes: u64) -> Result<()> {
        let Some(flusher) = &self.flusher else { return Ok(()) };
        let Limits { disk_bytes_max, journal_bytes_max, .. } = flusher.limits;
        let left = || match disk_bytes_max {
            0 => u64::MAX,
            most => most.saturating_sub(flusher.disk_bytes()),
        };
        let is_short = || flusher.journal.state().bytes <= journal_bytes_max;
        let could_free = || flusher.last().lsn != Some(self.catalog.current().version());
        self.wait_for_flush(|| is_short() && left() >= bytes, could_free).await;
        if left() >= bytes {
            return Ok(());
        }
        let used = flusher.disk_bytes();
        Err(Error::limit(format!(
            "the data directory has {used} bytes, and {bytes} more would be too many (disk_bytes_max is {disk_bytes_max}); delete rows or drop tables"
        )))
    }

    /// Has the flusher work until `is_done`, it could free nothing, or a client would not wait longer.
    async fn wait_for_flush(&self, is_done: impl Fn() -> bool, could_free: impl Fn() -> bool) {
        let Some(flusher) = &self.flusher else { return };
        let deadline = self.stall_timeout().and_then(|most| Instant::now().checked_add(most));
        loop {
            let freed = flusher.freed.notified();
            if is_done() || !could_free() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            flusher.wanted.notify_one();
            // A disk that is full frees nothing, and says nothing either.
            if tokio::time::timeout(RETRY, freed).await.is_err() && flusher.journal.state().is_failed {
                return;
            }
        }
    }
}

impl Flusher {
    /// Writes all segments of a state that are in memory alone.
    fn write(&self, state: &Snapshot) -> Result<()> {
        for table in state.tables() {
            let alone: Vec<_> = table.segments().iter().filter(|segment| is_alone(segment)).collect();
            for portion in portions(&alone) {
                self.write_portion(table.id().0, portion)?;
                self.freed.notify_waiters();
            }
        }
        Ok(())
    }

    fn write_portion(&self, table: u64, portion: &[&Arc<Segment>]) -> Result<()> {
        let batches = portion.iter().map(|segment| segment.physical_batch()).collect::<Result<Vec<_>>>()?;
        let parts = self.store.write(table, &batches)?;
        let parts = parts.into_iter().map(|part| PartInUse::new(part, self.store.clone()));
        let places = parts.flat_map(|part| (0..part.part.batches).map(move |batch| (part.clone(), batch)));
        for (segment, (part, batch)) in portion.iter().zip(places) {
            let columns = u32::try_from(segment.columns().schema().fields().len()).unwrap_or(u32::MAX);
            segment.columns().set_place(Place { part, batch, sources: (0..columns).map(Some).collect() });
        }
        Ok(())
    }
}

fn is_alone(segment: &Segment) -> bool {
    segment.columns().place().is_none()
}

fn alone_bytes(state: &Snapshot) -> u64 {
    let segments = state.tables().flat_map(|table| table.segments());
    segments.filter(|segment| is_alone(segment)).map(|segment| segment.bytes()).sum()
}

/// Divides segments into runs of about as many bytes as are written at once.
fn portions<'a, 'b>(segments: &'a [&'b Arc<Segment>]) -> impl Iterator<Item = &'a [&'b Arc<Segment>]> {
    let mut rest = segments;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |segment: &&&Arc<Segment>| {
            let is_first = bytes == 0;
            bytes += segment.bytes().max(1);
            is_first || bytes <= PORTION_BYTES
        };
        let count = rest.iter().take(PORTION_BATCHES).take_while(fits).count();
        let (portion, others) = rest.split_at(count);
        rest = others;
        (count > 0).then_some(portion)
    })
}

/// Has segments leave memory until `wanted` bytes are free; returns how many are.
fn evict(state: &Snapshot, wanted: u64) -> u64 {
    let columns = state.tables().flat_map(|table| table.segments()).map(|segment| segment.columns());
    let mut evictable: Vec<(u64, &Arc<Columns>)> =
        columns.filter_map(|columns| Some((columns.evictable()?, columns))).collect();
    evictable.sort_unstable_by_key(|(used, _)| *used);
    let mut freed = 0;
    for (_, columns) in evictable {
        if freed >= wanted {
            break;
        }
        freed += columns.evict();
    }
    freed
}

async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal("a flush was interrupted").with_source(error)))
}

/// Has everything leave memory that can: for tests, and for who wants to know what a cold table costs.
pub fn evict_all(inner: &Inner) -> u64 {
    evict(&inner.catalog.current(), u64::MAX)
}
