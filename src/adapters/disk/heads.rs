//! What heads in JSON say of tables and writers.

use crate::ports::{TableDefinition, WriterState};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

/// How far a writer has come.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriterHead {
    writer: String,
    epoch: u64,
    sequence: u64,
    offset: Option<String>,
    rows: u64,
    lsn: u64,
    time_us: i64,
}

/// A table's definition without its schema.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableHead {
    id: u64,
    name: String,
    column_ids: Vec<u32>,
    next_column_id: u32,
    time_column: Option<String>,
}

impl WriterHead {
    /// Writes a state down.
    pub fn of(state: &WriterState) -> Self {
        let WriterState { writer, epoch, sequence, offset, rows, lsn, time_us } = state.clone();
        Self { writer, epoch, sequence, offset, rows, lsn, time_us }
    }

    /// Returns the state.
    pub fn into_state(self) -> WriterState {
        let Self { writer, epoch, sequence, offset, rows, lsn, time_us } = self;
        WriterState { writer, epoch, sequence, offset, rows, lsn, time_us }
    }
}

impl TableHead {
    /// Writes a definition down, but for its schema.
    pub fn of(definition: &TableDefinition) -> Self {
        Self {
            id: definition.id,
            name: definition.name.clone(),
            column_ids: definition.column_ids.clone(),
            next_column_id: definition.next_column_id,
            time_column: definition.time_column.clone(),
        }
    }

    /// Returns the definition with its schema.
    pub fn with_schema(self, schema: SchemaRef) -> TableDefinition {
        TableDefinition {
            id: self.id,
            name: self.name,
            schema,
            column_ids: self.column_ids,
            next_column_id: self.next_column_id,
            time_column: self.time_column,
        }
    }
}
