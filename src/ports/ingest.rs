//! The ingest port: a stream of batches into a table, whole or not at all.

use crate::ports::names::names;
use crate::ports::{BatchStream, Caller, Durability, Result, WriterCommit, WriterState};
use async_trait::async_trait;
use std::fmt;

/// Where a stream goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Append {
    /// The table's name, exactly.
    pub table: String,
    /// What to do where there is no such table.
    pub if_missing: IfMissing,
    /// What to do where there is one.
    pub if_exists: IfExists,
    /// The stream's place among the commits of its writer; none: it is appended however often it comes.
    pub writer: Option<WriterCommit>,
    /// Where it has to be before it is acknowledged; none: as the backend is configured.
    pub durability: Option<Durability>,
    /// Who is asking.
    pub caller: Caller,
}

/// What becomes of a stream into a table that is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfMissing {
    /// As the backend is configured.
    #[default]
    AsConfigured,
    /// It makes the table.
    Create,
    /// It is `NotFound`.
    Fail,
}

/// What becomes of a stream into a table that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfExists {
    /// It is appended.
    #[default]
    Append,
    /// It is `AlreadyExists`.
    Fail,
    /// It takes the place of the table and all that it held, at one instant.
    Replace,
}

names!(IfMissing: AsConfigured = "as_configured", Create = "create", Fail = "fail");
names!(IfExists: Append = "append", Fail = "fail", Replace = "replace");

/// What an ingested stream came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestSummary {
    /// Rows appended.
    pub rows: u64,
    /// Batches received, empty ones included.
    pub batches: u64,
    /// Memory that the appended data holds, in bytes.
    pub bytes: u64,
    /// Whether the table was made by this stream.
    pub table_created: bool,
    /// Whether a writer had made this commit before, so that nothing was appended now.
    pub duplicate: bool,
    /// How far its writer has come, where it has one.
    pub writer: Option<WriterState>,
}

/// Takes data in.
///
/// # Contract
///
/// All of a stream becomes visible at one instant, or none of it ever does: a stream that ends with an error, or is
/// dropped half way, leaves no trace. What a summary was returned for is visible to every later query. A stream of a writer counts
/// once, however often it is sent.
#[async_trait]
pub trait IngestPort: fmt::Debug + Send + Sync + 'static {
    /// Appends all of `batches` to a table.
    ///
    /// Columns match by name; if no name matches, by position. Types may widen without loss. Missing columns become
    /// null, a missing `timestamp` the stream's arrival time. A table that the stream makes has its schema.
    ///
    /// # Errors
    ///
    /// `SchemaMismatch` where data does not fit, naming the column, both types and the first offending row if it is a
    /// value; `NotFound` for an unknown table that may not be made, `AlreadyExists` for one that may not be there; `LimitExceeded` past the limits on rows, bytes or
    /// memory; `Conflict` where a writer's commit is not its next one; and the stream's own errors.
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary>;

    /// Says how far a writer has come in a table, so that it can go on from there.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown table, and for a writer that has committed nothing or nothing for long.
    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState>;
}
