//! The engine: both ports in this process.
//!
//! It orchestrates and holds no algorithm: the catalogue has the tables, the storage their columns, the executor runs
//! SQL. Every call does its work on the engine's runtime, so that whoever drives the ports – a socket – is never held
//! up by a query, and a call that is dropped stops.

mod compaction;
mod flush;
mod ingest;
mod parameters;
mod statements;
mod system_tables;
mod table_lock;
mod table_rules;

use crate::domain::catalog::{Catalog, Commit, Rejection, Snapshot};
use crate::domain::engine::compaction::compact_tables;
use crate::domain::engine::flush::{Flusher, flush_tables};
use crate::domain::engine::ingest::Backpressure;
use crate::domain::engine::parameters::order_by_placeholder;
use crate::domain::engine::statements::{Request, operation};
use crate::domain::executor::{Executor, Prepared, QueryLimits};
use crate::domain::sql::{Name, Parsed, parse};
use crate::domain::storage::{Allocations, Table};
use crate::ports::{
    Access, Append, BatchStream, Caller, Clock, Description, Durability, Error, IngestPort, IngestSummary, Limits,
    MemoryAccount, Query, QueryPort, Reply, Result, SnapshotId, StatementKind, TableInfo, WriterState,
};
use async_trait::async_trait;
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub use crate::domain::catalog::Foundation;
pub use crate::domain::executor::{Lanes, Parallelism, PlanCounts, STACK_BYTES};

/// How an [`Engine`] is to behave.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Its limits.
    pub limits: Limits,
    /// Whether a stream into an unknown table makes that table.
    pub create_tables: bool,
    /// How much of a statement runs at once.
    pub parallelism: Parallelism,
    /// Where a commit has to be before it is acknowledged.
    pub durability: Durability,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            create_tables: true,
            parallelism: Parallelism::default(),
            durability: Durability::default(),
        }
    }
}

/// Tables and SQL over them.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// What the runtime needs to stay alive, for as long as there is a clone of this engine.
    _runtime: Option<Arc<dyn Any + Send + Sync>>,
}

/// What all clones of an engine share.
#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    executor: Executor,
    allocations: Allocations,
    backpressure: Arc<Backpressure>,
    clock: Arc<dyn Clock>,
    /// None where tables are kept in memory alone.
    flusher: Option<Arc<Flusher>>,
    options: EngineOptions,
    lanes: Lanes,
}

impl Engine {
    /// Makes an engine of the tables that the store and the journal of `foundation` have, whose data is counted in `account`; before
    /// anything is refused there, the engine gives up what is on the disk as well, and snapshots that nobody has used for a while. It works on `lanes`, which should be its own,
    /// with threads whose stack has [`STACK_BYTES`].
    ///
    /// # Errors
    ///
    /// The store's and the journal's, and `Internal` where the SQL engine does not start.
    pub fn open(
        lanes: impl Into<Lanes>,
        options: EngineOptions,
        account: MemoryAccount,
        foundation: Foundation,
    ) -> Result<Self> {
        let (lanes, limits) = (lanes.into(), &options.limits);
        let allocations = Allocations::new(account.clone());
        let clock = foundation.clock.clone();
        let (store, journal) = (foundation.store.clone(), foundation.journal.clone());
        let catalog = Catalog::open(limits, allocations.clone(), foundation)?;
        let flusher = |store| Arc::new(Flusher::new(store, journal, limits, catalog.recovery().checkpoint));
        let inner = Arc::new(Inner {
            flusher: store.map(flusher),
            catalog,
            executor: Executor::new(lanes.clone(), limits, options.parallelism)?,
            allocations,
            backpressure: Backpressure::new(options.limits.staged_bytes_max),
            clock,
            options,
            lanes: lanes.clone(),
        });
        let weak = Arc::downgrade(&inner);
        account.relieved_by(move || {
            weak.upgrade().is_some_and(|inner| {
                inner.evict_segments() || inner.catalog.forget_codes() || inner.catalog.evict_pin()
            })
        });
        lanes.quick.spawn(expire_pins(Arc::downgrade(&inner)));
        lanes.quick.spawn(compact_tables(Arc::downgrade(&inner)));
        if inner.flusher.is_some() {
            lanes.quick.spawn(flush_tables(Arc::downgrade(&inner)));
        }
        Ok(Self { inner, _runtime: None })
    }

