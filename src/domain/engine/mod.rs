//! The engine: both ports in this process.
//!
//! It orchestrates and holds no algorithm: the catalogue has the tables, the storage their columns, the executor runs
//! SQL. Every call does its work on the engine's runtime, so that whoever drives the ports – a socket – is never held
//! up by a query, and a call that is dropped stops.

mod alter;
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
use crate::domain::engine::params::in_order;
use crate::domain::engine::turns::Turns;
use crate::domain::executor::sql::{Name, Parsed, Statement, parse};
use crate::domain::executor::{Allowance, Executor, Prepared, Question, Source, Values};
use crate::domain::storage::Budget;
use crate::domain::types::sql_name;
use crate::ports::{
    Access, Append, BatchStream, Description, Error, IngestPort, IngestSummary, Limits, Query, QueryPort, Reply,
    Result, SnapshotId, StatementKind, TableInfo,
};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use sqlparser::ast;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use crate::domain::executor::{PlanCounts, STACK_BYTES};

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
    runtime: Handle,
}

impl Engine {
    /// An engine without tables. It works on `runtime`, which should be its own, with threads whose stack has
    /// [`STACK_BYTES`].
    ///
    /// # Errors
    ///
    /// `Internal` where the SQL engine does not start.
    pub fn new(runtime: Handle, options: EngineOptions) -> Result<Self> {
        let limits = &options.limits;
        let permits = usize::try_from(limits.query_concurrency_max).unwrap_or(usize::MAX);
        let inner = Arc::new(Inner {
            catalog: Catalog::new(limits, u64::try_from(ingest::now_ns() / 1_000).unwrap_or(0)),
            executor: Executor::new(runtime.clone(), limits)?,
            budget: Budget::new(limits.memory_bytes_max),
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            turns: Turns::new(options.limits.staged_bytes_max),
            options,
            runtime: runtime.clone(),
        });
        runtime.spawn(expire_pins(Arc::downgrade(&inner)));
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
        self.inner.executor.on_engine(work(self.inner.clone())).await
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
            Some(prepared) if prepared.is_light() => self.inner.reply(&prepared, snapshot, &query).await,
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
    async fn describe(&self, query: Query) -> Result<Description> {
        let snapshot = self.snapshot_of(&query)?;
        if let Some(prepared) = self.kept(&query, &snapshot) {
            return self.described(&prepared, snapshot, &query).await;
        }
        let (Parsed { statement, params }, query) = self.parse(query)?;
        let kind = statement.kind();
        if query.params.is_none() && !params.is_empty() {
            return self.describe_open(statement, &params, snapshot, &query).await;
        }
        let nothing = query.part.is_some_and(|part| part.index() > 0);
        let known = |schema, rows| Description::new(kind, schema, Some(if nothing { 0 } else { rows }));
        Ok(match statement {
            Statement::Read(statement) => {
                let prepared = self.prepare(*statement, &snapshot, &query)?;
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
        let (Parsed { statement, .. }, query) = self.parse(query)?;
        let kind = statement.kind();
        let batches = match statement {
            Statement::Read(statement) => {
                let allowance = self.allowance(&query)?;
                let prepared = self.prepare(*statement, &snapshot, &query)?;
                self.run(&prepared, snapshot, &query, allowance).await?
            }
            Statement::ShowTables => first_part(show_tables(&snapshot), &query),
            Statement::Describe(table) => first_part(describe_table(self.table(&snapshot, &table)?.1.schema()), &query),
            Statement::Insert(insert) => counted("inserted", self.insert(insert, &query).await?),
            Statement::Update(update) => counted("updated", self.update(update, &query).await?),
            Statement::Delete(delete) => counted("deleted", self.delete(delete, &query).await?),
            Statement::Truncate(truncate) => counted("deleted", self.truncate(&truncate).await?),
            Statement::CreateTable(create) => self.create_table(create, &query).await?,
            Statement::DropTables(drop) => self.drop_tables(&drop)?,
            Statement::AlterTable(alter) => self.alter_table(alter).await?,
            Statement::Refused { what, .. } => return Err(refused(&what)),
        };
        Ok(Reply { kind, batches })
    }

    /// The statement, if the caller lets it do what it does, and the query with its parameters in order.
    fn parse(&self, query: Query) -> Result<(Parsed, Query)> {
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
        query.params.is_none().then(|| self.executor.kept(&query.sql, snapshot)).flatten()
    }

    fn prepare(&self, statement: ast::Statement, snapshot: &Snapshot, query: &Query) -> Result<Arc<Prepared>> {
        let question = Question { statement, target: None, values: Values::Given(query.params.clone()) };
        self.executor.prepare_to_keep(&query.sql, question, snapshot)
    }

    /// The answer to a read whose plan is of no use to others.
    async fn read(&self, statement: ast::Statement, snapshot: Arc<Snapshot>, query: &Query) -> Result<BatchStream> {
        let allowance = self.allowance(query)?;
        let question = Question { statement, target: None, values: Values::Given(query.params.clone()) };
        let prepared = self.executor.prepare(question, &snapshot)?;
        self.run(&prepared, snapshot, query, allowance).await
    }

    /// The answer to a read whose plan is kept.
    async fn reply(&self, prepared: &Prepared, snapshot: Arc<Snapshot>, query: &Query) -> Result<Reply> {
        let allowance = self.allowance(query)?;
        let batches = self.run(prepared, snapshot, query, allowance).await?;
        Ok(Reply { kind: StatementKind::Read, batches })
    }

    async fn described(&self, prepared: &Prepared, snapshot: Arc<Snapshot>, query: &Query) -> Result<Description> {
        let plan = self.executor.bind(prepared, Source { snapshot, target: None, part: query.part }).await?;
        Ok(Description::new(StatementKind::Read, plan.schema, plan.rows))
    }

    async fn run(
        &self,
        prepared: &Prepared,
        snapshot: Arc<Snapshot>,
        query: &Query,
        allowance: Allowance,
    ) -> Result<BatchStream> {
        let plan = self.executor.bind(prepared, Source { snapshot, target: None, part: query.part }).await?;
        self.executor.run(plan, allowance).await
    }

    /// How long one client is waited for.
    fn patience(&self) -> Option<Duration> {
        limited(self.options.limits.stall_timeout_ms)
    }

    fn allowance(&self, query: &Query) -> Result<Allowance> {
        let limits = &self.options.limits;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            Error::limit(format!(
                "{} queries are running already (query_concurrency_max)",
                limits.query_concurrency_max
            ))
        })?;
        let deadline = query.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        Ok(Allowance { compute: limited(limits.query_timeout_ms), stall: self.patience(), deadline, _permit: permit })
    }
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

fn count_schema(column: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, false)]))
}

