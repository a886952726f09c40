//! A commit as a value: what changes, by the names and ids of tables and segments.
//!
//! Statements and streams prepare a commit outside of any lock. The catalogue checks it against the present state, gives it
//! its place in the order and applies it, all changes or none. Because a commit says what changes and not what the state is
//! afterwards, it can be written down and applied elsewhere in the same order: applying a change says what its effect is, by
//! ids alone, for the journal. What only rearranges segments has none.

use crate::domain::catalog::snapshot::Snapshot;
use crate::domain::storage::{
    Allocations, DeletionMask, Numbered, Reshape, RowValues, Segment, SegmentId, Table, TableId, WriterLimits,
};
use crate::ports::{Effect, Error, ErrorKind, WriterCommit, WriterState};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// Changes that become visible together.
#[derive(Debug, Default)]
pub struct Commit {
    /// The changes, in the order in which they are applied.
    pub changes: Vec<Change>,
    /// The change lock of the table that it rewrites: held until it is decided, whoever asked for it may be gone by then.
    pub lock: Option<Arc<OwnedMutexGuard<()>>>,
}

/// A table that a change was prepared for.
#[derive(Debug, Clone)]
pub struct TableRef {
    /// Its exact name.
    pub name: Arc<str>,
    /// Its id: a table that was dropped and made again is another one.
    pub id: TableId,
}

/// One change of one table.
#[derive(Debug)]
pub enum Change {
    /// A new table.
    Create {
        /// Its first state.
        table: Arc<Table>,
        /// Whether it takes the place of a table of the same name.
        or_replace: bool,
    },
    /// Rows that arrived.
    Append {
        /// The table.
        table: TableRef,
        /// The schema that the rows were made for.
        schema: SchemaRef,
        /// The rows.
        segments: Vec<Arc<Segment>>,
    },
    /// Rows that are deleted.
    Mask {
        /// The table.
        table: TableRef,
        /// What is left of each segment that loses rows.
        masks: Vec<(SegmentId, DeletionMask)>,
    },
    /// Segments without their rows, all of which are deleted.
    Truncate {
        /// The table.
        table: TableRef,
        /// The segments: neighbours, in their order.
        removed: Vec<SegmentId>,
    },
    /// Rows with other values.
    Update {
        /// The table.
        table: TableRef,
        /// The segments that hold such rows, and those between them, in their order.
        removed: Vec<SegmentId>,
        /// The segments that come in their place, with the same rows.
        added: Vec<Arc<Segment>>,
        /// The values, as they were put in one after the other.
        values: Vec<RowValues>,
    },
    /// The same rows in other segments.
    Compact {
        /// The table.
        table: TableRef,
        /// The segments that go: neighbours, in their order.
        removed: Vec<SegmentId>,
        /// The segment that comes in their place.
        compacted: Arc<Segment>,
    },
    /// A writer that has come further, with the rows of the same commit.
    Writer {
        /// The table.
        table: TableRef,
        /// The commit's place among the writer's.
        commit: WriterCommit,
        /// Rows of the commit.
        rows: u64,
    },
    /// Other columns.
    Alter {
        /// The table.
        table: TableRef,
        /// What becomes of its columns.
        reshape: Reshape,
        /// Its first segments, reshaped already. Those that arrived meanwhile are reshaped when the change is applied.
        reshaped: Vec<Arc<Segment>>,
    },
    /// A table that goes.
    Drop {
        /// The table.
        table: TableRef,
    },
}

/// What a commit is applied with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Where memory is counted.
    pub allocations: &'a Allocations,
    /// What is kept of writers.
    pub writer_limits: WriterLimits,
    /// When the commit is made, in microseconds since 1970 UTC.
    pub time_us: i64,
}

/// Why a commit was refused; nothing has changed then.
#[derive(Debug)]
pub enum Rejection {
    /// There is a table of the name of a new one.
    Exists(Arc<str>),
    /// The table that was meant is gone; one of the same name is another.
    Gone(Arc<str>),
    /// The commit of a writer that it had made before.
    Repeated(Box<WriterState>),
    /// The table has other columns than the rows were made for.
    Reshaped(Arc<str>),
    /// Anything else.
    Failed(Error),
}

impl TableRef {
    /// Refers to the table of which `table` is a state.
    pub fn of(table: &Table) -> Self {
        Self { name: table.name().clone(), id: table.id() }
    }

    fn find<'a>(&self, state: &'a Snapshot) -> Result<&'a Arc<Table>, Rejection> {
        state.same_table(&self.name, self.id).ok_or_else(|| Rejection::Gone(self.name.clone()))
    }
}

impl Commit {
    /// Makes a commit of one change.
    pub fn of(change: Change) -> Self {
        Self { changes: vec![change], lock: None }
    }

    /// Has the commit hold a change lock.
    #[must_use]
    pub fn holding(self, lock: Arc<OwnedMutexGuard<()>>) -> Self {
        Self { lock: Some(lock), ..self }
    }
}

