//! Answers that no plan makes: counts of changes, and what SHOW and DESCRIBE tell.
//!
//! Each schema stands beside the rows that it describes, so that describing a statement and running it agree.

use crate::domain::catalog::Snapshot;
use crate::domain::sql::sql_name;
use crate::ports::BatchStream;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

pub fn count_schema(column: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, false)]))
}

/// The one-row answer of a change.
pub fn counted(column: &str, rows: u64) -> BatchStream {
    let count = Int64Array::from(vec![i64::try_from(rows).unwrap_or(i64::MAX)]);
    answer(count_schema(column), vec![Arc::new(count)])
}

pub fn show_tables_schema() -> SchemaRef {
    let name = Field::new("name", DataType::Utf8, false);
    Arc::new(Schema::new(vec![name, Field::new("rows", DataType::Int64, false)]))
}

pub fn show_tables(snapshot: &Snapshot) -> BatchStream {
    let names = StringArray::from_iter_values(snapshot.tables().keys());
    let rows = snapshot.tables().values().map(|table| i64::try_from(table.rows()).unwrap_or(i64::MAX));
    answer(show_tables_schema(), vec![Arc::new(names), Arc::new(Int64Array::from_iter_values(rows))])
}

pub fn describe_schema() -> SchemaRef {
    let column = Field::new("column", DataType::Utf8, false);
    Arc::new(Schema::new(vec![column, Field::new("type", DataType::Utf8, false)]))
}

pub fn describe_table(schema: &Schema) -> BatchStream {
    let names = StringArray::from_iter_values(schema.fields().iter().map(|field| field.name()));
    let types = StringArray::from_iter_values(schema.fields().iter().map(|field| sql_name(field.data_type())));
    answer(describe_schema(), vec![Arc::new(names), Arc::new(types)])
}

pub fn answer(schema: SchemaRef, columns: Vec<ArrayRef>) -> BatchStream {
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("the columns are made for this schema");
    let batches = if batch.num_rows() == 0 { Vec::new() } else { vec![batch] };
    BatchStream::from_batches(schema, batches)
}
