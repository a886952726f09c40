//! The columns of rows of text: what they look like, and the types of the table that they go into.

use crate::ports::{Error, Result};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema_from_iterator;
use serde_json::Value;
use std::fmt::Display;
use std::sync::Arc;

/// The schema that rows look like, with the types of the table's columns of the same names.
pub fn guessed_or_typed(table: Option<SchemaRef>, rows: &mut dyn Iterator<Item = Result<Value>>) -> Result<SchemaRef> {
    let foreign = |row: Result<Value>| row.map_err(|error| ArrowError::JsonError(error.message().to_owned()));
    let guessed = infer_json_schema_from_iterator(rows.map(foreign)).map_err(|error| no("table", &error))?;
    let guessed = nullable(&guessed);
    Ok(table.map_or_else(|| Arc::new(guessed.clone()), |table| typed(&guessed, &table)))
}

/// The columns that were found, with the types of the table's columns of the same names.
pub fn typed(found: &Schema, table: &Schema) -> SchemaRef {
    let field = |found: &FieldRef| {
        let exact = table.fields().iter().find(|field| field.name() == found.name());
        let alike = || table.fields().iter().find(|field| field.name().eq_ignore_ascii_case(found.name()));
        // Nulls are the table's to refuse, with its own words.
        exact.or_else(alike).map_or_else(|| found.clone(), |field| Arc::new(readable(field).with_name(found.name())))
    };
    Arc::new(Schema::new(found.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A column as text can be read into: views and dictionaries as what they stand for.
fn readable(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type).with_nullable(true)
}

/// Guessed columns, all of which may be null: the guess has seen the beginning only.
pub fn nullable(guessed: &Schema) -> Schema {
    let field = |field: &FieldRef| {
        // A column without a value so far may be anything.
        let data_type = if *field.data_type() == DataType::Null { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(guessed.fields().iter().map(field).collect::<Vec<_>>())
}

/// Characters of a decoder's message that are passed on: some print the value that they met, however long it is.
const MESSAGE_CHARS_MAX: usize = 500;

/// A body that is something else than `what`.
pub fn no(what: &str, error: &dyn Display) -> Error {
    Error::invalid(format!("the body is no {what}: {}", shortened(error)))
}

/// A row that does not fit the columns.
pub fn unfit(error: &ArrowError) -> Error {
    Error::invalid(format!("a row of the body does not fit: {}", shortened(error)))
}

fn shortened(error: &dyn Display) -> String {
    error.to_string().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// `found` and the table's other columns, which a later row may have – but for a `timestamp`, whose absence says that the
/// arrival time is meant, and those that may not be null. What comes later and is not here is refused, not passed over.
pub fn with_columns_to_come(found: &Schema, table: &Schema) -> SchemaRef {
    let is_new = |field: &&FieldRef| {
        field.is_nullable()
            && field.name() != "timestamp"
            && !found.fields().iter().any(|known| known.name().eq_ignore_ascii_case(field.name()))
    };
    let others = table.fields().iter().filter(is_new).map(|field| Arc::new(readable(field)));
    Arc::new(Schema::new(found.fields().iter().cloned().chain(others).collect::<Vec<_>>()))
}

/// A decoder that refuses what it has no column for, and is full with `batch_rows`.
pub fn json_decoder(schema: &SchemaRef, batch_rows: usize) -> Result<arrow::json::reader::Decoder> {
    arrow::json::ReaderBuilder::new(schema.clone())
        .with_batch_size(batch_rows)
        .with_strict_mode(true)
        // Numbers are taken as they are written.
        .with_coerce_primitive(true)
        .build_decoder()
        .map_err(|error| Error::unsupported(format!("the table's columns cannot be read from JSON: {error}")))
}
