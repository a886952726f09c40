//! Handles: the content of tickets, commands and prepared statements that are more than plain SQL text.
//!
//! A handle carries all that it needs, so the server keeps nothing for it, with two exceptions, both for a limited
//! time: a stored result, and parameters for clients that ignore the updated handle which binding them returns. A
//! handle begins with a byte that no UTF-8 text contains, so nothing else is taken for one.

use crate::adapters::flight::sql::type_info::annotate;
use crate::adapters::ipc;
use crate::adapters::serving::ResultOptions;
use crate::ports::{Access, Error, Part, Query, Result, SnapshotId};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;

/// Prefix of every handle.
pub const HANDLE_MARK: &[u8] = b"\xffzepto\x01";

/// The content of a ticket, a command or a prepared statement.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Handle {
    /// The statement, if the handle stands for one.
    pub sql: String,
    /// The pinned snapshot that it reads.
    pub snapshot: Option<SnapshotId>,
    /// The part of the result that it stands for.
    pub part: Option<Part>,
    /// Values of its parameters.
    pub params: Option<RecordBatch>,
    /// The stored result that it stands for instead, on the server that stores it.
    pub stored_result: Option<u128>,
    /// Whether the statement may be described as a change. A ticket only reads, whatever this is.
    pub may_change: bool,
    /// Whether it stands for the result of a change that was made already: no columns, no rows.
    pub executed: bool,
    /// Whether the columns of its result carry Flight SQL's metadata.
    pub annotated: bool,
    /// Options of its result, if they were fixed when the handle was made.
    pub result_options: Option<ResultOptions>,
    /// The id that cancels the query. All parts of a result have the same.
    pub query_id: Option<u128>,
    /// The id of the prepared statement, if that has parameters.
    pub prepared: Option<u128>,
}

/// A handle on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct HandleMessage {
    #[prost(string, tag = "1")]
    sql: String,
    #[prost(uint64, optional, tag = "2")]
    snapshot: Option<u64>,
    #[prost(bytes = "bytes", tag = "3")]
    params: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    held: Bytes,
    #[prost(bool, tag = "5")]
    change: bool,
    #[prost(uint32, tag = "6")]
    part_index: u32,
    /// 0: all of the result.
    #[prost(uint32, tag = "7")]
    part_count: u32,
    #[prost(bool, tag = "8")]
    done: bool,
    #[prost(bool, tag = "9")]
    described: bool,
    #[prost(string, optional, tag = "10")]
    presentation: Option<String>,
    #[prost(bytes = "bytes", tag = "11")]
    query_id: Bytes,
    #[prost(bytes = "bytes", tag = "12")]
    prepared: Bytes,
}

impl Handle {
    /// Creates the handle of a query.
    pub fn of(query: &Query) -> Self {
        Self {
            sql: query.sql.clone(),
            snapshot: query.snapshot,
            part: query.part,
            params: query.params.clone(),
            may_change: query.access == Access::Change,
            ..Self::default()
        }
    }

    /// Converts the handle to its query, which may do what `access` allows.
    pub fn into_query(self, access: Access) -> Query {
        let Self { sql, snapshot, part, params, .. } = self;
        Query { sql, params, access, snapshot, part, ..Query::default() }
    }

    /// Returns the schema that a result of `schema` is sent with.
    pub fn result_schema(&self, schema: &Schema) -> SchemaRef {
        let schema = self.result_options.as_ref().map_or_else(|| schema.clone(), |options| options.schema(schema));
        Arc::new(if self.annotated { annotate(&schema) } else { schema })
    }

    /// Encodes the handle.
    ///
    /// # Errors
    ///
    /// `Internal` where the parameters cannot be encoded.
    pub fn encode(&self) -> Result<Bytes> {
        let message = HandleMessage {
            sql: self.sql.clone(),
            snapshot: self.snapshot.map(|id| id.0),
            params: self.params.as_ref().map(ipc::encode_batch).transpose()?.unwrap_or_default(),
            held: id_bytes(self.stored_result),
            change: self.may_change,
            part_index: self.part.map_or(0, Part::index),
            part_count: self.part.map_or(0, Part::count),
            done: self.executed,
            described: self.annotated,
            presentation: self.result_options.as_ref().map(ResultOptions::encode),
            query_id: id_bytes(self.query_id),
            prepared: id_bytes(self.prepared),
        };
        Ok([HANDLE_MARK, &message.encode_to_vec()].concat().into())
    }

    /// Decodes the handle of [`Handle::encode`].
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = || Error::invalid("the handle is not one of this server's");
        let message = bytes.strip_prefix(HANDLE_MARK).ok_or_else(wrong)?;
        let message = HandleMessage::decode(message).map_err(|_| wrong())?;
        let id = |bytes: &Bytes| match bytes.len() {
            0 => Ok(None),
            _ => bytes.as_ref().try_into().map(|bytes| Some(u128::from_be_bytes(bytes))).map_err(|_| wrong()),
        };
        let (stored_result, query_id, prepared) = (id(&message.held)?, id(&message.query_id)?, id(&message.prepared)?);
        let params = match message.params.len() {
            0 => None,
            _ => Some(ipc::decode_batch(message.params).map_err(|_| wrong())?),
        };
        let part = match message.part_count {
            0 => None,
            count => Some(Part::new(message.part_index, count).map_err(|_| wrong())?),
        };
        let result_options =
            message.presentation.map(|line| ResultOptions::decode(&line)).transpose().map_err(|_| wrong())?;
        Ok(Self {
            sql: message.sql,
            snapshot: message.snapshot.map(SnapshotId),
            part,
            params,
            stored_result,
            may_change: message.change,
            executed: message.done,
            annotated: message.described,
            result_options,
            query_id,
            prepared,
        })
    }
}

fn id_bytes(id: Option<u128>) -> Bytes {
    id.map(|id| Bytes::copy_from_slice(&id.to_be_bytes())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::ticket::Handle;
    use crate::adapters::serving::{ResultOptions, Strings};
    use crate::ports::{ErrorKind, Part, SnapshotId};

    #[test]
    fn handles_survive_and_nothing_else_is_taken_for_one() {
        let params = arrow::array::record_batch!(("a", Int64, [1]), ("b", Utf8, ["x"])).unwrap();
        let handle = Handle {
            sql: "SELECT 'ü' & 1".into(),
            snapshot: Some(SnapshotId(7)),
            part: Some(Part::new(2, 3).unwrap()),
            params: Some(params),
            stored_result: Some(u128::MAX - 1),
            may_change: true,
            executed: true,
            annotated: true,
            result_options: Some(ResultOptions::of_strings(Strings::Plain)),
            query_id: Some(5),
            prepared: Some(6),
        };
        let bytes = handle.encode().unwrap();
        assert_eq!(Handle::decode(&bytes).unwrap(), handle);
        for cut in 0..bytes.len() - 1 {
            let _ = Handle::decode(&bytes[..cut]);
        }
        for foreign in [b"\xff\xfe".as_slice(), b"\xffzepto\x01garbage", b"SELECT 1", b""] {
            assert_eq!(Handle::decode(foreign).unwrap_err().kind(), ErrorKind::InvalidQuery);
        }
    }
}
