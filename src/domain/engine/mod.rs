//! The engine: both ports in this process.
//!
//! It orchestrates and holds no algorithm: the catalogue has the tables, the storage their columns, the executor runs
//! SQL. Every call does its work on the engine's runtime, so that whoever drives the ports – a socket – is never held
//! up by a query, and a call that is dropped stops.

mod alter;
mod answers;
mod change;
mod define;
mod exchange;
mod ingest;
mod insert;
mod merge;
mod params;
mod stage;
mod turns;

use crate::domain::catalog::{Catalog, Snapshot};
use crate::domain::engine::answers::{
    count_schema, counted, describe_schema, describe_table, show_tables, show_tables_schema,
};
use crate::domain::engine::params::in_order;
use crate::domain::engine::turns::Turns;
use crate::domain::executor::{Executor, Parameters, PlanInput, PlanRequest, Prepared, QueryLimits};
use crate::domain::sql::{Name, Parsed, ReadStatement, Statement, parse};
use crate::domain::storage::Budget;
use crate::ports::{
    Access, Append, BatchStream, Description, Error, IngestPort, IngestSummary, Limits, Query, QueryPort, Reply,
    Result, SnapshotId, StatementKind, TableInfo,
};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

pub use crate::domain::executor::{Lanes, PlanCounts, STACK_BYTES};

/// How an [`Engine`] is to behave.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Its limits.
    pub limits: Limits,
    /// Whether a stream into an unknown table makes that table.
    pub create_tables: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), create_tables: true }
    }
}

/// Tables in memory and SQL over them.
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
    budget: Budget,
    permits: Arc<Semaphore>,
    turns: Arc<Turns>,
    options: EngineOptions,
    lanes: Lanes,
}

impl Engine {
    /// Makes an engine without tables. It works on `lanes`, which should be its own, with threads whose stack has
    /// [`STACK_BYTES`].
    ///
    /// # Errors
    ///
    /// `Internal` where the SQL engine does not start.
    pub fn new(lanes: impl Into<Lanes>, options: EngineOptions) -> Result<Self> {
        let (lanes, limits) = (lanes.into(), &options.limits);
        let permits = usize::try_from(limits.query_concurrency_max).unwrap_or(usize::MAX);
        let inner = Arc::new(Inner {
            catalog: Catalog::new(limits, u64::try_from(ingest::now_ns() / 1_000).unwrap_or(0)),
            executor: Executor::new(lanes.clone(), limits)?,
            budget: Budget::new(limits.memory_bytes_max),
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            turns: Turns::new(options.limits.staged_bytes_max),
            options,
            lanes: lanes.clone(),
        });
        let weak = Arc::downgrade(&inner);
        inner.budget.relieved_by(move || weak.upgrade().is_some_and(|inner| inner.catalog.give_up_pin()));
        lanes.quick.spawn(expire_pins(Arc::downgrade(&inner)));
        Ok(Self { inner, _runtime: None })
    }

    /// The same engine, which keeps `runtime` until its last clone is gone.
    #[must_use]
    pub fn keeping(self, runtime: Arc<dyn Any + Send + Sync>) -> Self {
        Self { _runtime: Some(runtime), ..self }
    }

    /// How often the plan of a statement was there already, and how often it had to be made.
    pub fn plan_counts(&self) -> PlanCounts {
        self.inner.executor.plan_counts()
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
        match self.inner.kept(&query, &snapshot) {
            // What computes nothing is answered before a thread of the engine would have been woken for it.
            Some(prepared) if prepared.is_passthrough() => self.inner.reply(&prepared, snapshot, &query).await,
            Some(prepared) => self.call(|inner| async move { inner.reply(&prepared, snapshot, &query).await }).await,
            None => self.call(|inner| async move { inner.query(snapshot, query).await }).await,
        }
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        self.call(|inner| async move { inner.exchange(query, input).await }).await
    }

    async fn snapshot(&self) -> Result<SnapshotId> {
        Ok(self.inner.catalog.pin())
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        let snapshot = self.inner.catalog.present();
        let info = |(name, table): (&String, &Arc<crate::domain::storage::Table>)| TableInfo {
            name: name.clone(),
            schema: table.schema().clone(),
            rows: table.rows(),
            bytes: table.bytes(),
        };
        Ok(snapshot.tables().iter().map(info).collect())
    }
}

#[async_trait]
impl IngestPort for Engine {
    async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary> {
        self.call(|inner| async move { inner.append(request, batches).await }).await
    }
}

