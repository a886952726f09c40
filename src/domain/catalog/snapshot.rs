//! One state of all tables, which never changes.
//!
//! Most commits change the state of one table and no name. So the names are shared from state to state, and the tables'
//! states lie in chunks of which a commit copies one: an append costs the same however many tables there are.

use crate::domain::catalog::names::{closest, resolve_name};
use crate::domain::storage::{Table, TableId};
use crate::ports::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// States of one chunk. Ten thousand tables are 157 chunks.
const CHUNK: usize = 64;

/// One state of all tables.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    version: u64,
    definitions: u64,
    /// The place of each table's state, by name. Every place in here is taken.
    names: Arc<BTreeMap<Arc<str>, usize>>,
    chunks: Vec<Arc<Vec<Option<Arc<Table>>>>>,
}

impl Snapshot {
    /// Makes a state without tables, numbered `version`.
    pub fn empty(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// Returns its number: later states have higher ones.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns a number that counts the changes of names and schemas. Two snapshots with the same number have the same
    /// tables, of the same columns; only their rows differ.
    pub fn definitions(&self) -> u64 {
        self.definitions
    }

    /// Returns the number of tables.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns all tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.names.values().filter_map(|place| self.at(*place))
    }

    /// Returns the table of exactly this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Arc<Table>> {
        self.at(*self.names.get(name)?)
    }

    /// Returns the table of exactly this name.
    ///
    /// # Errors
    ///
    /// `NotFound`, with a close name where there is one.
    pub fn table(&self, name: &str) -> Result<&Arc<Table>> {
        self.get(name).ok_or_else(|| self.unknown(name))
    }

    /// Returns the table of this name if it still is the one with this id.
    pub fn same_table(&self, name: &str, id: TableId) -> Option<&Arc<Table>> {
        self.get(name).filter(|table| table.id() == id)
    }

    /// Makes the error for a table that is not there.
    pub fn unknown(&self, name: &str) -> Error {
        let hint = match closest(name, self.names.keys().map(AsRef::as_ref)) {
            Some(close) => format!("; did you mean {close:?}?"),
            None => String::new(),
        };
        Error::new(ErrorKind::NotFound, format!("table {name:?} not found{hint}"))
    }

    /// Finds the full name of a table as SQL wrote it: exactly, else by its only match without regard to case.
    ///
    /// # Errors
    ///
    /// `NotFound`, or `InvalidQuery` where several match.
    pub fn resolve(&self, name: &str, quoted: bool) -> Result<&str> {
        if let Some((exact, _)) = self.names.get_key_value(name) {
            return Ok(exact);
        }
        match resolve_name(name, quoted, self.names.keys().map(AsRef::as_ref))? {
            Some(found) => Ok(found),
            None => Err(self.unknown(name)),
        }
    }

    /// Returns the same state with `table` in it, in the place of one of the same name.
    #[must_use]
    pub fn with(&self, table: Arc<Table>) -> Self {
        let mut next = self.clone();
        next.put(table);
        next
    }

    /// Returns the state that follows this one, with its number, to be changed.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { version: self.version + 1, ..self.clone() }
    }

    /// Returns the same state under another number.
    #[must_use]
    pub fn numbered(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Puts a table in, in the place of one of the same name.
    pub fn put(&mut self, table: Arc<Table>) {
        let place = match self.names.get(table.name()) {
            Some(place) => *place,
            None => {
                let free = self.free_place();
                Arc::make_mut(&mut self.names).insert(table.name().clone(), free);
                free
            }
        };
        let before = self.at(place).map(|before| before.schema().clone());
        self.definitions += u64::from(before.as_ref() != Some(table.schema()));
        self.set(place, Some(table));
    }

    /// Takes a table away.
    pub fn remove(&mut self, name: &str) {
        if let Some(place) = Arc::make_mut(&mut self.names).remove(name) {
            self.definitions += 1;
            self.set(place, None);
        }
    }

    fn at(&self, place: usize) -> Option<&Arc<Table>> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    fn set(&mut self, place: usize, table: Option<Arc<Table>>) {
        Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = table;
    }

    /// Finds a place that no table has, in a new chunk where there is none.
    fn free_place(&mut self) -> usize {
        let free = |(at, chunk): (usize, &Arc<Vec<Option<Arc<Table>>>>)| {
            Some(at * CHUNK + chunk.iter().position(Option::is_none)?)
        };
        self.chunks.iter().enumerate().find_map(free).unwrap_or_else(|| {
            self.chunks.push(Arc::new(vec![None; CHUNK]));
            (self.chunks.len() - 1) * CHUNK
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::catalog::snapshot::Snapshot;
    use crate::domain::storage::{Table, TableId};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn table(id: u64, name: &str, column: &str) -> Arc<Table> {
        let schema = Schema::new(vec![Field::new(column, DataType::Int64, true)]);
        Arc::new(Table::new(TableId(id), name, Arc::new(schema), Vec::new()))
    }

    #[test]
    fn states_are_independent_and_places_are_used_again() {
        let mut state = Snapshot::empty(7);
        for number in 0..200 {
            state.put(table(number, &format!("t{number:03}"), "n"));
        }
        let before = state.clone();
        state.remove("t100");
        state.put(table(300, "new", "n"));
        assert_eq!((state.len(), state.chunks.len()), (200, before.chunks.len()));
        assert!(before.get("new").is_none() && before.get("t100").is_some());
        assert_eq!(state.get("new").unwrap().id(), TableId(300));
        let names: Vec<_> = state.tables().map(|table| table.name().to_string()).collect();
        assert!(names.is_sorted() && names.len() == 200);
    }

    #[test]
    fn definitions_count_names_and_schemas_but_not_rows() {
        let mut state = Snapshot::empty(1);
        state.put(table(1, "t", "n"));
        assert_eq!(state.definitions(), 1);
        state.put(table(1, "t", "n"));
        assert_eq!(state.definitions(), 1);
        state.put(table(1, "t", "m"));
        state.remove("t");
        state.remove("t");
        assert_eq!(state.definitions(), 3);
        assert!(state.with(table(2, "abc", "n")).unknown("ABD").message().contains("did you mean \"abc\""));
    }
}
