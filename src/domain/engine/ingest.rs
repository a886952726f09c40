//! Ingestion: stage a whole stream, then publish it with one swap.
//!
//! What the stream is fitted to is the table as it was when the stream began. If the table changed its shape by the time
//! the stream ends, what is staged is fitted once more; if it went away, the stream fails whole.

use crate::domain::engine::Inner;
use crate::domain::engine::define::already_exists;
use crate::domain::engine::stage::Stage;
use crate::domain::storage::{Conform, Table};
use crate::ports::{
    Append, BatchStream, Error, ErrorKind, IfExists, IfMissing, IngestSummary, Limits, Result, intended,
};
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Names that the engine keeps for itself begin like this.
const RESERVED_PREFIX: &str = "__zepto";

/// Longest name of a table, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// What a stream is fitted to.
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
    pub(super) async fn append(self: Arc<Self>, request: Append, batches: BatchStream) -> Result<IngestSummary> {
        let arrival_ns = now_ns();
        check_name(&request.table)?;
        check_columns(batches.schema().fields().len(), &self.options.limits)?;
        let mut target = self.target(&request, &batches.schema())?;
        let conform = Conform::new(&batches.schema(), target.schema(), arrival_ns)?;
        let mut stage = self.staged(batches, &conform).await?;
        loop {
            if let Some(summary) = self.publish_append(&request, &target, &stage)? {
                self.merge_later(&request.table);
                return Ok(summary);
            }
            // Somebody made or altered the table meanwhile: fit what is staged to what there is now.
            let staged_schema = target.schema().clone();
            let next = self.target(&request, &staged_schema)?;
            if let (Target::Table(before), Target::Table(now)) = (&target, &next)
                && before.id() != now.id()
            {
                return Err(dropped(&request.table));
            }
            target = next;
            let conform = Conform::new(&staged_schema, target.schema(), arrival_ns)?;
            stage = refit(&stage, &conform, Stage::new(&self.budget, &self.options.limits))?;
        }
    }

    /// All of a stream, fitted and staged, in its turn.
    pub(super) async fn staged(&self, mut batches: BatchStream, conform: &Conform) -> Result<Stage> {
        let mut stage = Stage::new(&self.budget, &self.options.limits);
        let turn = self.turns.begin();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let room = self.budget.reserve(conform.growth_bytes(&batch))?;
            stage.push(conform.apply(&batch, stage.rows())?)?;
            // What a stream does not need any more must not keep the oldest from going on.
            drop((batch, room));
            turn.staged(stage.summary().bytes);
            turn.wait(self.patience()).await?;
        }
        Ok(stage)
    }

    fn target(&self, request: &Append, schema: &Schema) -> Result<Target> {
        let snapshot = self.catalog.present();
        let makes_tables = match request.if_missing {
            IfMissing::AsConfigured => self.options.create_tables,
            IfMissing::Create => true,
            IfMissing::Fail => false,
        };
        match (snapshot.tables().get(&request.table), request.if_exists) {
            (Some(table), IfExists::Append) => Ok(Target::Table(table.clone())),
            (Some(_), IfExists::Fail) => Err(already_exists(&request.table)),
            (None, _) if !makes_tables => Err(snapshot.unknown(&request.table)),
            (Some(_), IfExists::Replace) | (None, _) => {
                table_schema(&intended(schema)?, &self.options.limits).map(Target::New)
            }
        }
    }

    /// Publishes what is staged; none where the table is not the one that it was fitted to.
    fn publish_append(&self, request: &Append, target: &Target, stage: &Stage) -> Result<Option<IngestSummary>> {
        let name = request.table.as_str();
        self.catalog.publish(|present| {
            let mut summary = stage.summary();
            let replaceable = |found: Option<&Arc<Table>>| found.is_none() || request.if_exists == IfExists::Replace;
            let next = match (present.tables().get(name), target) {
                (found, Target::New(schema)) if replaceable(found) => {
                    summary.table_created = true;
                    Table::new(self.catalog.next_table_id(), schema.clone(), stage.segments().to_vec())
                }
                (Some(table), Target::Table(fitted)) if table.id() == fitted.id() => {
                    if table.schema() != fitted.schema() {
                        return Ok((Vec::new(), None));
                    }
                    table.appended(stage.segments())
                }
                (_, Target::Table(_)) => return Err(dropped(name)),
                _ => return Ok((Vec::new(), None)),
            };
            Ok((vec![(name.to_owned(), Some(next))], Some(summary)))
        })
    }
}

/// Makes the error for a stream whose table went away; one of the same name is another table.
fn dropped(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("table {name:?} was dropped while the stream was under way"))
}

fn refit(stage: &Stage, conform: &Conform, mut next: Stage) -> Result<Stage> {
    for segment in stage.segments() {
        next.push(conform.apply(segment.batch(), next.rows())?)?;
    }
    Ok(next)
}

/// Returns the schema of a table made from `schema`: its columns, without what is said about the schema as a whole.
///
/// # Errors
///
/// `InvalidQuery` for no columns, or several of one name; `LimitExceeded` for too many.
pub(super) fn table_schema(schema: &Schema, limits: &Limits) -> Result<SchemaRef> {
    let fields = schema.fields();
    if fields.is_empty() {
        return Err(Error::invalid("a table has at least one column"));
    }
    check_columns(fields.len(), limits)?;
    let mut names = HashSet::new();
    for field in fields {
        if !names.insert(field.name()) {
            return Err(Error::invalid(format!("duplicate column {:?}", field.name())));
        }
        if is_reserved(field.name()) {
            return Err(Error::invalid(format!(
                "{:?} cannot name a column: names that begin with {RESERVED_PREFIX} are reserved",
                field.name()
            )));
        }
    }
    Ok(Arc::new(Schema::new(fields.clone())))
}

/// Refuses more columns than there may be.
pub(super) fn check_columns(count: usize, limits: &Limits) -> Result<()> {
    if count as u64 > limits.columns_max {
        return Err(Error::limit(format!("{count} columns are more than {} (columns_max)", limits.columns_max)));
    }
    Ok(())
}

fn is_reserved(name: &str) -> bool {
    name.get(..RESERVED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX))
}

/// Refuses names that no table may have.
///
/// # Errors
///
/// `InvalidQuery`.
pub(super) fn check_name(name: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if is_reserved(name) {
        "names that begin with __zepto are reserved"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(40).collect();
    Err(Error::invalid(format!("{shown:?} cannot name a table: {wrong}")))
}

/// Nanoseconds since 1970 UTC.
#[expect(clippy::disallowed_methods, reason = "the arrival time of a stream is the wall clock's")]
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
