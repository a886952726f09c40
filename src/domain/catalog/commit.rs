//! A commit as a value: what changes, by the names and ids of tables and segments.
//!
//! Statements and streams prepare a commit outside of any lock. The catalogue checks it against the present state, gives it
//! its place in the order and applies it, all changes or none. Because a commit says what changes and not what the state is
//! afterwards, it can be written down and applied elsewhere in the same order.

use crate::domain::catalog::snapshot::Snapshot;
use crate::domain::storage::{Allocations, DeletionMask, Reshape, Segment, SegmentId, Table, TableId};
use crate::ports::{Error, ErrorKind};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// Changes that become visible together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The changes, in the order in which they are applied.
    pub changes: Vec<Change>,
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
#[derive(Debug, Clone)]
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
    /// Segments in the place of others.
    Replace {
        /// The table.
        table: TableRef,
        /// The segments that go: neighbours, in their order.
        removed: Vec<SegmentId>,
        /// The segments that come in their place.
        added: Vec<Arc<Segment>>,
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

/// Why a commit was refused; nothing has changed then.
#[derive(Debug)]
pub enum Rejection {
    /// There is a table of the name of a new one.
    Exists(Arc<str>),
    /// The table that was meant is gone; one of the same name is another.
    Gone(Arc<str>),
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
        Self { changes: vec![change] }
    }
}

impl Change {
    /// Applies the change to a state that nobody sees yet.
    pub(super) fn apply(self, state: &mut Snapshot, allocations: &Allocations) -> Result<(), Rejection> {
        let next = match self {
            Self::Create { table, or_replace } => {
                if state.get(table.name()).is_some() && !or_replace {
                    return Err(Rejection::Exists(table.name().clone()));
                }
                table
            }
            Self::Append { table, schema, segments } => {
                let present = table.find(state)?;
                if present.schema() != &schema {
                    return Err(Rejection::Reshaped(table.name));
                }
                Arc::new(present.append(&segments))
            }
            Self::Mask { table, masks } => Arc::new(table.find(state)?.mask(&masks)?),
            Self::Replace { table, removed, added } => Arc::new(table.find(state)?.replace(&removed, &added)?),
            Self::Alter { table, reshape, reshaped } => {
                Arc::new(table.find(state)?.alter(&reshape, &reshaped, allocations)?)
            }
            Self::Drop { table } => {
                table.find(state)?;
                state.remove(&table.name);
                return Ok(());
            }
        };
        state.put(next);
        Ok(())
    }
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
            Rejection::Reshaped(name) => {
                Self::mismatch(format!("the columns of table {name:?} were changed meanwhile; nothing was stored"))
            }
            Rejection::Failed(error) => error,
        }
    }
}