    /// Returns the same engine, which keeps `runtime` until its last clone is gone.
    #[must_use]
    pub fn keeping(self, runtime: Arc<dyn Any + Send + Sync>) -> Self {
        Self { _runtime: Some(runtime), ..self }
    }

    /// Returns how often the plan of a statement was there already, and how often it had to be made.
    pub fn plan_counts(&self) -> PlanCounts {
        self.inner.executor.plan_counts()
    }

    /// Writes all rows to the disk, from where the next start goes on; nothing where tables are kept in memory alone.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where there is no space, `Unavailable` where the disk fails.
    pub async fn flush(&self) -> Result<()> {
        self.call(|inner| async move { inner.flush().await }).await
    }

    /// Has all rows leave memory that are on the disk as well and that nobody reads; returns their bytes.
    pub fn evict(&self) -> u64 {
        flush::evict_all(&self.inner)
    }

    /// Runs a call on the engine's runtime.
    async fn call<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.inner.executor.on_quick_lane(work(self.inner.clone())).await
    }
}

#[async_trait]
impl QueryPort for Engine {
    async fn describe(&self, query: Query) -> Result<Description> {
        self.call(|inner| async move { inner.describe(query).await }).await
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let snapshot = self.inner.snapshot_of(&query)?;
        match self.inner.cached(&query, &snapshot) {
            // What computes nothing is answered before a thread of the engine would have been woken for it.
            Some(prepared) if prepared.is_passthrough() => self.inner.reply(&prepared, snapshot, &query).await,
            Some(prepared) => self.call(|inner| async move { inner.reply(&prepared, snapshot, &query).await }).await,
            None => self.call(|inner| async move { inner.query(snapshot, query).await }).await,
        }
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        self.call(|inner| async move { inner.exchange(query, input).await }).await
    }

    async fn snapshot(&self, _: Caller) -> Result<SnapshotId> {
        Ok(self.inner.catalog.pin())
    }

    async fn tables(&self, _: Caller) -> Result<Vec<TableInfo>> {
        Ok(self.inner.catalog.current().tables().map(|table| table_info(table)).collect())
    }

    async fn table(&self, name: String, _: Caller) -> Result<TableInfo> {
        self.inner.catalog.current().table(&name).map(|table| table_info(table))
    }
}

#[async_trait]
impl IngestPort for Engine {
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary> {
        self.call(|inner| async move { inner.append(request, batches).await }).await
    }

    async fn writer(&self, table: String, writer: String, _: Caller) -> Result<WriterState> {
        self.inner.writer(&table, &writer)
    }
}

impl Inner {
    async fn describe(self: &Arc<Self>, query: Query) -> Result<Description> {
        let snapshot = self.snapshot_of(&query)?;
        if let Some(prepared) = self.cached(&query, &snapshot) {
            return self.describe_prepared(&prepared, snapshot, &query).await;
        }
        let (Parsed { statement, params: parameters }, query) = self.parse(query).await?;
        operation(statement)?.describe(self, Request { query, snapshot, parameters }).await
    }

    /// Answers a statement whose plan is not cached.
    async fn query(self: Arc<Self>, snapshot: Arc<Snapshot>, query: Query) -> Result<Reply> {
        let (Parsed { statement, params: parameters }, query) = self.parse(query).await?;
        let (kind, request) = (statement.kind(), Request { query, snapshot, parameters });
        let operation = operation(statement)?;
        let batches = if kind == StatementKind::Read {
            operation.execute(&self, request).await?
        } else {
            // What a change rewrites may take a while.
            let inner = self.clone();
            self.executor.on_heavy_lane(async move { operation.execute(&inner, request).await }).await?
        };
        Ok(Reply { kind, batches })
    }

