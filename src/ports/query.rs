//! The query port: SQL in, record batches out.

use crate::ports::{BatchStream, Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What the caller's own stream is called in [`QueryPort::exchange`]; a table of that name is hidden by it.
pub const INPUT: &str = "input";

/// What a caller lets a statement do. The safe one is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Only reads; anything else is `InvalidQuery` with a hint where to send it.
    #[default]
    Read,
    /// Reads, changes and definitions.
    Change,
}

/// Names a state of all tables that the backend keeps for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotId(pub u64);

/// One of several parts of an answer. All of them, one after the other, are the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: u32,
    count: u32,
}

impl Part {
    /// Makes part `index` of `count`, counted from 0.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where there is no such part.
    pub fn new(index: u32, count: u32) -> Result<Self> {
        if index < count {
            Ok(Self { index, count })
        } else {
            Err(Error::invalid(format!("there is no part {index} of {count}; parts count from 0")))
        }
    }

    /// Returns its number, from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns how many parts there are.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Returns which of `rows` rows are in it.
    pub fn rows_of(self, rows: u64) -> Range<u64> {
        let begin = |index: u32| (u128::from(rows) * u128::from(index) / u128::from(self.count)) as u64;
        begin(self.index)..begin(self.index + 1)
    }
}

/// Who asks: a client, or the server itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The request's id in every log line about it; empty where there is none.
    pub request_id: String,
    /// The network address that the request came from, without its port; empty where it came from this process.
    pub peer: String,
    internal: bool,
}

impl Caller {
    /// Makes the caller of a client's request.
    pub fn client(request_id: impl Into<String>, peer: impl Into<String>) -> Self {
        Self { request_id: request_id.into(), peer: peer.into(), internal: false }
    }

    /// Makes the caller of the server's own work, such as sample data. No request that comes over a wire decodes to it.
    pub fn internal() -> Self {
        Self { internal: true, ..Self::default() }
    }

    /// Returns whether this is the server itself.
    pub fn is_internal(&self) -> bool {
        self.internal
    }
}

/// One statement and how to run it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// The statement: one, without parameters filled in.
    pub sql: String,
    /// Values of the parameters, one column each: in order for `?` and `$1…$n`, by name for `$name`. One row; an INSERT of
    /// one row of VALUES takes any number and inserts a row for each, an UPDATE or DELETE is made for each in turn. Either
    /// way it is one change.
    pub params: Option<RecordBatch>,
    /// What the statement may do.
    pub access: Access,
    /// Read this pinned state instead of the present one.
    pub snapshot: Option<SnapshotId>,
    /// Answer with this part alone. Parts of one answer read the same pinned state; what cannot be divided is in the first.
    pub part: Option<Part>,
    /// Instant by which the last batch is to be taken; the backend's own limits hold as well.
    pub deadline: Option<Instant>,
    /// Who is asking.
    pub caller: Caller,
}

impl Query {
    /// Makes a read of `sql` with everything else left at its default.
    pub fn read(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), ..Self::default() }
    }

    /// Returns the query with a deadline in so many milliseconds; none is none.
    #[must_use]
    pub fn within_ms(self, timeout_ms: Option<u64>) -> Self {
        Self { deadline: timeout_ms.and_then(deadline_in_ms), ..self }
    }

    /// Returns the time until the deadline, in whole milliseconds, at least 1: on a wire none left means no limit.
    pub fn timeout_ms(&self) -> Option<u64> {
        let left = self.deadline?.saturating_duration_since(Instant::now());
        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    /// Makes a query that may change data.
    pub fn change(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), access: Access::Change, ..Self::default() }
    }
}

/// Returns the instant in so many milliseconds; none where the clock does not reach that far.
pub fn deadline_in_ms(timeout_ms: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_millis(timeout_ms))
}

/// What a statement does, decided on its parsed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// Changes nothing.
    Read,
    /// Changes rows; answers one row with their count.
    Change,
    /// Changes tables; answers no rows.
    Definition,
}

impl StatementKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Read, Self::Change, Self::Definition];

    /// Returns the kind's name on the wire and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Definition => "definition",
        }
    }
}

impl fmt::Display for StatementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StatementKind {
    type Err = crate::ports::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| crate::ports::Error::internal(format!("unknown statement kind {text:?}")))
    }
}

/// What a statement would do and answer, found out without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What it does.
    pub kind: StatementKind,
    /// The schema of its answer: the same that [`QueryPort::query`] streams.
    pub schema: SchemaRef,
    /// Rows of its answer where they are known exactly, else none.
    pub rows: Option<u64>,
    /// Its parameters in order, where [`Query::params`] leaves them open: `$1`, `$2`, … or their own names, with the type
    /// that a value is best given in; Utf8 where any would do.
    pub params: SchemaRef,
}

impl Description {
    /// Describes a statement without open parameters.
    pub fn new(kind: StatementKind, schema: SchemaRef, rows: Option<u64>) -> Self {
        Self { kind, schema, rows, params: SchemaRef::new(Schema::empty()) }
    }
}

/// A running statement's answer.
#[derive(Debug)]
pub struct Reply {
    /// What the statement does.
    pub kind: StatementKind,
    /// Its answer. A change's is one row: `inserted`, `updated` or `deleted`, INT64. A definition's has no columns.
    pub batches: BatchStream,
}

/// A table as the catalogue lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name, exactly.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Rows in it now; none where the caller is not told.
    pub rows: Option<u64>,
    /// Bytes of its rows, in memory or on the disk; none where the caller is not told.
    pub bytes: Option<u64>,
    /// The column that is the time of its rows; none where it has no TIMESTAMP.
    pub time_column: Option<String>,
}

/// Runs SQL.
///
/// # Contract
///
/// A statement sees one state of all tables from its first batch to its last. A change is visible to all later
/// statements or to none of them. Dropping a reply's stream stops the statement, except that a change which was
/// published stays. Calls may be made concurrently.
#[async_trait]
pub trait QueryPort: fmt::Debug + Send + Sync + 'static {
    /// Says what `query` would do, without running it.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for what does not parse or plan, and for a change under [`Access::Read`]; `NotFound` for an
    /// unknown table or an expired snapshot; `Unsupported` for statements that are refused.
    async fn describe(&self, query: Query) -> Result<Description>;

    /// Runs `query`. A read has its first batch when this returns, and its later ones come as the stream is polled, some
    /// of them ahead of it; a change has happened.
    ///
    /// # Errors
    ///
    /// Those of [`QueryPort::describe`], and `AlreadyExists`, `SchemaMismatch`, `LimitExceeded`, `Timeout`. The
    /// stream ends with an error rather than early.
    async fn query(&self, query: Query) -> Result<Reply>;

    /// Runs a read that sees `input` as one more table, called [`INPUT`]. What it reads of the others is one state.
    ///
    /// # Errors
    ///
    /// Those of [`QueryPort::query`], of `input`, and `InvalidQuery` for anything but a read.
    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply>;

    /// Pins the present state of all tables for [`Query::snapshot`], for a limited time.
    ///
    /// # Errors
    ///
    /// `Unsupported` where a backend has no states to pin.
    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId>;

    /// Lists the tables that the caller may see, in the order of their names.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the backend cannot be reached.
    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>>;

    /// Says what is known of the table of exactly this name.
    ///
    /// # Errors
    ///
    /// `NotFound` where the caller may see none of that name; `Unavailable` where the backend cannot be reached.
    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo>;
}
