//! Compaction in the background: one task follows the commits, and each table that has something to compact gets a task of
//! its own, one at a time.

use crate::domain::catalog::{Change, Commit, Rejection, TableRef};
use crate::domain::engine::Inner;
use crate::domain::storage::{Segment, SegmentId, Table, TableId, compact, compactable_run};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard};

/// Pause between two looks at the tables: many small commits are looked at together.
const PAUSE: Duration = Duration::from_millis(20);

/// The tables that are being compacted.
#[derive(Debug, Default)]
struct Running {
    tables: Mutex<HashSet<TableId>>,
    /// A table's task has ended: what was committed while it ran may be worth another.
    ended: Notify,
    /// The first and last segments of runs that cannot be put together: trying costs a copy each time.
    apart: Mutex<HashSet<(SegmentId, SegmentId)>>,
}

/// Most runs that are remembered as not to be put together.
const APART_MAX: usize = 10_000;

impl Running {
    fn is_apart(&self, run: &[Arc<Segment>]) -> bool {
        ends(run).is_some_and(|ends| self.apart().contains(&ends))
    }

    fn keep_apart(&self, run: &[Arc<Segment>]) {
        let mut apart = self.apart();
        if apart.len() >= APART_MAX {
            apart.clear();
        }
        apart.extend(ends(run));
    }

    fn apart(&self) -> MutexGuard<'_, HashSet<(SegmentId, SegmentId)>> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ends(run: &[Arc<Segment>]) -> Option<(SegmentId, SegmentId)> {
    Some((run.first()?.id(), run.last()?.id()))
}

/// A table that is being compacted, until this is dropped: a task that panics must not leave it marked.
struct Mark {
    running: Arc<Running>,
    table: TableId,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.running.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.table);
        self.running.ended.notify_one();
    }
}

/// Compacts the tables of an engine, for as long as there is one.
pub async fn compact_tables(engine: Weak<Inner>) {
    let Some(mut commits) = engine.upgrade().map(|inner| inner.catalog.watch()) else { return };
    let running = Arc::new(Running::default());
    // The states that were looked at already. A weak pointer keeps its address from being used again.
    let mut seen: HashMap<TableId, Weak<Table>> = HashMap::new();
    loop {
        tokio::select! {
            changed = commits.changed() => if changed.is_err() { return },
            () = running.ended.notified() => {}
        }
        let Some(inner) = engine.upgrade() else { return };
        commits.borrow_and_update();
        let snapshot = inner.catalog.current();
        let mut next = HashMap::with_capacity(snapshot.len());
        for table in snapshot.tables() {
            let known = seen.get(&table.id()).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(table)));
            // A table whose task still runs is looked at again when that has ended.
            if known || compactable_run(table.segments()).is_none() || start(&inner, table, &running) {
                next.insert(table.id(), Arc::downgrade(table));
            }
        }
        seen = next;
        drop((snapshot, inner));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Starts to compact a table, unless a task does so already.
fn start(inner: &Arc<Inner>, table: &Arc<Table>, running: &Arc<Running>) -> bool {
    let id = table.id();
    if !running.tables.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
        return false;
    }
    let mark = Mark { running: running.clone(), table: id };
    let (engine, lock, table) = (inner.clone(), table.change_lock(), TableRef::of(table));
    inner.lanes.heavy.spawn(async move {
        let changing = Arc::new(lock.lock_owned().await);
        let mut from = 0;
        while let Some(next) = engine.compact_once(&table, from, &mark.running, &changing).await {
            from = next;
            tokio::task::yield_now().await;
        }
    });
    true
}

impl Inner {
    /// Compacts one run of segments at or after position `from`; returns where to look for the next, if there may be one.
    /// The caller holds the table's change lock.
    async fn compact_once(
        &self,
        table: &TableRef,
        from: usize,
        running: &Running,
        changing: &Arc<OwnedMutexGuard<()>>,
    ) -> Option<usize> {
        let snapshot = self.catalog.current();
        let base = snapshot.same_table(&table.name, table.id)?;
        let run = compactable_run(base.segments().get(from..)?)?;
        let end = from + run.end;
        let run = &base.segments()[from + run.start..end];
        if running.is_apart(run) {
            return Some(end);
        }
        // What takes their place is written to the disk before they give back their memory.
        self.wait_for_memory(run.iter().map(|segment| segment.columns().data_bytes()).sum()).await;
        let compacted = match compact(run, &self.allocations) {
            Ok(compacted) => compacted,
            Err(error) => {
                // Dictionaries that together outgrow their keys stay apart; what comes after may still be compacted.
                tracing::debug!(table = &*table.name, %error, "a run of segments stays as it is");
                running.keep_apart(run);
                return Some(end);
            }
        };
        let removed = run.iter().map(|segment| segment.id()).collect();
        let change = Change::Compact { table: table.clone(), removed, compacted };
        match self.commit(Commit::of(change).holding(changing.clone())).await {
            Ok(()) => Some(from),
            Err(Rejection::Gone(_)) => None,
            Err(rejection) => {
                let error = crate::ports::Error::from(rejection);
                tracing::error!(table = &*table.name, %error, "compacted segments could not be put in place");
                None
            }
        }
    }
}
