//! The catalogue: which tables there are, and their present states, behind one atomic pointer.
//!
//! A [`Snapshot`] is one state of everything and never changes; readers take it without waiting. A change is a function
//! from one snapshot to the next, applied under a lock that is held for that function alone, so publishing is one swap
//! and two tables are never seen at different times.

use crate::domain::storage::Table;
use crate::ports::{Error, ErrorKind, Limits, Result, SnapshotId};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One state of all tables.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    definitions: u64,
    tables: BTreeMap<String, Arc<Table>>,
}

/// The present state of all tables, and the pinned ones.
#[derive(Debug)]
pub struct Catalog {
    present: ArcSwap<Snapshot>,
    publishing: Mutex<()>,
    pins: Mutex<BTreeMap<u64, Pin>>,
    pins_max: usize,
    pin_ttl: Duration,
    tables_max: usize,
    next_table_id: AtomicU64,
}

#[derive(Debug)]
struct Pin {
    snapshot: Arc<Snapshot>,
    used: Instant,
}

/// Changes to make to a snapshot: a table to put in place, or to take away.
pub type Edits = Vec<(String, Option<Table>)>;

impl Snapshot {
    /// Counts the changes of names and schemas. Two snapshots with the same number have the same tables, of the same
    /// columns; only their rows differ.
    pub fn definitions(&self) -> u64 {
        self.definitions
    }

    /// The same state with one more table, or another of that name.
    pub fn with(&self, name: &str, table: Arc<Table>) -> Self {
        let mut tables = self.tables.clone();
        tables.insert(name.to_owned(), table);
        Self { version: self.version, definitions: self.definitions, tables }
    }

    /// All tables, by name.
    pub fn tables(&self) -> &BTreeMap<String, Arc<Table>> {
        &self.tables
    }

    /// The table of exactly this name.
    ///
    /// # Errors
    ///
    /// `NotFound`, with a close name where there is one.
    pub fn table(&self, name: &str) -> Result<&Arc<Table>> {
        self.tables.get(name).ok_or_else(|| self.unknown(name))
    }

    /// The error for a table that is not there.
    pub fn unknown(&self, name: &str) -> Error {
        let hint = match closest(name, self.tables.keys().map(String::as_str)) {
            Some(close) => format!("; did you mean {close:?}?"),
            None => String::new(),
        };
        Error::new(ErrorKind::NotFound, format!("table {name:?} not found{hint}"))
    }

    /// The full name of a table as SQL wrote it: exactly, else by its only match without regard to case.
    ///
    /// # Errors
    ///
    /// `NotFound`, or `InvalidQuery` where several match.
    pub fn resolve(&self, name: &str, quoted: bool) -> Result<&str> {
        match resolve_name(name, quoted, self.tables.keys().map(String::as_str))? {
            Some(found) => Ok(found),
            None => Err(self.unknown(name)),
        }
    }
}

/// A name among `known`: exactly, else by its only match without regard to case, unless it was quoted.
///
/// # Errors
///
/// `InvalidQuery` where several match.
pub fn resolve_name<'a>(
    name: &str,
    quoted: bool,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<Option<&'a str>> {
    if let Some(exact) = known.clone().find(|candidate| *candidate == name) {
        return Ok(Some(exact));
    }
    if quoted {
        return Ok(None);
    }
    let mut matches: Vec<_> = known.filter(|candidate| candidate.eq_ignore_ascii_case(name)).collect();
    matches.sort_unstable();
    matches.dedup();
    match matches.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        several => Err(Error::invalid(format!("{name:?} is ambiguous: it could be any of {several:?}; quote it"))),
    }
}

/// The name among `known` that is most like `name`, if any is.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

impl Catalog {
    /// A catalogue without tables, whose states count up from `first_version`: another number each time, so that a
    /// snapshot's id means nothing to the next engine.
    pub fn new(limits: &Limits, first_version: u64) -> Self {
        Self {
            present: ArcSwap::from_pointee(Snapshot { version: first_version, ..Snapshot::default() }),
            publishing: Mutex::default(),
            pins: Mutex::default(),
            pins_max: usize::try_from(limits.snapshots_max).unwrap_or(usize::MAX),
            pin_ttl: limits.ticket_ttl(),
            tables_max: usize::try_from(limits.tables_max).unwrap_or(usize::MAX),
            next_table_id: AtomicU64::new(1),
        }
    }

    /// The present state.
    pub fn present(&self) -> Arc<Snapshot> {
        self.present.load_full()
    }

