//! The catalogue: which tables there are and their present states, behind one atomic pointer.
//!
//! A [`Snapshot`] is one state of everything and never changes; readers take it without waiting. A [`Commit`] is checked
//! against the present state and applied under a lock that is held for that alone, so publishing is one swap and two
//! tables are never seen at different times.

mod commit;
mod names;
mod pins;
mod snapshot;

pub use commit::{Change, Commit, Rejection, TableRef};
pub use names::{closest, resolve_name};
pub use snapshot::Snapshot;

use crate::domain::catalog::pins::Pins;
use crate::domain::storage::{Allocations, TableId};
use crate::ports::{Error, Limits, Result, SnapshotId};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The present state of all tables, and the pinned ones.
#[derive(Debug)]
pub struct Catalog {
    current: ArcSwap<Snapshot>,
    /// Held while a commit is checked and applied: it is what orders commits.
    committing: Mutex<()>,
    /// The version of the last commit.
    committed: watch::Sender<u64>,
    pins: Pins,
    allocations: Allocations,
    tables_max: usize,
    next_table_id: AtomicU64,
}

impl Catalog {
    /// Makes a catalogue without tables, whose states count up from `first_version`: another number each time, so that a
    /// snapshot's id means nothing to the next engine.
    pub fn new(limits: &Limits, allocations: Allocations, first_version: u64) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::empty(first_version)),
            committing: Mutex::default(),
            committed: watch::Sender::new(first_version),
            pins: Pins::new(limits),
            allocations,
            tables_max: usize::try_from(limits.tables_max).unwrap_or(usize::MAX),
            next_table_id: AtomicU64::new(1),
        }
    }

    /// Returns the present state.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Returns an id for a table that is about to be made.
    pub fn next_table_id(&self) -> TableId {
        TableId(self.next_table_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Applies a commit: all of its changes become visible at one instant. A commit without changes is none.
    ///
    /// # Errors
    ///
    /// The first change's rejection, and `LimitExceeded` for one table too many; nothing has changed then.
    pub fn commit(&self, commit: Commit) -> Result<(), Rejection> {
        if commit.changes.is_empty() {
            return Ok(());
        }
        let committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let mut next = before.next();
        for change in commit.changes {
            change.apply(&mut next, &self.allocations)?;
        }
        if next.len() > self.tables_max && next.len() > before.len() {
            return Err(Error::limit(format!("there are {} tables already (tables_max)", self.tables_max)).into());
        }
        let version = next.version();
        let replaced = self.current.swap(Arc::new(next));
        self.committed.send_replace(version);
        // The last holder of a large table takes a while to free it: not under the lock.
        drop(committing);
        drop((before, replaced));
        Ok(())
    }

    /// Returns a watch on the version of the last commit, for what follows the state: versions in between may be missed.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
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
    use crate::domain::catalog::{Catalog, Change, Commit, Rejection, TableRef};
    use crate::domain::storage::{Allocations, Segment, Table};
    use crate::ports::{Error, ErrorKind, Limits, MemoryAccount};
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    fn catalog(limits: Limits) -> Catalog {
        Catalog::new(&limits, Allocations::new(MemoryAccount::default()), 1)
    }

    fn create(catalog: &Catalog, name: &str, or_replace: bool) -> Result<TableRef, Rejection> {
        let table = Table::new(catalog.next_table_id(), name, Arc::new(Schema::empty()), Vec::new());
        let reference = TableRef::of(&table);
        catalog.commit(Commit::of(Change::Create { table: Arc::new(table), or_replace }))?;
        Ok(reference)
    }

    #[test]
    fn pins_are_shared_bounded_and_expire() {
        let catalog = catalog(Limits { snapshots_max: 2, ticket_ttl_ms: 50, ..Limits::default() });
        let empty = catalog.pin();
        assert_eq!(catalog.pin(), empty);
        create(&catalog, "a", false).unwrap();
        let one = catalog.pin();
        assert_ne!(one, empty);
        assert_eq!(catalog.pinned(empty).unwrap().len(), 0);
        create(&catalog, "b", false).unwrap();
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

    #[test]
    fn a_rejected_commit_changes_nothing() {
        let catalog = catalog(Limits { tables_max: 2, ..Limits::default() });
        let mut commits = catalog.commits();
        let a = create(&catalog, "a", false).unwrap();
        assert!(commits.has_changed().unwrap());
        commits.mark_unchanged();
        assert!(matches!(create(&catalog, "a", false), Err(Rejection::Exists(_))));
        let other = create(&catalog, "a", true).unwrap();
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
        let drop_and_append = Commit { changes: vec![Change::Drop { table: other.clone() }, append(&a)] };
        assert!(matches!(catalog.commit(drop_and_append), Err(Rejection::Gone(_))));
        assert!(matches!(catalog.commit(Commit::of(append(&other))), Err(Rejection::Reshaped(_))));
        create(&catalog, "b", false).unwrap();
        let error = Error::from(create(&catalog, "c", false).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert_eq!(catalog.current().len(), 2);
        catalog.commit(Commit::default()).unwrap();
        assert_eq!(*commits.borrow_and_update(), catalog.current().version());
    }
}
