//! The store port: rows in files that never change, and checkpoints that say which of them make up the tables.
//!
//! The journal keeps what was committed since the last checkpoint; a checkpoint keeps everything before. Rows go to parts,
//! batch by batch, and are read again column by column; which of them were deleted, and what is known of their columns, is in the
//! checkpoint, so that a query finds what it need not read. What a process still reads may be in no checkpoint any more: a part goes
//! when both have let go of it.

use crate::ports::{Lsn, Result, TableDefinition, WriterState};
use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A file of rows of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredPart {
    /// Its number, which is never used again.
    pub id: u64,
    /// The table's id.
    pub table: u64,
    /// How many batches it has.
    pub batches: u32,
    /// Its bytes.
    pub bytes: u64,
    /// A hash that the store knows it again by.
    pub digest: u64,
}

/// What is known of a column of a batch without reading it.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnFacts {
    /// Smallest and largest value, deleted rows included, in the total order of Arrow's kernels: two rows of the column's type. None
    /// for a column without values or order.
    pub bounds: Option<ArrayRef>,
    /// Rows without a value, by the values of dictionaries too.
    pub null_count: usize,
    /// Whether it has a NaN with a sign.
    pub has_signed_nan: bool,
    /// Whether it is a column of times in ascending order.
    pub is_in_order: bool,
}

/// A batch of a part as rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBatch {
    /// The part.
    pub part: StoredPart,
    /// Which of its batches.
    pub batch: u32,
    /// Its rows, deleted ones included.
    pub rows: usize,
    /// For each column of the table the one of the part; none for a column that came later, which is null.
    pub sources: Vec<Option<u32>>,
    /// The ids of all rows, ascending.
    pub row_ids: Vec<Range<u64>>,
    /// Positions of the rows that are deleted.
    pub deleted: Vec<Range<usize>>,
    /// What is known of each column of the table.
    pub facts: Arc<[ColumnFacts]>,
}

/// A table as a checkpoint has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTable {
    /// What it is.
    pub definition: TableDefinition,
    /// The id that its next row gets.
    pub next_row_id: u64,
    /// How far its writers have come.
    pub writers: Vec<WriterState>,
    /// Its rows, in arrival order.
    pub batches: Vec<StoredBatch>,
}

/// All tables after one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The commit.
    pub lsn: Lsn,
    /// When it was made, in microseconds since 1970 UTC.
    pub time_us: i64,
    /// The id that the next table gets.
    pub next_table_id: u64,
    /// The tables.
    pub tables: Vec<StoredTable>,
}

/// A file that a copy of the store needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFile {
    /// Where it belongs, from the store's own place.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// What it has, where that is not simply read.
    pub content: Option<Bytes>,
}

/// Keeps rows and checkpoints.
///
/// # Contract
///
/// What was written is on the disk when the call returns, and the newest published checkpoint is the one that is read at the next
/// start, whatever happens in between. A call that was refused has changed nothing. Everything that is read is checked: what was damaged
/// is an error that names the file, never other rows. Calls take as long as the disk does.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns the newest checkpoint, from which this process begins: what no checkpoint names goes. None for a new store.
    ///
    /// # Errors
    ///
    /// `Internal` where it is damaged, `Unavailable` where it cannot be read.
    fn newest(&self) -> Result<Option<Checkpoint>>;

    /// Writes batches of a table, in as many parts as they need: the parts together have them in this order.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where there is no space.
    fn write(&self, table: u64, batches: &[RecordBatch]) -> Result<Vec<StoredPart>>;

    /// Reads columns of a batch, given by their positions in the part.
    ///
    /// # Errors
    ///
    /// `Internal` where they are damaged, `Unavailable` where they cannot be read.
    fn read(&self, part: &StoredPart, batch: u32, columns: &[u32]) -> Result<Vec<ArrayRef>>;

    /// Makes a checkpoint the newest.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where there is no space.
    fn publish(&self, checkpoint: &Checkpoint) -> Result<()>;

    /// Lists what a directory needs to be opened with the newest checkpoint and nothing after it. The caller sees to it that nobody
    /// publishes another one meanwhile, and reads its parts for as long as it wants their files.
    ///
    /// # Errors
    ///
    /// `Unavailable` where they cannot be read.
    fn files(&self) -> Result<Vec<StoreFile>>;

    /// Reads bytes of one of those files.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it cannot be read.
    fn read_file(&self, path: &str, offset: u64, bytes: u64) -> Result<Bytes>;

    /// Returns where the file of a part is, from the store's own place.
    fn path(&self, part: &StoredPart) -> String;

    /// Says that nobody in this process reads a part any more. Its file goes with the next checkpoint that does not name it.
    fn release(&self, part: &StoredPart);

    /// Returns the bytes that it takes, in files that the newest checkpoint needs or this process reads.
    fn bytes(&self) -> u64;

    /// Returns the bytes of parts that were released and that the next checkpoint may remove.
    fn released_bytes(&self) -> u64;
}