impl Inner {
    async fn describe(self: &Arc<Self>, query: Query) -> Result<Description> {
        let snapshot = self.snapshot_of(&query)?;
        if let Some(prepared) = self.kept(&query, &snapshot) {
            return self.described(&prepared, snapshot, &query).await;
        }
        let (Parsed { statement, params }, query) = self.parse(query).await?;
        let kind = statement.kind();
        if query.params.is_none() && !params.is_empty() {
            return self.describe_open(statement, &params, snapshot, &query).await;
        }
        let nothing = query.part.is_some_and(|part| part.index() > 0);
        let known = |schema, rows| Description::new(kind, schema, Some(if nothing { 0 } else { rows }));
        Ok(match statement {
            Statement::Read(statement) => {
                let prepared = self.prepare(*statement, &snapshot, &query).await?;
                self.described(&prepared, snapshot, &query).await?
            }
            Statement::ShowTables => known(show_tables_schema(), snapshot.tables().len() as u64),
            Statement::Describe(table) => {
                let table = self.table(&snapshot, &table)?.1;
                known(describe_schema(), table.schema().fields().len() as u64)
            }
            Statement::Insert(_) => known(count_schema("inserted"), 1),
            Statement::Update(_) => known(count_schema("updated"), 1),
            Statement::Delete(_) | Statement::Truncate(_) => known(count_schema("deleted"), 1),
            Statement::CreateTable(_) | Statement::DropTables(_) | Statement::AlterTable(_) => {
                known(Arc::new(Schema::empty()), 0)
            }
            Statement::Refused { what, .. } => return Err(refused(&what)),
        })
    }

    /// Answers a statement whose plan is not kept.
    async fn query(self: Arc<Self>, snapshot: Arc<Snapshot>, query: Query) -> Result<Reply> {
        let (Parsed { statement, .. }, query) = self.parse(query).await?;
        let kind = statement.kind();
        if kind != StatementKind::Read {
            // What a change rewrites may take a while.
            let inner = self.clone();
            let work = async move { inner.change(statement, query).await };
            return Ok(Reply { kind, batches: self.executor.on_heavy_lane(work).await? });
        }
        let batches = match statement {
            Statement::Read(statement) => {
                let allowance = self.allowance(&query)?;
                let prepared = self.prepare(*statement, &snapshot, &query).await?;
                self.run(&prepared, snapshot, &query, allowance).await?
            }
            Statement::ShowTables => first_part(show_tables(&snapshot), &query),
            Statement::Describe(table) => first_part(describe_table(self.table(&snapshot, &table)?.1.schema()), &query),
            Statement::Refused { what, .. } => return Err(refused(&what)),
            _ => return Err(Error::internal("a statement that reads is not known to read")),
        };
        Ok(Reply { kind, batches })
    }

