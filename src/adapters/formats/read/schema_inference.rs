//! The schema of rows of text: inferred from their beginning, with the types of the table that they go into.
//!
//! Table columns are matched by exact name, then by name in any case.

use crate::ports::{Error, Result};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema_from_iterator;
use serde_json::Value;
use std::fmt::Display;
use std::sync::Arc;

/// Infers the schema of rows, and gives it the types of the table's columns of the same names.
pub fn infer_or_apply_table(
    table: Option<SchemaRef>,
    rows: &mut dyn Iterator<Item = Result<Value>>,
) -> Result<SchemaRef> {
    let foreign = |row: Result<Value>| row.map_err(|error| ArrowError::JsonError(error.message().to_owned()));
    let inferred = infer_json_schema_from_iterator(rows.map(foreign)).map_err(|error| not_a("a table", &error))?;
    let inferred = nullable(&inferred);
    Ok(table.map_or_else(|| Arc::new(inferred.clone()), |table| typed(&inferred, &table)))
}

/// Gives the columns that were found the types of the table's columns of the same names.
pub fn typed(found: &Schema, table: &Schema) -> SchemaRef {
    let field = |found: &FieldRef| {
        let exact = table.fields().iter().find(|field| field.name() == found.name());
        let alike = || table.fields().iter().find(|field| field.name().eq_ignore_ascii_case(found.name()));
        // Columns stay nullable: the table itself refuses nulls, with a better message.
        exact.or_else(alike).map_or_else(|| found.clone(), |field| Arc::new(readable(field).with_name(found.name())))
    };
    Arc::new(Schema::new(found.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Returns the type that text can be read into: plain values in place of views and dictionaries.
fn readable(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type).with_nullable(true)
}

/// Makes all inferred columns nullable: inference has seen the beginning only. Columns of nulls become text.
pub fn nullable(inferred: &Schema) -> Schema {
    let field = |field: &FieldRef| {
        // A column without a value so far may hold anything later, and text holds anything.
        let data_type = if *field.data_type() == DataType::Null { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(inferred.fields().iter().map(field).collect::<Vec<_>>())
}

/// Characters of a decoder's message that are passed on: some quote the value that they met, however long it is.
const MESSAGE_CHARS_MAX: usize = 500;

/// Builds the error for a body that is not `what`.
pub fn not_a(what: &str, error: &dyn Display) -> Error {
    Error::invalid(format!("the body is not {what}: {}", shortened(error)))
}

/// Builds the error for a row that does not fit the columns.
pub fn row_error(error: &ArrowError) -> Error {
    Error::invalid(format!("a row of the body does not fit: {}", shortened(error)))
}

fn shortened(error: &dyn Display) -> String {
    error.to_string().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Adds the table's other columns, which a later row may have, to those that were found.
///
/// Left out are `timestamp`, since its absence means the time of arrival, and columns that may not be null. A later row
/// with a column that is not in the result is refused, not cut.
pub fn with_remaining_table_columns(found: &Schema, table: &Schema) -> SchemaRef {
    let is_new = |field: &&FieldRef| {
        field.is_nullable()
            && field.name() != "timestamp"
            && !found.fields().iter().any(|known| known.name().eq_ignore_ascii_case(field.name()))
    };
    let others = table.fields().iter().filter(is_new).map(|field| Arc::new(readable(field)));
    Arc::new(Schema::new(found.fields().iter().cloned().chain(others).collect::<Vec<_>>()))
}

/// Creates a decoder for batches of `batch_rows`, which refuses members that it has no column for.
pub fn json_decoder(schema: &SchemaRef, batch_rows: usize) -> Result<arrow::json::reader::Decoder> {
    arrow::json::ReaderBuilder::new(schema.clone())
        .with_batch_size(batch_rows)
        .with_strict_mode(true)
        // Numbers go into text columns with the digits that they are written with.
        .with_coerce_primitive(true)
        .build_decoder()
        .map_err(|error| Error::unsupported(format!("the table's columns cannot be read from JSON: {error}")))
}