/// The one-row answer of a change.
fn counted(column: &str, rows: u64) -> BatchStream {
    let count = Int64Array::from(vec![i64::try_from(rows).unwrap_or(i64::MAX)]);
    answer(count_schema(column), vec![Arc::new(count)])
}

fn show_tables_schema() -> SchemaRef {
    let name = Field::new("name", DataType::Utf8, false);
    Arc::new(Schema::new(vec![name, Field::new("rows", DataType::Int64, false)]))
}

fn show_tables(snapshot: &Snapshot) -> BatchStream {
    let names = StringArray::from_iter_values(snapshot.tables().keys());
    let rows = snapshot.tables().values().map(|table| i64::try_from(table.rows()).unwrap_or(i64::MAX));
    answer(show_tables_schema(), vec![Arc::new(names), Arc::new(Int64Array::from_iter_values(rows))])
}

fn describe_schema() -> SchemaRef {
    let column = Field::new("column", DataType::Utf8, false);
    Arc::new(Schema::new(vec![column, Field::new("type", DataType::Utf8, false)]))
}

fn describe_table(schema: &Schema) -> BatchStream {
    let names = StringArray::from_iter_values(schema.fields().iter().map(|field| field.name()));
    let types = StringArray::from_iter_values(schema.fields().iter().map(|field| sql_name(field.data_type())));
    answer(describe_schema(), vec![Arc::new(names), Arc::new(types)])
}

fn answer(schema: SchemaRef, columns: Vec<ArrayRef>) -> BatchStream {
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("the columns are made for this schema");
    let batches = if batch.num_rows() == 0 { Vec::new() } else { vec![batch] };
    BatchStream::from_batches(schema, batches)
}

/// Lets expired pins go while nobody asks for them, as long as there is an engine.
async fn expire_pins(engine: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let Some(inner) = engine.upgrade() else { return };
        inner.catalog.expire_pins();
    }
}
