//! Read-only mode, over any implementation of the ports: answers reads and refuses everything else.

use crate::ports::{
    Access, Append, BatchStream, Caller, Description, Error, ErrorKind, IngestPort, IngestSummary, Query, QueryPort,
    Reply, Result, SnapshotId, StatementKind, TableInfo, WriterState,
};
use async_trait::async_trait;
use std::sync::Arc;

/// Ports that change nothing.
#[derive(Debug)]
pub struct ReadOnly {
    inner: Arc<dyn QueryPort>,
    ingest: Arc<dyn IngestPort>,
}

impl ReadOnly {
    /// Refuses changes before they reach the ports.
    pub fn new(inner: Arc<dyn QueryPort>, ingest: Arc<dyn IngestPort>) -> Self {
        Self { inner, ingest }
    }

    /// Says that a statement which is not a read is refused for what it is, and leaves all other errors as they are.
    async fn explain(&self, query: Query, error: Error) -> Error {
        if error.kind() != ErrorKind::InvalidQuery {
            return error;
        }
        match self.inner.describe(Query { access: Access::Change, ..query }).await {
            Ok(description) if description.kind != StatementKind::Read => refused(),
            _ => error,
        }
    }
}

#[async_trait]
impl QueryPort for ReadOnly {
    async fn describe(&self, query: Query) -> Result<Description> {
        self.inner.describe(query).await
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        if query.access == Access::Read {
            return self.inner.query(query).await;
        }
        match self.inner.query(Query { access: Access::Read, ..query.clone() }).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.explain(query, error).await),
        }
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        self.inner.exchange(query, input).await
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        self.inner.snapshot(caller).await
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        self.inner.tables(caller).await
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        self.inner.table(name, caller).await
    }
}

#[async_trait]
impl IngestPort for ReadOnly {
    async fn append(&self, _: Append, _: BatchStream) -> Result<IngestSummary> {
        Err(refused())
    }

    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState> {
        self.ingest.writer(table, writer, caller).await
    }
}

fn refused() -> Error {
    Error::unsupported("this server is read-only (--read-only)")
}