    /// Answers a read whose plan is cached.
    async fn reply(&self, prepared: &Prepared, snapshot: Arc<Snapshot>, query: &Query) -> Result<Reply> {
        let limits = self.query_limits(query);
        let batches = self.run_prepared(prepared, snapshot, query, limits).await?;
        Ok(Reply { kind: StatementKind::Read, batches })
    }

    /// Works on a statement where it can keep nobody else waiting: parsing and planning never yield.
    async fn planning<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.clone();
        self.executor.on_own_thread(deadline, move || work(&inner)).await
    }

    /// Parses a statement and checks that the caller lets it do what it does; returns the query with its parameters in order.
    async fn parse(self: &Arc<Self>, query: Query) -> Result<(Parsed, Query)> {
        self.planning(self.time_limit(&query), move |inner| inner.parse_now(query)).await
    }

    fn parse_now(&self, query: Query) -> Result<(Parsed, Query)> {
        let parsed = parse(&query.sql, &self.options.limits)?;
        let params = order_by_placeholder(query.params, &parsed.params)?;
        let query = Query { params, ..query };
        match (parsed.statement.kind(), query.access) {
            (StatementKind::Read, _) => Ok((parsed, query)),
            (_, Access::Change) if query.snapshot.is_none() && query.part.is_none() => Ok((parsed, query)),
            (_, Access::Change) => {
                Err(Error::invalid("a change works on the present state, not on a snapshot or part"))
            }
            (kind, Access::Read) => Err(Error::invalid(format!(
                "this is a {kind}, and only reads are taken here; send it as POST / over HTTP or as a Flight SQL update"
            ))),
        }
    }

    /// Commits, as durably as the engine is to be.
    async fn commit(&self, commit: Commit) -> Result<(), Rejection> {
        self.catalog.commit(commit, self.options.durability).await
    }

    fn snapshot_of(&self, query: &Query) -> Result<Arc<Snapshot>> {
        query.snapshot.map_or_else(|| Ok(self.catalog.current()), |id| self.catalog.pinned(id))
    }

    /// Finds a table by the name that SQL gave it.
    fn table(&self, snapshot: &Snapshot, name: &Name) -> Result<Arc<Table>> {
        snapshot.table(snapshot.resolve(&name.text, name.quoted)?).cloned()
    }

    /// Returns the plan of a read that was asked before. With parameters it is another statement each time.
    fn cached(&self, query: &Query, snapshot: &Snapshot) -> Option<Arc<Prepared>> {
        query.params.is_none().then(|| self.executor.cached(&query.sql, snapshot)).flatten()
    }

    /// Returns how long one client is waited for.
    fn stall_timeout(&self) -> Option<Duration> {
        time_limit(self.options.limits.stall_timeout_ms)
    }

    /// Returns the instant by which what comes before the first row has to be done: parsing, planning, waiting for a table.
    fn time_limit(&self, query: &Query) -> Option<Instant> {
        let own = time_limit(self.options.limits.query_timeout_ms).and_then(|most| Instant::now().checked_add(most));
        [query.deadline, own].into_iter().flatten().min()
    }

    /// Returns what a query may use.
    fn query_limits(&self, query: &Query) -> QueryLimits {
        QueryLimits::new(time_limit(self.options.limits.query_timeout_ms), self.stall_timeout(), query.deadline)
    }
}

fn table_info(table: &Table) -> TableInfo {
    TableInfo {
        name: table.name().to_string(),
        schema: table.schema().clone(),
        rows: Some(table.rows()),
        bytes: Some(table.data_bytes()),
        time_column: table.time_column().map(str::to_owned),
    }
}

/// Returns a limit in time, where 0 is none.
fn time_limit(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// Drops expired pins while nobody asks for them, as long as there is an engine.
async fn expire_pins(engine: Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let Some(inner) = engine.upgrade() else { return };
        inner.catalog.expire_pins();
    }
}
