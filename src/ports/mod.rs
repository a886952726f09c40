//! The ports: the service contract, and every value that appears in its signatures.
//!
//! Ports sit at the bottom of the house: the domain implements them, the protocol clients implement them across the
//! wire, the protocol servers drive them. So they name no engine, no protocol and no status code, and everything they
//! say can be written to a wire: values and batches, never sessions, handles or plans.

mod batches;
mod clock;
mod error;
mod ingest;
mod journal;
mod limits;
mod memory;
mod names;
mod query;
mod store;
mod text_columns;
mod writers;

pub use batches::{BatchSource, BatchStream};
pub use clock::Clock;
pub use error::{Error, ErrorKind, Result};
pub use ingest::{Append, IfExists, IfMissing, IngestPort, IngestSummary};
pub use journal::{Durability, Effect, Entry, Journal, JournalState, Lsn, OnDone, Recorded, TableDefinition};
pub use limits::Limits;
pub use memory::{MemoryAccount, Reservation};
pub use query::{
    Access, Caller, Description, INPUT, Part, Query, QueryPort, Reply, SnapshotId, StatementKind, TableInfo,
    deadline_in_ms,
};
pub use store::{Checkpoint, ColumnFacts, Store, StoreFile, StoredBatch, StoredPart, StoredTable};
pub use text_columns::{TEXT_OF, as_text, intended, stands_for_other};
pub use writers::{WriterCommit, WriterState};
