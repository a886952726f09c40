//! The bytes of a statement's description.
//!
//! Two framed schema messages: the schema of the result, with kind and number of rows in its metadata, then the schema
//! of the parameters.

use crate::adapters::ipc::frame::{decode_schema, encode_schema};
use crate::ports::{Description, Error, Result};
use arrow::datatypes::Schema;
use bytes::Bytes;
use std::sync::Arc;

const KIND: &str = "zepto.kind";
const ROWS: &str = "zepto.rows";

/// Encodes a description.
pub fn encode_description(description: &Description) -> Bytes {
    let mut schema = description.schema.as_ref().clone();
    schema.metadata.insert(KIND.to_owned(), description.kind.to_string());
    if let Some(rows) = description.rows {
        schema.metadata.insert(ROWS.to_owned(), rows.to_string());
    }
    [encode_schema(&schema), encode_schema(&description.params)].concat().into()
}

/// Decodes the description of [`encode_description`].
///
/// # Errors
///
/// `Internal` for any other bytes: only our own servers send these.
pub fn decode_description(mut bytes: Bytes) -> Result<Description> {
    let wrong = || Error::internal("the server's description of a statement does not decode");
    let length = bytes.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok()).ok_or_else(wrong)?;
    // A continuation mark of four bytes, four bytes of length, then the first message.
    let first = 8 + u32::from_le_bytes(length) as usize;
    if first > bytes.len() {
        return Err(wrong());
    }
    let params = bytes.split_off(first);
    let schema = decode_schema(bytes).map_err(|error| wrong().with_source(error))?;
    let params = decode_schema(params).map_err(|error| wrong().with_source(error))?;
    let kind = schema.metadata().get(KIND).ok_or_else(wrong)?.parse()?;
    let rows = schema.metadata().get(ROWS).map(|rows| rows.parse().map_err(|_| wrong())).transpose()?;
    Ok(Description { kind, schema: Arc::new(Schema::new(schema.fields().clone())), rows, params })
}
