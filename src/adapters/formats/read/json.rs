//! JSON documents: an array of objects, or the answer to a query.

use crate::adapters::formats::read::documents::{DocumentPermit, Rows, read_rows};
use crate::adapters::formats::read::schema_inference::not_a;
use crate::ports::{BatchStream, Result};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Reads a JSON document: an array of objects, an object with such an array as its `data`, or the answer to a query.
/// The permit is held until the last batch is read.
///
/// # Errors
///
/// `InvalidQuery` for anything else.
pub fn read_json(body: Bytes, table: Option<SchemaRef>, permit: DocumentPermit) -> Result<BatchStream> {
    let wrong = |error| not_a("a JSON array of objects or answer to a query", &error);
    let (rows, columns) = if body.trim_ascii_start().starts_with(b"[") {
        (serde_json::from_slice::<Vec<&RawValue>>(&body).map_err(wrong)?, None)
    } else {
        let QueryAnswer { columns, data } = serde_json::from_slice(&body).map_err(wrong)?;
        (data, columns)
    };
    // Rows are kept as ranges of the body: a `RawValue` borrows it, and a range does not.
    let begin = body.as_ptr() as usize;
    let range = |row: &&RawValue| {
        let first = row.get().as_ptr() as usize - begin;
        first..first + row.get().len()
    };
    let rows = rows.iter().map(range).collect();
    let names = columns.map(|names| names.into_iter().map(|name| Value::String(name).to_string()).collect());
    read_rows(Rows::Json { body, rows, names }, table, permit)
}

#[derive(Deserialize)]
struct QueryAnswer<'a> {
    columns: Option<Vec<String>>,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}