    /// An id for a table that is about to be made.
    pub fn next_table_id(&self) -> u64 {
        self.next_table_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts the edits in place that `change` makes of the present state, all at once.
    ///
    /// # Errors
    ///
    /// Those of `change`, and `LimitExceeded` for one table too many; nothing has changed then.
    pub fn publish<T>(&self, change: impl FnOnce(&Snapshot) -> Result<(Edits, T)>) -> Result<T> {
        let publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.present();
        let (edits, result) = change(&present)?;
        if edits.is_empty() {
            return Ok(result);
        }
        let mut tables = present.tables.clone();
        let mut defines = false;
        for (name, table) in edits {
            let before = tables.get(&name).map(|table| table.schema());
            defines |= before != table.as_ref().map(Table::schema);
            match table {
                Some(table) => tables.insert(name, Arc::new(table)),
                None => tables.remove(&name),
            };
        }
        if tables.len() > self.tables_max && tables.len() > present.tables.len() {
            return Err(Error::limit(format!("there are {} tables already (tables_max)", self.tables_max)));
        }
        let definitions = present.definitions + u64::from(defines);
        let before = self.present.swap(Arc::new(Snapshot { version: present.version + 1, definitions, tables }));
        // The last of a large table takes a while to go: nobody waits for that.
        drop(publishing);
        drop((present, before));
        Ok(result)
    }

    /// Pins the present state. Pinning an unchanged state again is the same pin.
    pub fn pin(&self) -> SnapshotId {
        let snapshot = self.present();
        let id = snapshot.version;
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|_, pin| pin.used.elapsed() < self.pin_ttl);
        pins.insert(id, Pin { snapshot, used: Instant::now() });
        while pins.len() > self.pins_max {
            let stalest = pins.iter().min_by_key(|(_, pin)| pin.used).map(|(id, _)| *id);
            stalest.and_then(|id| pins.remove(&id));
        }
        SnapshotId(id)
    }

    /// Gives up the pin of a past state that was not used for longest, and with it what only that held; false where there
    /// is none.
    pub fn give_up_pin(&self) -> bool {
        let present = self.present().version;
        let stalest = {
            let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
            let past = pins.iter().filter(|(id, _)| **id != present);
            let id = past.min_by_key(|(_, pin)| pin.used).map(|(id, _)| *id);
            id.and_then(|id| pins.remove(&id))
        };
        // The last of a large table takes a while to go, which nobody waits for.
        stalest.is_some()
    }

    /// A pinned state, which is kept for its full time again.
    ///
    /// # Errors
    ///
    /// `NotFound` where it has expired.
    pub fn pinned(&self, id: SnapshotId) -> Result<Arc<Snapshot>> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|_, pin| pin.used.elapsed() < self.pin_ttl);
        let pin = pins.get_mut(&id.0).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("snapshot {} is not there any more; ask for a new one", id.0))
        })?;
        pin.used = Instant::now();
        Ok(pin.snapshot.clone())
    }

    /// Drops pins whose time is over, so that their memory does not wait for the next use.
    pub fn expire_pins(&self) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|_, pin| pin.used.elapsed() < self.pin_ttl);
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::catalog::{Catalog, resolve_name};
    use crate::domain::storage::Table;
    use crate::ports::{ErrorKind, Limits};
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    fn add(catalog: &Catalog, name: &str) -> crate::ports::Result<()> {
        let table = Table::new(catalog.next_table_id(), Arc::new(Schema::empty()), Vec::new());
        catalog.publish(|_| Ok((vec![(name.to_owned(), Some(table))], ())))
    }

    #[test]
    fn pins_are_shared_bounded_and_expire() {
        let limits = Limits { snapshots_max: 2, ticket_ttl_ms: 50, ..Limits::default() };
        let catalog = Catalog::new(&limits, 1);
        let empty = catalog.pin();
        assert_eq!(catalog.pin(), empty);
        add(&catalog, "a").unwrap();
        let one = catalog.pin();
        assert_ne!(one, empty);
        assert_eq!(catalog.pinned(empty).unwrap().tables().len(), 0);
        add(&catalog, "b").unwrap();
        let two = catalog.pin();
        assert_eq!(
            catalog.pinned(one).unwrap_err().kind(),
            ErrorKind::NotFound,
            "the one that was used before the others"
        );
        assert_eq!(catalog.pinned(empty).unwrap().tables().len(), 0);
        assert_eq!(catalog.pinned(two).unwrap().tables().len(), 2);
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert_eq!(catalog.pinned(two).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_table_limit_holds_and_a_failed_change_changes_nothing() {
        let catalog = Catalog::new(&Limits { tables_max: 1, ..Limits::default() }, 1);
        add(&catalog, "a").unwrap();
        assert_eq!(add(&catalog, "b").unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(catalog.present().tables().len(), 1);
        assert!(catalog.present().unknown("A1").message().contains("did you mean \"a\""));
    }

    #[test]
    fn names_match_exactly_then_by_their_only_case() {
        let known = ["Px", "px", "Size"];
        let resolve = |name, quoted| resolve_name(name, quoted, known.into_iter());
        assert_eq!(resolve("px", false).unwrap(), Some("px"));
        assert_eq!(resolve("SIZE", false).unwrap(), Some("Size"));
        assert_eq!(resolve("SIZE", true).unwrap(), None);
        assert_eq!(resolve("PX", false).unwrap_err().kind(), ErrorKind::InvalidQuery);
        assert_eq!(resolve("none", false).unwrap(), None);
    }
}