    /// Makes a change or definition.
    async fn change(self: Arc<Self>, statement: Statement, query: Query) -> Result<BatchStream> {
        Ok(match statement {
            Statement::Insert(insert) => counted("inserted", self.insert(insert, &query).await?),
            Statement::Update(update) => counted("updated", self.update(update, &query).await?),
            Statement::Delete(delete) => counted("deleted", self.delete(delete, &query).await?),
            Statement::Truncate(truncate) => counted("deleted", self.truncate(&truncate, &query).await?),
            Statement::CreateTable(create) => self.create_table(create, &query).await?,
            Statement::DropTables(drop) => self.drop_tables(&drop)?,
            Statement::AlterTable(alter) => self.alter_table(alter, &query).await?,
            Statement::Refused { what, .. } => return Err(refused(&what)),
            Statement::Read(_) | Statement::ShowTables | Statement::Describe(_) => {
                return Err(Error::internal("a statement that changes is not known to change"));
            }
        })
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

    /// The statement, if the caller lets it do what it does, and the query with its parameters in order.
    async fn parse(self: &Arc<Self>, query: Query) -> Result<(Parsed, Query)> {
        self.planning(self.time_limit(&query), move |inner| inner.parse_now(query)).await
    }

    fn parse_now(&self, query: Query) -> Result<(Parsed, Query)> {
        let parsed = parse(&query.sql, &self.options.limits)?;
        let params = in_order(query.params, &parsed.params)?;
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

    fn snapshot_of(&self, query: &Query) -> Result<Arc<Snapshot>> {
        query.snapshot.map_or_else(|| Ok(self.catalog.present()), |id| self.catalog.pinned(id))
    }

    /// A table by the name that SQL gave it: its exact name and its state.
    fn table(&self, snapshot: &Snapshot, name: &Name) -> Result<(String, Arc<crate::domain::storage::Table>)> {
        let exact = snapshot.resolve(&name.text, name.quoted)?;
        Ok((exact.to_owned(), snapshot.table(exact)?.clone()))
    }

    /// The plan of a read that was asked before. With parameters it is another statement each time.
    fn kept(&self, query: &Query, snapshot: &Snapshot) -> Option<Arc<Prepared>> {
        query.params.is_none().then(|| self.executor.cached(&query.sql, snapshot)).flatten()
    }

    async fn prepare(
        self: &Arc<Self>,
        statement: ReadStatement,
        snapshot: &Arc<Snapshot>,
        query: &Query,
    ) -> Result<Arc<Prepared>> {
        let parameters = Parameters::Bound(query.params.clone());
        let request = PlanRequest { statement, target: None, parameters };
        let (sql, snapshot) = (query.sql.clone(), snapshot.clone());
        self.planning(self.time_limit(query), move |inner| inner.executor.prepare_and_cache(&sql, request, &snapshot))
            .await
    }

    /// Plans what is of no use to others.
    async fn prepare_once(
        self: &Arc<Self>,
        request: PlanRequest,
        snapshot: &Arc<Snapshot>,
        query: &Query,
    ) -> Result<Prepared> {
        let snapshot = snapshot.clone();
        self.planning(self.time_limit(query), move |inner| inner.executor.prepare(request, &snapshot)).await
    }

    /// The answer to a read whose plan is of no use to others.
    async fn read(
        self: &Arc<Self>,
        statement: ReadStatement,
        snapshot: Arc<Snapshot>,
        query: &Query,
    ) -> Result<BatchStream> {
        let allowance = self.allowance(query)?;
        let parameters = Parameters::Bound(query.params.clone());
        let request = PlanRequest { statement, target: None, parameters };
        let prepared = self.prepare_once(request, &snapshot, query).await?;
        self.run(&prepared, snapshot, query, allowance).await
    }

    /// The answer to a read whose plan is kept.
    async fn reply(&self, prepared: &Prepared, snapshot: Arc<Snapshot>, query: &Query) -> Result<Reply> {
        let allowance = self.allowance(query)?;
        let batches = self.run(prepared, snapshot, query, allowance).await?;
        Ok(Reply { kind: StatementKind::Read, batches })
    }

    async fn described(&self, prepared: &Prepared, snapshot: Arc<Snapshot>, query: &Query) -> Result<Description> {
        let plan = self.executor.bind(prepared, PlanInput { snapshot, target: None, part: query.part }).await?;
        Ok(Description::new(StatementKind::Read, plan.schema, plan.rows))
    }

    async fn run(
        &self,
        prepared: &Prepared,
        snapshot: Arc<Snapshot>,
        query: &Query,
        allowance: QueryLimits,
    ) -> Result<BatchStream> {
        let plan = self.executor.bind(prepared, PlanInput { snapshot, target: None, part: query.part }).await?;
        self.executor.run(plan, allowance).await
    }

    /// How long one client is waited for.
    fn patience(&self) -> Option<Duration> {
        limited(self.options.limits.stall_timeout_ms)
    }

    /// Returns the instant by which what comes before the first row has to be done: parsing, planning, waiting for a table.
    fn time_limit(&self, query: &Query) -> Option<Instant> {
        let own = limited(self.options.limits.query_timeout_ms).and_then(|most| Instant::now().checked_add(most));
        [deadline(query), own].into_iter().flatten().min()
    }

    fn allowance(&self, query: &Query) -> Result<QueryLimits> {
        let limits = &self.options.limits;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            Error::limit(format!(
                "{} queries are running already (query_concurrency_max)",
                limits.query_concurrency_max
            ))
        })?;
        Ok(QueryLimits::new(limited(limits.query_timeout_ms), self.patience(), deadline(query), permit))
    }
}

/// The instant by which the caller wants the last batch.
fn deadline(query: &Query) -> Option<Instant> {
    query.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
}

/// A limit in time, where 0 is none.
fn limited(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// What cannot be divided is in the first part.
fn first_part(batches: BatchStream, query: &Query) -> BatchStream {
    if query.part.is_some_and(|part| part.index() > 0) { BatchStream::empty(batches.schema()) } else { batches }
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

/// Lets expired pins go while nobody asks for them, as long as there is an engine.
async fn expire_pins(engine: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let Some(inner) = engine.upgrade() else { return };
        inner.catalog.expire_pins();
    }
}
