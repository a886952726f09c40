//! The catalogue: which tables there are and their present states, behind one atomic pointer.
//!
//! A [`Snapshot`] is one state of everything and never changes; readers take it without waiting. A [`Commit`] is checked
//! against the latest state and applied under a lock that is held for that alone, and becomes visible by one swap once the
//! journal has it, so two tables are never seen at different times.

mod commit;
mod commits;
mod names;
mod pins;
mod replay;
mod snapshot;

pub use commit::{Change, Commit, Rejection, TableRef};
pub use names::{closest, resolve_name};
pub use snapshot::Snapshot;

use crate::domain::catalog::commits::Commits;
use crate::domain::catalog::pins::Pins;
use crate::domain::catalog::replay::{Replayed, replay};
use crate::domain::storage::{Allocations, Table, TableId};
use crate::ports::{Checkpoint, Clock, Durability, Journal, Limits, Lsn, Result, SnapshotId, Store, WriterState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// The present state of all tables, and the pinned ones.
#[derive(Debug)]
pub struct Catalog {
    commits: Commits,
    pins: Pins,
    allocations: Allocations,
    next_table_id: AtomicU64,
    recovery: Recovery,
}

/// What a catalogue began with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recovery {
    /// The commit of the checkpoint.
    pub checkpoint: Option<Lsn>,
    /// How many commits of the journal came after it.
    pub commits: u64,
    /// The last commit.
    pub lsn: Lsn,
    /// How long reading them took.
    pub took_ms: u64,
}

