//! Appending a stream to a table: stage all of it, then commit it at once.
//!
//! What the stream is coerced to is the table as it was when the stream began. If the table changed its columns by the time
//! the stream ends, what is staged is coerced once more; if the table is gone, the stream fails whole.

use crate::domain::catalog::{Change, Commit, Rejection, TableRef};
use crate::domain::engine::Inner;
use crate::domain::engine::ingest::staging::Stage;
use crate::domain::engine::table_rules::{check_columns, check_name, table_schema};
use crate::domain::storage::{SchemaCoercion, Table};
use crate::ports::{
    Append, BatchStream, Error, ErrorKind, IfExists, IfMissing, IngestSummary, Result, WriterState, intended,
};
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use std::sync::Arc;

/// What a stream is coerced to.
#[derive(Debug, Clone)]
enum Target {
    /// A table in this state.
    Table(Arc<Table>),
    /// A table that is yet to be made, with this schema.
    New(SchemaRef),
}

impl Target {
    fn schema(&self) -> &SchemaRef {
        match self {
            Self::Table(table) => table.schema(),
            Self::New(schema) => schema,
        }
    }
}

impl Inner {
    /// Appends a stream.
    pub(in crate::domain::engine) async fn append(
        self: Arc<Self>,
        request: Append,
        mut batches: BatchStream,
    ) -> Result<IngestSummary> {
        if request.writer.is_some() && request.if_exists == IfExists::Replace {
            // The table that comes would know nothing of what its writer did to the one that goes.
            return Err(Error::unsupported("a numbered commit does not replace its table; TRUNCATE it, and append"));
        }
        if let Some(summary) = self.repeated(&request) {
            // Whatever has become of the table since. The stream is read to its end, so that its client sees the answer.
            while let Some(batch) = batches.next().await {
                batch?;
            }
            return Ok(summary);
        }
        let arrival_ns = self.clock.now_ns();
        check_name(&request.table)?;
        check_columns(batches.schema().fields().len(), &self.options.limits)?;
        let mut target = self.append_target(&request, &batches.schema())?;
        let coercion = SchemaCoercion::new(&batches.schema(), target.schema(), arrival_ns)?;
        let growth_bytes = |batch: &_| coercion.growth_bytes(batch);
        let mut stage = self.stage(batches, growth_bytes, |batch, rows| coercion.apply(batch, rows)).await?;
        let batches = stage.summary().batches;
        loop {
            match self.commit_append(&request, &target, &stage).await {
                Ok(()) => {
                    let table_created = matches!(target, Target::New(_));
                    let writer = self.writer_of(&request);
                    return Ok(IngestSummary { table_created, batches, writer, ..stage.summary() });
                }
                // It was made before, by this call's own client or another one of the same name.
                Err(Rejection::Repeated(_)) => {
                    if let Some(summary) = self.repeated(&request) {
                        return Ok(summary);
                    }
                }
                Err(Rejection::Gone(_)) => return Err(dropped(&request.table)),
                // Somebody made or altered the table meanwhile: fit what is staged to what there is now.
                Err(Rejection::Exists(_) | Rejection::Reshaped(_)) => {}
                Err(Rejection::Failed(error)) => return Err(error),
            }
            let staged_schema = target.schema().clone();
            let next = self.append_target(&request, &staged_schema)?;
            if let Target::Table(before) = &target
                && !matches!(&next, Target::Table(now) if before.id() == now.id())
            {
                return Err(dropped(&request.table));
            }
            target = next;
            let coercion = SchemaCoercion::new(&staged_schema, target.schema(), arrival_ns)?;
            stage = self.coerce_stage(&stage, &coercion)?;
        }
    }

    /// Decides where a stream of `schema` goes.
    fn append_target(&self, request: &Append, schema: &Schema) -> Result<Target> {
        let snapshot = self.catalog.current();
        let makes_tables = match request.if_missing {
            IfMissing::AsConfigured => self.options.create_tables,
            IfMissing::Create => true,
            IfMissing::Fail => false,
        };
        match (snapshot.get(&request.table), request.if_exists) {
            (Some(table), IfExists::Append) => Ok(Target::Table(table.clone())),
            (Some(table), IfExists::Fail) => Err(Rejection::Exists(table.name().clone()).into()),
            (None, _) if !makes_tables => Err(snapshot.unknown(&request.table)),
            (Some(_), IfExists::Replace) | (None, _) => {
                table_schema(&intended(schema)?, &self.options.limits).map(Target::New)
            }
        }
    }

    async fn commit_append(&self, request: &Append, target: &Target, stage: &Stage) -> Result<(), Rejection> {
        let segments = stage.segments().to_vec();
        let mut commit = Commit::of(match target {
            Target::Table(table) => {
                Change::Append { table: TableRef::of(table), schema: table.schema().clone(), segments }
            }
            Target::New(schema) => {
                let id = self.catalog.next_table_id();
                let table = Table::new(id, &request.table, schema.clone(), segments);
                let table = Arc::new(table.counted_in(self.allocations.account())?);
                Change::Create { table, or_replace: request.if_exists == IfExists::Replace }
            }
        });
        if let Some(numbered) = &request.writer {
            let (table, place) = match &commit.changes[0] {
                // Before the rows: a commit that was made already is not looked at any further.
                Change::Append { table, .. } => (table.clone(), 0),
                Change::Create { table, .. } => (TableRef::of(table), 1),
                _ => return Err(Error::internal("a stream is appended or makes a table").into()),
            };
            let rows = stage.rows();
            commit.changes.insert(place, Change::Writer { table, commit: numbered.clone(), rows });
        }
        self.catalog.commit(commit, request.durability.unwrap_or(self.options.durability)).await
    }

    /// Returns how far the writer of a stream has come in its table.
    fn writer_of(&self, request: &Append) -> Option<WriterState> {
        let snapshot = self.catalog.current();
        self.catalog.writer(snapshot.get(&request.table)?, &request.writer.as_ref()?.writer)
    }

    /// Sums up a stream that had been appended before, where it is visible that it was: else what it repeats was refused meanwhile.
    fn repeated(&self, request: &Append) -> Option<IngestSummary> {
        let commit = request.writer.as_ref()?;
        let is_repeated = |state: &WriterState| commit.sequence <= state.sequence && commit.epoch >= state.epoch;
        let state = self.writer_of(request).filter(is_repeated)?;
        Some(IngestSummary { duplicate: true, writer: Some(state), ..IngestSummary::default() })
    }

    /// Says how far a writer has come in a table.
    pub(in crate::domain::engine) fn writer(&self, table: &str, writer: &str) -> Result<WriterState> {
        let snapshot = self.catalog.current();
        self.catalog.writer(snapshot.table(table)?, writer).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("table {table:?} knows no writer {writer:?}; it begins with commit 1"),
            )
        })
    }

    fn coerce_stage(&self, stage: &Stage, coercion: &SchemaCoercion) -> Result<Stage> {
        let mut next = Stage::new(&self.allocations, &self.options.limits);
        for segment in stage.segments() {
            let batch = segment.physical_batch()?;
            let room = self.allocations.account().reserve(coercion.growth_bytes(&batch))?;
            next.push(coercion.apply(&batch, next.rows())?)?;
            drop(room);
        }
        Ok(next)
    }
}

/// Makes the error for a stream whose table is gone; one of the same name is another table.
fn dropped(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("table {name:?} was dropped while the stream was under way"))
}
