//! MessagePack documents: a map of columns.

use crate::adapters::formats::read::documents::{DocumentPermit, Rows, read_rows};
use crate::adapters::formats::read::schema_inference::not_a;
use crate::ports::{BatchStream, Error, Result};
use arrow::datatypes::SchemaRef;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How deep a body may nest.
const DEPTH_MAX: usize = 64;

/// Reads a MessagePack map of columns, each an array. The permit is held until the last batch is read.
///
/// # Errors
///
/// `InvalidQuery` for anything else.
pub fn read_msgpack(body: &[u8], table: Option<SchemaRef>, permit: DocumentPermit) -> Result<BatchStream> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(DEPTH_MAX);
    let columns = <Map<String, Value> as Deserialize>::deserialize(&mut deserializer);
    let columns = columns.map_err(|error| not_a("a MessagePack map of columns", &error))?;
    let array = |(name, column)| match column {
        Value::Array(values) => Ok((name, values)),
        _ => Err(Error::invalid(format!("column {name:?} of the body is not an array"))),
    };
    let columns = columns.into_iter().map(array).collect::<Result<Vec<_>>>()?;
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != rows) {
        return Err(Error::invalid(format!("column {name:?} has {} values, and others {rows}", values.len())));
    }
    read_rows(Rows::Columns { columns, rows }, table, permit)
}