/// What a catalogue stands on.
#[derive(Debug, Clone)]
pub struct Foundation {
    /// Where commits are taken down.
    pub journal: Arc<dyn Journal>,
    /// Where rows go that leave memory; none where tables are kept in memory alone.
    pub store: Option<Arc<dyn Store>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Catalog {
    /// Makes a catalogue of what the store's newest checkpoint has and the journal after it, which takes as long as reading that.
    ///
    /// # Errors
    ///
    /// The store's and the journal's. What was stored under a limit comes back whatever the limit is.
    pub fn open(limits: &Limits, allocations: Allocations, foundation: Foundation) -> Result<Self> {
        let Foundation { journal, store, clock } = foundation;
        let begun = Instant::now();
        let replayed = replay(journal.as_ref(), store.as_ref(), &allocations)?;
        let Replayed { next_table_id, began_with, commits, .. } = replayed;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            recovery: Recovery { checkpoint: began_with, commits, lsn: Lsn(replayed.state.version()), took_ms },
            commits: Commits::new(replayed, journal, clock, limits),
            pins: Pins::new(limits),
            allocations,
            next_table_id: AtomicU64::new(next_table_id),
        })
    }

    /// Returns the present state.
    pub fn current(&self) -> Arc<Snapshot> {
        self.commits.current()
    }

    /// Returns a state as a checkpoint; none where rows of it are in memory alone.
    pub fn checkpoint(&self, state: &Snapshot) -> Option<Checkpoint> {
        let next_table_id = self.next_table_id.load(Ordering::Relaxed);
        let tables = state.tables().map(|table| table.to_stored()).collect::<Option<_>>()?;
        Some(Checkpoint { lsn: Lsn(state.version()), time_us: self.commits.time_us(), next_table_id, tables })
    }

    /// Returns what this catalogue began with.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Returns an id for a table that is about to be made.
    pub fn next_table_id(&self) -> TableId {
        TableId(self.next_table_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Applies a commit, and returns once all of its changes are visible, at one instant, and as durable as they have to be. A
    /// commit without changes is none. A caller that does not wait for the end does not undo anything.
    ///
    /// # Errors
    ///
    /// The first change's rejection, `LimitExceeded` for one table too many, and the journal's errors; nothing has changed then, but
    /// where it is `Unavailable`.
    pub async fn commit(&self, commit: Commit, durability: Durability) -> Result<(), Rejection> {
        self.commits.commit(commit, durability, &self.allocations).await
    }

    /// Returns how far a writer of a table has come, as everybody sees it; none where it is not known.
    pub fn writer(&self, table: &Table, writer: &str) -> Option<WriterState> {
        self.commits.writer(table, writer)
    }

    /// Returns a watch on the version of the last commit, for what follows the state: versions in between may be missed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.commits.watch()
    }

    /// Pins the present state. Pinning an unchanged state again is the same pin.
    pub fn pin(&self) -> SnapshotId {
        self.pins.pin(self.current())
    }

    /// Returns a pinned state, which is kept for its full time again.
    ///
    /// # Errors
    ///
    /// `NotFound` where it has expired.
    pub fn pinned(&self, id: SnapshotId) -> Result<Arc<Snapshot>> {
        self.pins.get(id)
    }

    /// Gives up the pin of a past state that was not used for longest, and with it what only that held; false where there
    /// is none.
    pub fn evict_pin(&self) -> bool {
        self.pins.evict_one(self.current().version())
    }

    /// Gives up the codes of the first table that has some, which can be made again; false where there is none.
    pub fn forget_codes(&self) -> bool {
        self.current().tables().any(|table| table.forget_codes())
    }

    /// Drops the pins whose time is over.
    pub fn expire_pins(&self) {
        self.pins.expire();
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::catalog::{Catalog, Change, Commit, Foundation, Rejection, TableRef};
    use crate::domain::storage::{Allocations, Segment, Table};
    use crate::ports::{
        Clock, Durability, Effect, Entry, Error, ErrorKind, Journal, JournalState, Limits, Lsn, MemoryAccount, OnDone,
        Recorded, Result,
    };
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::Schema;
    use std::sync::{Arc, Mutex};

    /// A journal that decides when it is told to, or at once.
    #[derive(Debug, Default)]
    struct Scripted {
        waits: bool,
        waiting: Mutex<Vec<Waiting>>,
    }

    struct Waiting(Entry, OnDone);

    impl std::fmt::Debug for Waiting {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Scripted {
        /// Decides about the entries that came until now, and returns their numbers.
        fn decide(&self, mut result: impl FnMut(Lsn) -> Result<()>) -> Vec<u64> {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
            let decide = |Waiting(entry, on_done)| {
                on_done(result(entry.lsn));
                entry.lsn.0
            };
            waiting.into_iter().map(decide).collect()
        }
    }

    impl Journal for Scripted {
        fn recorded(&self, _: Option<Lsn>) -> Result<Recorded> {
            Ok(Recorded { before: Lsn(1), entries: Box::new(std::iter::empty()) })
        }

        fn append(&self, entry: Entry, on_done: OnDone) {
            self.waiting.lock().unwrap().push(Waiting(entry, on_done));
            if !self.waits {
                self.decide(|_| Ok(()));
            }
        }

        fn trim(&self, _: Lsn) -> Result<()> {
            Ok(())
        }

        fn state(&self) -> JournalState {
            JournalState::default()
        }
    }

    #[derive(Debug)]
    struct Noon;

    impl Clock for Noon {
        fn now_ns(&self) -> i64 {
            43_200_000_000_000
        }
    }

    fn catalog_on(limits: &Limits, journal: Arc<Scripted>) -> Catalog {
        let foundation = Foundation { journal, store: None, clock: Arc::new(Noon) };
        Catalog::open(limits, Allocations::new(MemoryAccount::default()), foundation).unwrap()
    }

    fn catalog(limits: Limits) -> Catalog {
        catalog_on(&limits, Arc::default())
    }

    async fn commit(catalog: &Catalog, change: Change) -> Result<(), Rejection> {
        catalog.commit(Commit::of(change), Durability::Fsync).await
    }

    async fn create(catalog: &Catalog, name: &str, or_replace: bool) -> Result<TableRef, Rejection> {
        let table = Table::new(catalog.next_table_id(), name, Arc::new(Schema::empty()), Vec::new());
        let reference = TableRef::of(&table);
        commit(catalog, Change::Create { table: Arc::new(table), or_replace }).await?;
        Ok(reference)
    }

    #[tokio::test]
    async fn pins_are_shared_bounded_and_expire() {
        let catalog = catalog(Limits { snapshots_max: 2, ticket_ttl_ms: 50, ..Limits::default() });
        let empty = catalog.pin();
        assert_eq!(catalog.pin(), empty);
        create(&catalog, "a", false).await.unwrap();
        let one = catalog.pin();
        assert_ne!(one, empty);
        assert_eq!(catalog.pinned(empty).unwrap().len(), 0);
        create(&catalog, "b", false).await.unwrap();
        let two = catalog.pin();
        assert_eq!(
            catalog.pinned(one).unwrap_err().kind(),
            ErrorKind::NotFound,
            "the one that was used before the others"
        );
        assert_eq!(catalog.pinned(empty).unwrap().len(), 0);
        assert_eq!(catalog.pinned(two).unwrap().len(), 2);
        assert!(catalog.evict_pin() && !catalog.evict_pin(), "the present state's pin stays");
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert_eq!(catalog.pinned(two).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_rejected_commit_changes_nothing() {
        let catalog = catalog(Limits { tables_max: 2, ..Limits::default() });
        let mut commits = catalog.watch();
        let a = create(&catalog, "a", false).await.unwrap();
        assert!(commits.has_changed().unwrap());
        commits.mark_unchanged();
        assert!(matches!(create(&catalog, "a", false).await, Err(Rejection::Exists(_))));
        let other = create(&catalog, "a", true).await.unwrap();
        commits.mark_unchanged();
        assert_ne!(a.id, other.id);
        let column = Int64Array::from_iter_values(0..3);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap();
        let segment = Segment::try_new(batch.clone(), &catalog.allocations).unwrap();
        let append = |table: &TableRef| Change::Append {
            table: table.clone(),
            schema: batch.schema(),
            segments: vec![segment.clone()],
        };
        // The first change would pass alone.
        let changes = vec![Change::Drop { table: other.clone() }, append(&a)];
        let drop_and_append = Commit { changes, lock: None };
        assert!(matches!(catalog.commit(drop_and_append, Durability::Fsync).await, Err(Rejection::Gone(_))));
        assert!(matches!(commit(&catalog, append(&other)).await, Err(Rejection::Reshaped(_))));
        create(&catalog, "b", false).await.unwrap();
        let error = Error::from(create(&catalog, "c", false).await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert_eq!(catalog.current().len(), 2);
        catalog.commit(Commit::default(), Durability::Fsync).await.unwrap();
        assert_eq!(*commits.borrow_and_update(), catalog.current().version());
    }

    /// Polls a future until it waits.
    macro_rules! begin {
        ($name:ident, $future:expr) => {
            let mut $name = Box::pin($future);
            assert!(futures::poll!(&mut $name).is_pending());
        };
    }

    #[tokio::test]
    async fn commits_are_visible_when_the_journal_has_them_and_in_its_order() {
        let journal = Arc::new(Scripted { waits: true, ..Scripted::default() });
        let catalog = catalog_on(&Limits::default(), journal.clone());
        begin!(a, create(&catalog, "a", false));
        begin!(b, create(&catalog, "b", false));
        // Nobody sees it, and there is no second one of the name all the same.
        begin!(again, create(&catalog, "a", false));
        assert_eq!(catalog.current().len(), 0);
        assert!(futures::poll!(&mut again).is_pending(), "what it was rejected for may still be refused");
        // Whoever committed may be gone by then.
        drop(b);
        assert_eq!(journal.decide(|_| Ok(())), [2, 3]);
        assert!(matches!(again.await, Err(Rejection::Exists(_))));
        let a = a.await.unwrap();
        assert_eq!((catalog.current().len(), catalog.current().version()), (2, 3));
        begin!(drop_a, commit(&catalog, Change::Drop { table: a }));
        let entries = format!("{:?}", journal.waiting);
        assert!(entries.contains(&format!("{:?}", Effect::Drop { table: 1 })) && entries.contains("43200000000"));
        journal.decide(|_| Ok(()));
        drop_a.await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_commit_takes_those_after_it_along() {
        let journal = Arc::new(Scripted { waits: true, ..Scripted::default() });
        let catalog = catalog_on(&Limits::default(), journal.clone());
        begin!(a, create(&catalog, "a", false));
        begin!(b, create(&catalog, "b", false));
        begin!(c, create(&catalog, "c", false));
        let full = |lsn: Lsn| if lsn.0 < 3 { Ok(()) } else { Err(Error::limit("the disk is full")) };
        let last = std::mem::take(&mut *journal.waiting.lock().unwrap());
        let mut last = last.into_iter();
        for Waiting(entry, on_done) in last.by_ref().take(2) {
            on_done(full(entry.lsn));
        }
        a.await.unwrap();
        assert_eq!(Error::from(b.await.unwrap_err()).kind(), ErrorKind::LimitExceeded);
        // Its number is given again, before the journal has spoken about what came after it.
        begin!(d, create(&catalog, "d", false));
        last.for_each(|Waiting(entry, on_done)| on_done(full(entry.lsn)));
        assert!(c.await.is_err());
        assert_eq!(journal.decide(|_| Ok(())), [3]);
        d.await.unwrap();
        let names: Vec<_> = catalog.current().tables().map(|table| table.name().to_string()).collect();
        assert_eq!((names, catalog.current().version()), (vec!["a".to_owned(), "d".to_owned()], 3));
    }
}