impl Change {
    /// Applies the change to a state that nobody sees yet, and adds what it does to `effects`.
    pub(super) fn apply(
        self,
        state: &mut Snapshot,
        context: &Context<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejection> {
        let allocations = context.allocations;
        let next = match self {
            Self::Create { table, or_replace } => {
                let before = state.get(table.name());
                if before.is_some() && !or_replace {
                    return Err(Rejection::Exists(table.name().clone()));
                }
                let replaced = before.map(|before| before.id().0);
                let batches = batches(table.segments())?;
                effects.push(Effect::Create { definition: table.definition(), replaced, batches });
                table
            }
            Self::Append { table, schema, segments } => {
                let present = table.find(state)?;
                if present.schema() != &schema {
                    return Err(Rejection::Reshaped(table.name));
                }
                // A stream without rows changes nothing.
                if !segments.is_empty() {
                    let (table, first_row) = (table.id.0, present.next_row_id());
                    effects.push(Effect::Append { table, first_row, batches: batches(&segments)? });
                }
                Arc::new(present.append(&segments))
            }
            Self::Mask { table, masks } => {
                let present = table.find(state)?;
                effects.push(Effect::Erase { table: table.id.0, rows: present.erased_by(&masks) });
                Arc::new(present.mask(&masks)?)
            }
            Self::Truncate { table, removed } => {
                let present = table.find(state)?;
                effects.push(Effect::Erase { table: table.id.0, rows: live_row_ids(present, &removed) });
                Arc::new(present.replace(&removed, &[])?)
            }
            Self::Update { table, removed, added, values } => {
                let present = table.find(state)?;
                effects
                    .extend(values.into_iter().map(|values| update(present, values)).collect::<Result<Vec<_>, _>>()?);
                Arc::new(present.replace(&removed, &added)?)
            }
            Self::Compact { table, removed, compacted } => {
                Arc::new(table.find(state)?.replace(&removed, &[compacted])?)
            }
            Self::Writer { table, commit, rows } => {
                let (next, effect) = further(table.find(state)?, &commit, rows, state.version(), context)?;
                effects.push(effect);
                Arc::new(next)
            }
            Self::Alter { table, reshape, reshaped } => {
                let next = table.find(state)?.alter(&reshape, &reshaped, allocations)?;
                effects.push(Effect::Alter { definition: next.definition() });
                Arc::new(next)
            }
            Self::Drop { table } => {
                table.find(state)?;
                state.remove(&table.name);
                effects.push(Effect::Drop { table: table.id.0 });
                return Ok(());
            }
        };
        state.put(next);
        Ok(())
    }
}

/// Returns the rows of segments that arrive: none of theirs are deleted.
fn batches(segments: &[Arc<Segment>]) -> Result<Vec<RecordBatch>, Rejection> {
    segments.iter().map(|segment| Ok(segment.physical_batch()?)).collect()
}

/// Returns the ids of the rows that are left in those segments of `table`.
fn live_row_ids(table: &Table, of: &[SegmentId]) -> Vec<Range<u64>> {
    let of: HashSet<_> = of.iter().collect();
    let segments = table.segments().iter().filter(|segment| of.contains(&segment.id()));
    segments.flat_map(|segment| segment.live_row_ids()).collect()
}

/// Returns `table` with its writer further by a commit, which is number `lsn` of all, and says what that does.
fn further(
    table: &Table,
    commit: &WriterCommit,
    rows: u64,
    lsn: u64,
    context: &Context<'_>,
) -> Result<(Table, Effect), Rejection> {
    let next = match table.writers().number(commit, context.writer_limits, context.time_us)? {
        Numbered::Repeated(state) => return Err(Rejection::Repeated(Box::new(state))),
        Numbered::Next(next) => WriterState { rows: next.rows + rows, lsn, time_us: context.time_us, ..next },
    };
    let effect = Effect::Writer { table: table.id().0, state: next.clone() };
    let writers = table.writers().with(next, context.writer_limits, context.allocations.account())?;
    Ok((table.clone().with_writers(writers), effect))
}

/// Says what new values do: rows keep their places in an UPDATE, so those of its beginning still are theirs.
fn update(table: &Table, values: RowValues) -> Result<Effect, Rejection> {
    let (columns, rows) = (&values.columns, table.row_ids(&values.rows));
    let fields: Vec<_> = columns.iter().map(|column| table.schema().field(*column).clone()).collect();
    let columns = columns.iter().map(|column| table.column_ids()[*column]).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(values.rows.len()));
    let values = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values.values, &options)
        .map_err(|error| Error::internal("new values do not fit their columns").with_source(error))?;
    Ok(Effect::Update { table: table.id().0, rows, columns, values })
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Exists(name) => Self::new(ErrorKind::AlreadyExists, format!("table {name:?} exists already")),
            Rejection::Gone(name) => Self::new(ErrorKind::NotFound, format!("table {name:?} was dropped meanwhile")),
            Rejection::Repeated(state) => {
                let WriterState { writer, sequence, .. } = *state;
                Self::new(ErrorKind::Conflict, format!("writer {writer:?} has made commit {sequence} already"))
            }
            Rejection::Reshaped(name) => {
                Self::mismatch(format!("the columns of table {name:?} were changed meanwhile; nothing was stored"))
            }
            Rejection::Failed(error) => error,
        }
    }
}
