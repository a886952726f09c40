//! Handles: what a ticket, a command or a prepared statement stands for beyond plain SQL text.
//!
//! A handle carries all that it needs, so the server keeps nothing for it, but for two things, for a limited time: a held
//! result, and parameters for those clients that pass over the new handle which binding them answers.
//! A handle begins with a byte that no UTF-8 text has, so nothing else is taken for one.

use crate::adapters::ipc::{self, Presentation};
use crate::ports::{Access, Error, Part, Query, Result, SnapshotId};
use arrow::array::RecordBatch;
use bytes::Bytes;
use prost::Message as _;

/// What every handle begins with.
pub const HANDLE_MARK: &[u8] = b"\xffzepto\x01";

/// What a ticket or command stands for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Handle {
    /// The statement, where the handle stands for one.
    pub sql: String,
    /// The pinned state that it reads.
    pub snapshot: Option<SnapshotId>,
    /// Which part of the answer it stands for.
    pub part: Option<Part>,
    /// Values of its parameters.
    pub params: Option<RecordBatch>,
    /// The held result that the handle stands for instead, on the server that holds it.
    pub held: Option<u128>,
    /// Whether a description of it may be one of a change. A ticket reads, whatever it says here.
    pub change: bool,
    /// Whether it stands for the answer to a change that was made: no columns, no rows.
    pub done: bool,
    /// Whether a Flight SQL client asks, whose columns say what SQL calls their types.
    pub described: bool,
    /// How its answer is presented, where that was settled when the handle was made.
    pub presentation: Option<Presentation>,
    /// What the query is cancelled by. All parts of an answer have the same.
    pub query_id: Option<u128>,
    /// The prepared statement that it is the handle of, where that has parameters.
    pub prepared: Option<u128>,
}

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
    /// 0: all of the answer.
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
    /// The handle of a query.
    pub fn of(query: &Query) -> Self {
        Self {
            sql: query.sql.clone(),
            snapshot: query.snapshot,
            part: query.part,
            params: query.params.clone(),
            change: query.access == Access::Change,
            ..Self::default()
        }
    }

    /// The query that it stands for, with leave to do this much.
    pub fn into_query(self, access: Access) -> Query {
        let Self { sql, snapshot, part, params, .. } = self;
        Query { sql, params, access, snapshot, part, ..Query::default() }
    }

    /// Its bytes.
    ///
    /// # Errors
    ///
    /// `Internal` where the parameters cannot be encoded.
    pub fn encode(&self) -> Result<Bytes> {
        let message = HandleMessage {
            sql: self.sql.clone(),
            snapshot: self.snapshot.map(|id| id.0),
            params: self.params.as_ref().map(ipc::encode_batch).transpose()?.unwrap_or_default(),
            held: id_bytes(self.held),
            change: self.change,
            part_index: self.part.map_or(0, Part::index),
            part_count: self.part.map_or(0, Part::count),
            done: self.done,
            described: self.described,
            presentation: self.presentation.as_ref().map(Presentation::to_line),
            query_id: id_bytes(self.query_id),
            prepared: id_bytes(self.prepared),
        };
        Ok([HANDLE_MARK, &message.encode_to_vec()].concat().into())
    }

    /// The handle of [`Handle::encode`].
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
        let (held, query_id, prepared) = (id(&message.held)?, id(&message.query_id)?, id(&message.prepared)?);
        let params = match message.params.len() {
            0 => None,
            _ => Some(ipc::decode_batch(message.params).map_err(|_| wrong())?),
        };
        let part = match message.part_count {
            0 => None,
            count => Some(Part::new(message.part_index, count).map_err(|_| wrong())?),
        };
        let presentation =
            message.presentation.map(|line| Presentation::from_line(&line)).transpose().map_err(|_| wrong())?;
        Ok(Self {
            sql: message.sql,
            snapshot: message.snapshot.map(SnapshotId),
            part,
            params,
            held,
            change: message.change,
            done: message.done,
            described: message.described,
            presentation,
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
    use crate::adapters::flight::handle::Handle;
    use crate::adapters::ipc::{Presentation, Strings};
    use crate::ports::{ErrorKind, Part, SnapshotId};

    #[test]
    fn handles_survive_and_nothing_else_is_taken_for_one() {
        let params = arrow::array::record_batch!(("a", Int64, [1]), ("b", Utf8, ["x"])).unwrap();
        let handle = Handle {
            sql: "SELECT 'ü' & 1".into(),
            snapshot: Some(SnapshotId(7)),
            part: Some(Part::new(2, 3).unwrap()),
            params: Some(params),
            held: Some(u128::MAX - 1),
            change: true,
            done: true,
            described: true,
            presentation: Some(Presentation::of_strings(Strings::Plain)),
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
