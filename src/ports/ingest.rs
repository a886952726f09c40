//! The ingest port: a stream of batches into a table, whole or not at all.

use crate::ports::{BatchStream, Caller, Result};
use async_trait::async_trait;
use std::fmt;

/// Where a stream goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Append {
    /// The table's name, exactly.
    pub table: String,
    /// Who is asking.
    pub caller: Caller,
}

/// What an ingested stream came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IngestSummary {
    /// Rows appended.
    pub rows: u64,
    /// Batches received, empty ones included.
    pub batches: u64,
    /// Memory that the appended data holds, in bytes.
    pub bytes: u64,
    /// Whether the table was made by this stream.
    pub table_created: bool,
}

/// Takes data in.
///
/// # Contract
///
/// All of a stream becomes visible at one instant, or none of it ever does: a stream that ends with an error, or is
/// dropped half way, leaves no trace. What a summary was returned for is visible to every later query.
#[async_trait]
pub trait IngestPort: fmt::Debug + Send + Sync + 'static {
    /// Appends all of `batches` to a table.
    ///
    /// Columns match by name; if no name matches, by position. Types may widen without loss. Missing columns become
    /// null, a missing `timestamp` the stream's arrival time. An unknown table is made from the stream's schema where
    /// the backend allows it.
    ///
    /// # Errors
    ///
    /// `SchemaMismatch` where data does not fit, naming the column, both types and the first offending row if it is a
    /// value; `NotFound` for an unknown table that may not be made; `LimitExceeded` past the limits on rows, bytes or
    /// memory; and the stream's own errors.
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary>;
}
