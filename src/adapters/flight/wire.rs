//! The bytes of Flight, both directions in one place: errors, handles, commands.
//!
//! A ticket or command is SQL text, unless it begins like one of our handles or is a Flight SQL message. No SQL begins
//! with the byte 0xff, which no UTF-8 has.

use crate::adapters::ipc::{self, Encoding};
use crate::ports::{Access, Error, ErrorKind, Limits, Part, Query, Result, SnapshotId};
use arrow::array::RecordBatch;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, CommandStatementUpdate, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Status codes of Arrow C++ (`arrow::StatusCode`), which pyarrow and R rebuild their exceptions from.
const ARROW_STATUS: &str = "x-arrow-status";

/// What every handle begins with.
const HANDLE_MARK: &[u8] = b"\xffzepto\x01";

/// Type URLs of Flight SQL commands begin with this.
const FLIGHT_SQL_PREFIX: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// The one table between kinds, gRPC codes and Arrow's codes. One to one in its first two columns.
const CODES: [(ErrorKind, Code, Option<u16>); 12] = [
    (ErrorKind::InvalidQuery, Code::InvalidArgument, Some(4)),
    (ErrorKind::NotFound, Code::NotFound, Some(2)),
    (ErrorKind::AlreadyExists, Code::AlreadyExists, Some(45)),
    (ErrorKind::SchemaMismatch, Code::FailedPrecondition, Some(3)),
    (ErrorKind::Unsupported, Code::Unimplemented, Some(10)),
    (ErrorKind::Unauthenticated, Code::Unauthenticated, None),
    (ErrorKind::PermissionDenied, Code::PermissionDenied, None),
    (ErrorKind::LimitExceeded, Code::ResourceExhausted, Some(6)),
    (ErrorKind::Timeout, Code::DeadlineExceeded, None),
    (ErrorKind::Cancelled, Code::Cancelled, None),
    (ErrorKind::Unavailable, Code::Unavailable, None),
    (ErrorKind::Internal, Code::Internal, None),
];

/// An error as a gRPC status, with the trailers that pyarrow reads.
pub fn status_from_error(error: &Error) -> Status {
    let (_, code, arrow) = CODES.into_iter().find(|(kind, ..)| *kind == error.kind()).unwrap_or((
        ErrorKind::Internal,
        Code::Internal,
        None,
    ));
    let mut trailers = MetadataMap::new();
    if let Some(arrow) = arrow {
        trailers.insert(ARROW_STATUS, arrow.into());
    }
    Status::with_metadata(code, error.message(), trailers)
}

/// A gRPC status as an error. Codes that our servers never send are a bug of theirs, or a lost connection.
pub fn error_from_status(status: &Status) -> Error {
    let known = CODES.into_iter().find(|(_, code, _)| *code == status.code()).map(|(kind, ..)| kind);
    let kind = match status.code() {
        // The transport's own failures have a source, and codes of all kinds.
        _ if std::error::Error::source(status).is_some() => ErrorKind::Unavailable,
        Code::Unknown | Code::Aborted => ErrorKind::Unavailable,
        _ => known.unwrap_or(ErrorKind::Internal),
    };
    Error::new(kind, status.message())
}

/// What a ticket or command stands for beyond plain SQL text.
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
}

impl Handle {
    /// The handle of a query.
    pub fn of(query: &Query) -> Self {
        Self {
            sql: query.sql.clone(),
            snapshot: query.snapshot,
            part: query.part,
            params: query.params.clone(),
            held: None,
            change: query.access == Access::Change,
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
            held: self.held.map(|id| Bytes::copy_from_slice(&id.to_be_bytes())).unwrap_or_default(),
            change: self.change,
            part_index: self.part.map_or(0, Part::index),
            part_count: self.part.map_or(0, Part::count),
        };
        Ok([HANDLE_MARK, &message.encode_to_vec()].concat().into())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = || Error::invalid("the handle is not one of this server's");
        let message = HandleMessage::decode(bytes).map_err(|_| wrong())?;
        let held = match message.held.len() {
            0 => None,
            _ => Some(u128::from_be_bytes(message.held.as_ref().try_into().map_err(|_| wrong())?)),
        };
        let params = match message.params.len() {
            0 => None,
            _ => Some(ipc::decode_batch(message.params).map_err(|_| wrong())?),
        };
        let part = match message.part_count {
            0 => None,
            count => Some(Part::new(message.part_index, count).map_err(|_| wrong())?),
        };
        let snapshot = message.snapshot.map(SnapshotId);
        Ok(Self { sql: message.sql, snapshot, part, params, held, change: message.change })
    }
}

