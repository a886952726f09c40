//! Backends and servers for tests: on 127.0.0.1, on a free port, gone when the test is.

use crate::durability::flushed::Flushed;
use crate::durability::restarted::Restarted;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use zepto_flight::adapters::serving::{ServerInfo, ServerOptions};
use zepto_flight::adapters::{flight, http};
use zepto_flight::app::{self, Backend};
use zepto_flight::domain::{EngineOptions, Parallelism};
use zepto_flight::ports::{
    Append, BatchStream, IngestPort, IngestSummary, Limits, MemoryAccount, Query, QueryPort, Reply, Result,
};

/// What a case is run against.
#[derive(Clone)]
pub struct Sut {
    pub query: Arc<dyn QueryPort>,
    pub ingest: Arc<dyn IngestPort>,
    /// Whatever has to live as long.
    _guards: Vec<Arc<Guard>>,
    /// What the tables are kept in, gone after them.
    _directory: Option<Arc<tempfile::TempDir>>,
}

/// A server that stops when dropped.
pub struct Guard {
    _stop: oneshot::Sender<()>,
}

/// A server's address.
pub struct Served {
    pub url: String,
    pub guard: Arc<Guard>,
}

pub fn memory() -> Backend {
    memory_with(Limits::default())
}

pub fn memory_with(limits: Limits) -> Backend {
    app::connect("memory:", EngineOptions { limits, create_tables: true, ..EngineOptions::default() }).unwrap()
}

pub fn server_options(limits: Limits) -> ServerOptions {
    let info = ServerInfo { version: "test".into(), backend: "test:".into(), protocols: Vec::new() };
    ServerOptions { limits, info, ..ServerOptions::default() }
}

/// Options of a server that counts memory together with its backend.
fn shared_options(backend: &Backend, limits: Limits) -> ServerOptions {
    ServerOptions { memory: backend.memory.clone(), ..server_options(limits) }
}

pub async fn serve_flight(backend: Backend, limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = flight::Server::new(backend.query.clone(), backend.ingest.clone(), shared_options(&backend, limits));
    tokio::spawn(server.serve(listener, async move {
        let _ = stopped.await;
    }));
    Served { url, guard: Arc::new(Guard { _stop: stop }) }
}

pub async fn serve_http(backend: Backend, limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = http::Server::new(backend.query.clone(), backend.ingest.clone(), shared_options(&backend, limits));
    tokio::spawn(server.serve(listener, async move {
        let _ = stopped.await;
    }));
    Served { url, guard: Arc::new(Guard { _stop: stop }) }
}

/// The client of a URL.
pub fn connect(url: &str) -> Backend {
    app::connect(url, EngineOptions::default()).unwrap()
}

/// The URL of tables that are kept in a directory.
pub fn url_of(directory: &std::path::Path) -> String {
    format!("file:{}", directory.display())
}

impl Sut {
    pub fn of(backend: Backend, guards: Vec<Arc<Guard>>) -> Self {
        Self { query: backend.query, ingest: backend.ingest, _guards: guards, _directory: None }
    }

    pub async fn in_process() -> Self {
        let backend = memory();
        Self::of(backend, Vec::new())
    }

    /// An engine that divides every statement into so many parts, however few rows there are.
    pub async fn in_parts(partitions: usize) -> Self {
        let parallelism = Parallelism { partitions, rows_min: 0 };
        Self::of(
            app::connect("memory:", EngineOptions { parallelism, ..EngineOptions::default() }).unwrap(),
            Vec::new(),
        )
    }

    /// An engine whose data may take so many bytes, and their account.
    pub fn with_memory(memory_bytes_max: u64) -> (Self, MemoryAccount) {
        let backend = memory_with(Limits { memory_bytes_max, ..Limits::default() });
        let account = backend.memory.clone();
        (Self::of(backend, Vec::new()), account)
    }

    /// An engine over a directory that is gone with it.
    pub async fn durable() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = app::connect(&url_of(directory.path()), EngineOptions::default()).unwrap();
        Self { _directory: Some(Arc::new(directory)), ..Self::of(backend, Vec::new()) }
    }

    /// An engine over a directory that is started again after every change.
    pub async fn restarted() -> Self {
        let ports = Arc::new(Restarted::new());
        Self { query: ports.clone(), ingest: ports, _guards: Vec::new(), _directory: None }
    }

    /// An engine whose rows leave memory after every change.
    pub async fn flushed() -> Self {
        let ports = Arc::new(Flushed::new());
        Self { query: ports.clone(), ingest: ports, _guards: Vec::new(), _directory: None }
    }

    pub async fn flight() -> Self {
        let served = serve_flight(memory(), Limits::default()).await;
        Self::of(connect(&served.url), vec![served.guard])
    }

    pub async fn http() -> Self {
        let served = serve_http(memory(), Limits::default()).await;
        Self::of(connect(&served.url), vec![served.guard])
    }

    /// HTTP client → HTTP server → Flight client → Flight server → engine.
    pub async fn gateway() -> Self {
        let inner = serve_flight(memory(), Limits::default()).await;
        let outer = serve_http(connect(&inner.url), Limits::default()).await;
        Self::of(connect(&outer.url), vec![outer.guard, inner.guard])
    }

    pub async fn stub() -> Self {
        Self::of(connect("stub:"), Vec::new())
    }

    pub async fn read(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let reply = self.query.query(Query::read(sql)).await?;
        reply.batches.collect().await
    }

    pub async fn rows(&self, sql: &str) -> u64 {
        self.read(sql).await.unwrap().iter().map(|batch| batch.num_rows() as u64).sum()
    }

    pub async fn change(&self, sql: &str) -> Result<Reply> {
        self.query.query(Query::change(sql)).await
    }

    /// The count that a change answers.
    pub async fn count(&self, sql: &str) -> i64 {
        let batches =
            self.change(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).batches.collect().await.unwrap();
        int(&batches)
    }

    pub async fn define(&self, sql: &str) {
        self.change(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub async fn put(&self, table: &str, batches: Vec<RecordBatch>) -> Result<IngestSummary> {
        let schema = batches[0].schema();
        self.append(table, schema, batches).await
    }

    pub async fn append(&self, table: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<IngestSummary> {
        let request = Append { table: table.to_owned(), ..Append::default() };
        self.ingest.append(request, BatchStream::from_batches(schema, batches)).await
    }
}

/// The only value of a one-cell result.
pub fn int(batches: &[RecordBatch]) -> i64 {
    use arrow::array::AsArray;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let column = arrow::compute::cast(batches[0].column(0), &arrow::datatypes::DataType::Int64).unwrap();
    column.as_primitive::<arrow::datatypes::Int64Type>().value(0)
}

/// All rows as one batch.
pub fn one(batches: &[RecordBatch]) -> RecordBatch {
    arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap()
}

/// Three columns, `rows` rows, counted from `first`.
pub fn numbers(first: i64, rows: i64) -> RecordBatch {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    let n = Int64Array::from_iter_values(first..first + rows);
    let half = Float64Array::from_iter_values((first..first + rows).map(|n| n as f64 / 2.0));
    let name = StringArray::from_iter((first..first + rows).map(|n| (n % 5 != 0).then(|| format!("row {n}"))));
    RecordBatch::try_from_iter_with_nullable([
        ("n", Arc::new(n) as _, true),
        ("half", Arc::new(half) as _, true),
        ("name", Arc::new(name) as _, true),
    ])
    .unwrap()
}
