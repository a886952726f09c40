//! A server that is started again after every change: whatever it answers, it read from its directory.

use crate::harness::url_of;
use async_trait::async_trait;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use zepto_flight::app::{self, Backend};
use zepto_flight::domain::EngineOptions;
use zepto_flight::ports::{
    Access, Append, BatchStream, Caller, Description, ErrorKind, IngestPort, IngestSummary, Query, QueryPort, Reply,
    Result, SnapshotId, TableInfo, WriterState,
};

#[derive(Debug)]
pub struct Restarted {
    backend: Mutex<Option<Backend>>,
    /// Snapshots end with the process: once one was taken there is no other start.
    is_pinned: AtomicBool,
    directory: TempDir,
}

impl Restarted {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = app::connect(&url_of(directory.path()), EngineOptions::default()).unwrap();
        Self { backend: Mutex::new(Some(backend)), is_pinned: AtomicBool::new(false), directory }
    }

    fn backend(&self) -> Backend {
        self.backend.lock().unwrap().clone().unwrap()
    }

    async fn restart(&self) {
        if self.is_pinned.load(Ordering::Relaxed) {
            return;
        }
        *self.backend.lock().unwrap() = None;
        // Streams of the one before may still be open, and what works in the background ends soon.
        for _ in 0..500 {
            match app::connect(&url_of(self.directory.path()), EngineOptions::default()) {
                Ok(backend) => {
                    *self.backend.lock().unwrap() = Some(backend);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the directory stays in use");
    }
}

#[async_trait]
impl QueryPort for Restarted {
    async fn describe(&self, query: Query) -> Result<Description> {
        self.backend().query.describe(query).await
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let changes = query.access == Access::Change;
        let Reply { kind, batches } = self.backend().query.query(query).await?;
        if !changes {
            return Ok(Reply { kind, batches });
        }
        let schema = batches.schema();
        let answer = batches.collect().await?;
        self.restart().await;
        Ok(Reply { kind, batches: BatchStream::from_batches(schema, answer) })
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        self.backend().query.exchange(query, input).await
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        self.is_pinned.store(true, Ordering::Relaxed);
        self.backend().query.snapshot(caller).await
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        self.backend().query.tables(caller).await
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        self.backend().query.table(name, caller).await
    }
}

#[async_trait]
impl IngestPort for Restarted {
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary> {
        let summary = self.backend().ingest.append(request, batches).await?;
        self.restart().await;
        Ok(summary)
    }

    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState> {
        self.backend().ingest.writer(table, writer, caller).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fitted_under_a_limit_is_there_again_under_it() {
    use crate::harness::numbers;
    use zepto_flight::ports::Limits;
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { memory_bytes_max: 5_000_000, ..Limits::default() };
    let open =
        || app::connect(&url_of(directory.path()), EngineOptions { limits: limits.clone(), ..Default::default() });
    let backend = open().unwrap();
    let mut rows = 0;
    for _ in 0..200 {
        let batch = numbers(0, 6_000);
        let request = Append { table: "t".into(), ..Append::default() };
        let put = backend.ingest.append(request, BatchStream::from_batches(batch.schema(), vec![batch])).await;
        rows += put.map_or(0, |summary| summary.rows);
        let delete = "DELETE FROM t WHERE n % 10 < 4 AND n % 3 = 0";
        let counts = backend.query.query(Query::change(delete)).await.unwrap().batches.collect().await.unwrap();
        rows -= crate::harness::int(&counts) as u64;
    }
    drop(backend);
    for _ in 0..500 {
        match open() {
            Ok(backend) => {
                assert_eq!(backend.query.table("t".into(), Caller::default()).await.unwrap().rows, Some(rows));
                return;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the directory stays in use");
}