/// What the bytes of a ticket or command say.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A statement, or a held result.
    Query(Handle),
    /// A change, sent as Flight SQL or as a handle to DoPut.
    Update(String),
    /// A Flight SQL message that is not known here.
    Unknown(String),
}

impl Command {
    /// Reads the bytes of a ticket or command.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for bytes that are none of the three.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if let Some(message) = bytes.strip_prefix(HANDLE_MARK) {
            return Handle::decode(message).map(Self::Query);
        }
        if let Some(any) = Any::decode(bytes).ok().filter(|any| any.type_url.starts_with(FLIGHT_SQL_PREFIX)) {
            let update = any.unpack::<CommandStatementUpdate>();
            return Ok(match update {
                Ok(Some(update)) => Self::Update(update.query),
                Ok(None) => Self::Unknown(any.type_url[FLIGHT_SQL_PREFIX.len()..].to_owned()),
                Err(error) => return Err(Error::invalid(format!("the Flight SQL command does not decode: {error}"))),
            });
        }
        match std::str::from_utf8(bytes) {
            Ok(sql) => Ok(Self::Query(Handle { sql: sql.to_owned(), ..Handle::default() })),
            Err(_) => Err(Error::invalid("the ticket or command is neither UTF-8 SQL nor a handle of this server")),
        }
    }

    /// A change as a Flight SQL command.
    pub fn encode_update(sql: &str) -> Bytes {
        CommandStatementUpdate { query: sql.to_owned(), transaction_id: None }.as_any().encode_to_vec().into()
    }
}

/// What a descriptor says.
///
/// # Errors
///
/// `InvalidQuery` where it says nothing.
pub fn command_of(descriptor: &FlightDescriptor) -> Result<Command> {
    match descriptor.r#type() {
        DescriptorType::Cmd => Command::decode(&descriptor.cmd),
        DescriptorType::Path => {
            let table = path_table(descriptor)?;
            Ok(Command::Query(Handle { sql: select_all(&table), ..Handle::default() }))
        }
        DescriptorType::Unknown => Err(Error::invalid("the descriptor is neither a command nor a path")),
    }
}

/// Where a DoPut goes.
#[derive(Debug, Clone, PartialEq)]
pub enum PutTarget {
    /// Into a table.
    Table(String),
    /// Nowhere: it is a change, with its parameters.
    Update(Handle),
}

/// What the descriptor of a DoPut says.
///
/// # Errors
///
/// `InvalidQuery` where it says nothing, `Unsupported` for Flight SQL commands that are not known here.
pub fn put_target(descriptor: &FlightDescriptor) -> Result<PutTarget> {
    match descriptor.r#type() {
        DescriptorType::Path => path_table(descriptor).map(PutTarget::Table),
        DescriptorType::Unknown => Err(Error::invalid("the descriptor is neither a command nor a path")),
        DescriptorType::Cmd => match Command::decode(&descriptor.cmd)? {
            Command::Update(sql) => Ok(PutTarget::Update(Handle { sql, ..Handle::default() })),
            Command::Query(handle) if descriptor.cmd.starts_with(HANDLE_MARK) => Ok(PutTarget::Update(handle)),
            Command::Query(table) => Ok(PutTarget::Table(table.sql)),
            Command::Unknown(name) => Err(unknown_command(&name)),
        },
    }
}

/// The error for a Flight SQL command that is not known here.
pub fn unknown_command(name: &str) -> Error {
    Error::unsupported(format!("the Flight SQL command {name} is not supported; send SQL text as ticket or command"))
}

fn path_table(descriptor: &FlightDescriptor) -> Result<String> {
    match descriptor.path.as_slice() {
        [table] => Ok(table.clone()),
        path => Err(Error::invalid(format!("a path names one table, and this one has {} parts", path.len()))),
    }
}

/// All of a table, as SQL.
pub fn select_all(table: &str) -> String {
    format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""))
}

