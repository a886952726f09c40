//! A server whose rows leave memory after every change: whatever it answers, it read from the disk.

use crate::harness::url_of;
use async_trait::async_trait;
use tempfile::TempDir;
use zepto_flight::app;
use zepto_flight::domain::{Engine, EngineOptions};
use zepto_flight::ports::{
    Access, Append, BatchStream, Caller, Description, IngestPort, IngestSummary, Query, QueryPort, Reply, Result,
    SnapshotId, TableInfo, WriterState,
};

#[derive(Debug)]
pub struct Flushed {
    engine: Engine,
    _directory: TempDir,
}

impl Flushed {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = app::engine(&url_of(directory.path()), EngineOptions::default()).unwrap().0;
        Self { engine, _directory: directory }
    }

    async fn flush(&self) {
        self.engine.flush().await.unwrap();
        self.engine.evict();
    }
}

#[async_trait]
impl QueryPort for Flushed {
    async fn describe(&self, query: Query) -> Result<Description> {
        self.engine.describe(query).await
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let changes = query.access == Access::Change;
        let Reply { kind, batches } = self.engine.query(query).await?;
        if !changes {
            self.engine.evict();
            return Ok(Reply { kind, batches });
        }
        let schema = batches.schema();
        let answer = batches.collect().await?;
        self.flush().await;
        Ok(Reply { kind, batches: BatchStream::from_batches(schema, answer) })
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        self.engine.exchange(query, input).await
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        self.engine.snapshot(caller).await
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        self.engine.tables(caller).await
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        self.engine.table(name, caller).await
    }
}

#[async_trait]
impl IngestPort for Flushed {
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary> {
        let summary = self.engine.append(request, batches).await?;
        self.flush().await;
        Ok(summary)
    }

    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState> {
        self.engine.writer(table, writer, caller).await
    }
}
