//! The journal port: commits as values, taken down in their order, and read again at the next start.
//!
//! What is taken down are effects, never SQL: which rows came, with the columns that the table has, and which rows went. So
//! reading them again asks neither a clock nor a planner, and comes to the same tables. Everything is named by ids that are
//! never used again: tables, columns and rows keep theirs for as long as the store exists.

use crate::ports::names::names;
use crate::ports::{Result, WriterState};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::fmt;
use std::ops::Range;

/// The number of a commit over all tables: each is one more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Returns the number of the commit after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a commit has to be before it is acknowledged, the weakest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In memory: what was not yet written is lost with the process.
    Memory,
    /// With the operating system: what was not yet on the disk is lost with the machine.
    Wal,
    /// On the disk.
    #[default]
    Fsync,
}

names!(Durability: Memory = "memory", Wal = "wal", Fsync = "fsync");

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A commit as it is taken down.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number.
    pub lsn: Lsn,
    /// When it was made, in microseconds since 1970 UTC: never earlier than the one before.
    pub time_us: i64,
    /// Where it has to be before it is acknowledged.
    pub durability: Durability,
    /// What it does, in this order.
    pub effects: Vec<Effect>,
}

/// What one change of a commit does to one table.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A table comes, with its first rows.
    Create {
        /// The table.
        definition: TableDefinition,
        /// The table of the same name that goes for it.
        replaced: Option<u64>,
        /// Its rows, of the definition's columns.
        batches: Vec<RecordBatch>,
    },
    /// Rows come, behind those that are there.
    Append {
        /// The table's id.
        table: u64,
        /// The id of the first row; those of the others follow one by one.
        first_row: u64,
        /// The rows, of the table's columns.
        batches: Vec<RecordBatch>,
    },
    /// Rows go.
    Erase {
        /// The table's id.
        table: u64,
        /// Ids of the rows, ascending. Ids between them that no row has any more mean nothing.
        rows: Vec<Range<u64>>,
    },
    /// Rows get other values.
    Update {
        /// The table's id.
        table: u64,
        /// Ids of the rows, ascending.
        rows: Vec<Range<u64>>,
        /// Ids of the columns.
        columns: Vec<u32>,
        /// The values, a row for each row and a column for each column.
        values: RecordBatch,
    },
    /// Columns come, go or change their names: those that stay keep their ids.
    Alter {
        /// The table as it is afterwards.
        definition: TableDefinition,
    },
    /// A writer has come further, with the rows of this commit.
    Writer {
        /// The table's id.
        table: u64,
        /// How far it has come.
        state: WriterState,
    },
    /// A table goes.
    Drop {
        /// Its id.
        table: u64,
    },
}

/// What a table is, without its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDefinition {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// The ids of its columns, in their order.
    pub column_ids: Vec<u32>,
    /// The id that the next new column gets.
    pub next_column_id: u32,
    /// The column that it was declared to have its time in.
    pub time_column: Option<String>,
}

/// Told once what became of an entry.
pub type OnDone = Box<dyn FnOnce(Result<()>) + Send>;

/// What was taken down before.
pub struct Recorded {
    /// The number before that of the first entry.
    pub before: Lsn,
    /// The entries, in their order.
    pub entries: Box<dyn Iterator<Item = Result<Entry>> + Send>,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("before", &self.before).finish_non_exhaustive()
    }
}

/// Takes commits down.
///
/// # Contract
///
/// Numbers are dense: an entry whose number is not the one after the last entry that was taken is refused, as is every entry
/// after one that was refused, until that number comes again. What `on_done` was told `Ok` for is read again after any stop,
/// as far as its level goes, together with everything before it; what it was told an error for is never read again, unless
/// the error is `Unavailable`, which leaves that open. `on_done` is called once for each entry, in the order of the entries, by any
/// thread, perhaps before [`Journal::append`] returns.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Returns what was taken down before this process and after commit `after`, which a checkpoint has; without one, all of it. It is
    /// read before the first append.
    ///
    /// # Errors
    ///
    /// `Internal` where acknowledged entries are damaged or gone, with the place.
    fn recorded(&self, after: Option<Lsn>) -> Result<Recorded>;

    /// Takes an entry in without waiting, and says through `on_done` when it is where it has to be.
    fn append(&self, entry: Entry, on_done: OnDone);

    /// Forgets the entries up to `upto`, which a checkpoint has, as far as that gives back space.
    ///
    /// # Errors
    ///
    /// `Unavailable` where files cannot be removed.
    fn trim(&self, upto: Lsn) -> Result<()>;

    /// Returns how it stands.
    fn state(&self) -> JournalState;
}

/// How a journal stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Bytes that it takes, those that are made ready included.
    pub bytes: u64,
    /// Whether it has failed, and takes nothing any more.
    pub is_failed: bool,
}