/// An IPC message as a protobuf message, its body in one piece: for tonic's client. The server has [`super::grpc`].
pub fn flight_data(message: &ipc::Message) -> FlightData {
    FlightData { data_header: message.header(), data_body: message.body().concat().into(), ..FlightData::default() }
}

/// How a caller wants its reply written.
///
/// # Errors
///
/// `InvalidQuery` for a header that says something else than it may.
pub fn encoding(metadata: &MetadataMap, limits: &Limits) -> Result<Encoding> {
    Encoding::choose(|name| metadata.get(name).map(|value| value.to_str().unwrap_or("?")), limits)
}

/// Request header of GetFlightInfo: how many endpoints to answer with.
const ENDPOINTS: &str = "x-zepto-endpoints";

/// Most endpoints that a caller may ask for.
const ENDPOINTS_MAX: u32 = 256;

/// How many endpoints a caller wants; one, if it does not say.
///
/// # Errors
///
/// `InvalidQuery` for a header that is no such number.
pub fn endpoints(metadata: &MetadataMap) -> Result<u32> {
    let Some(text) = metadata.get(ENDPOINTS).map(|value| value.to_str().unwrap_or("?")) else { return Ok(1) };
    text.parse().ok().filter(|count| (1..=ENDPOINTS_MAX).contains(count)).ok_or_else(|| {
        Error::invalid(format!("header {ENDPOINTS} can't be {text:?}; it takes a number from 1 to {ENDPOINTS_MAX}"))
    })
}

/// How much earlier than its caller a call ends, at most.
const DEADLINE_MARGIN_MS: u64 = 20;

/// `grpc-timeout` in milliseconds (gRPC over HTTP/2, "Timeout"), less a little: tonic cuts a call off at its deadline with
/// CANCELLED, and whoever knows better has to say so before.
pub fn timeout_ms(metadata: &MetadataMap) -> Option<u64> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = digits.parse::<u64>().ok()?;
    let nanos = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1_u64,
        _ => return None,
    };
    let timeout_ms = count.saturating_mul(nanos).div_ceil(1_000_000);
    Some(timeout_ms - (timeout_ms / 10).min(DEADLINE_MARGIN_MS))
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::wire::{
        CODES, Command, Handle, error_from_status, put_target, status_from_error, timeout_ms,
    };
    use crate::ports::{Error, ErrorKind, Part, SnapshotId};
    use arrow_flight::FlightDescriptor;
    use std::collections::HashSet;
    use tonic::metadata::MetadataMap;

    #[test]
    fn kinds_and_codes_are_one_to_one_and_carry_an_error_across() {
        let codes: HashSet<_> = CODES.iter().map(|(_, code, _)| *code as i32).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let status = status_from_error(&Error::new(kind, "what happened"));
            let back = error_from_status(&status);
            assert_eq!((back.kind(), back.message()), (kind, "what happened"));
        }
    }

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
        };
        let bytes = handle.encode().unwrap();
        assert_eq!(Command::decode(&bytes).unwrap(), Command::Query(handle));
        for cut in 8..bytes.len() - 1 {
            let _ = Command::decode(&bytes[..cut]);
        }
        assert_eq!(Command::decode(b"\xff\xfe").unwrap_err().kind(), ErrorKind::InvalidQuery);
        assert_eq!(Command::decode(b"\xffzepto\x01garbage").unwrap_err().kind(), ErrorKind::InvalidQuery);
        let update = Command::encode_update("DELETE FROM t");
        assert_eq!(Command::decode(&update).unwrap(), Command::Update("DELETE FROM t".into()));
    }

    #[test]
    fn descriptors_without_a_target_are_refused() {
        let two = FlightDescriptor::new_path(vec!["a".into(), "b".into()]);
        for descriptor in [two, FlightDescriptor::default()] {
            assert_eq!(put_target(&descriptor).unwrap_err().kind(), ErrorKind::InvalidQuery);
        }
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("2S", Some(1_980)),
            ("1500m", Some(1_480)),
            ("100m", Some(90)),
            ("1n", Some(1)),
            ("x", None),
            ("", None),
            ("5é", None),
        ] {
            let mut metadata = MetadataMap::new();
            if let Ok(value) = text.parse() {
                metadata.insert("grpc-timeout", value);
            }
            assert_eq!(timeout_ms(&metadata), expected, "{text}");
        }
    }
}
