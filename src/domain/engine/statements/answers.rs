//! Answers that no plan makes: counts of changes, and the empty answer of a definition.

use crate::ports::{BatchStream, Description, StatementKind};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Returns the schema of a change's answer, whose one column is called `column`.
pub fn count_schema(column: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, false)]))
}

/// Makes the one-row answer of a change.
pub fn count_reply(column: &str, rows: u64) -> BatchStream {
    let count = Int64Array::from(vec![i64::try_from(rows).unwrap_or(i64::MAX)]);
    single_batch(count_schema(column), vec![Arc::new(count)])
}

/// Describes a change.
pub fn count_description(column: &str) -> Description {
    Description::new(StatementKind::Change, count_schema(column), Some(1))
}

/// Makes the answer of a definition.
pub fn definition_reply() -> BatchStream {
    BatchStream::empty(Arc::new(Schema::empty()))
}

/// Describes a definition.
pub fn definition_description() -> Description {
    Description::new(StatementKind::Definition, Arc::new(Schema::empty()), Some(0))
}

/// Makes an answer of one batch, or of none where it has no rows.
pub fn single_batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> BatchStream {
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("the columns are made for this schema");
    let batches = if batch.num_rows() == 0 { Vec::new() } else { vec![batch] };
    BatchStream::from_batches(schema, batches)
}
