//! The change lock of a table: whatever rewrites segments waits here for its turn.
//!
//! Appends do not: they only add segments behind those that a change began with.

use crate::domain::catalog::{Change, Commit, Snapshot, TableRef};
use crate::domain::engine::Inner;
use crate::domain::sql::Name;
use crate::domain::storage::Table;
use crate::ports::{Error, ErrorKind, Query, Result};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// A table that nobody else rewrites for now.
pub struct LockedTable {
    /// The state of everything from which the change starts.
    pub snapshot: Arc<Snapshot>,
    /// The table's state in that snapshot.
    pub base: Arc<Table>,
    lock: Arc<OwnedMutexGuard<()>>,
}

impl LockedTable {
    /// Refers to the table.
    pub fn reference(&self) -> TableRef {
        TableRef::of(&self.base)
    }

    /// Makes a commit of one change, which keeps the table locked until it is decided.
    pub fn commit_of(&self, change: Change) -> Commit {
        Commit::of(change).holding(self.lock.clone())
    }
}

impl Inner {
    /// Waits until nobody else rewrites a table, no longer than a query may take.
    ///
    /// # Errors
    ///
    /// `NotFound` for no such table, `Timeout` where others took all of the time.
    pub(super) async fn lock_table(&self, table: &Name, query: &Query) -> Result<LockedTable> {
        match self.time_limit(query) {
            None => self.lock_table_unlimited(table).await,
            Some(deadline) => {
                let locked = self.lock_table_unlimited(table);
                tokio::time::timeout_at(deadline.into(), locked).await.unwrap_or_else(|_| {
                    let message =
                        format!("other changes of table {:?} took all the time that this one had", table.text);
                    Err(Error::new(ErrorKind::Timeout, message))
                })
            }
        }
    }

    async fn lock_table_unlimited(&self, table: &Name) -> Result<LockedTable> {
        loop {
            let lock = self.table(&self.catalog.current(), table)?.change_lock();
            let guard = lock.clone().lock_owned().await;
            let snapshot = self.catalog.current();
            let base = self.table(&snapshot, table)?;
            // Where the table was replaced meanwhile, the lock that was waited for is another table's.
            if Arc::ptr_eq(&lock, &base.change_lock()) {
                return Ok(LockedTable { snapshot, base, lock: Arc::new(guard) });
            }
        }
    }
}
