//! Encodes and decodes what Flight carries beside batches: errors, headers, ingest summaries, names of actions.
//!
//! Both directions of each stand here together. Handles and commands have files of their own.

use crate::adapters::ipc::{self, Encoding};
use crate::adapters::serving::numbered_put::{HEADER_PREFIX, OPTIONS, add_writer, not_ascii, writer_of};
use crate::ports::{Error, ErrorKind, IngestSummary, Limits, Reply, Result, StatementKind, TableInfo};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::FlightData;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Trailer with a status code of Arrow C++ (`arrow::StatusCode`), which pyarrow and R choose their exceptions by.
const ARROW_STATUS: &str = "x-arrow-status";

/// Kinds of errors, gRPC codes and Arrow's codes. The first two columns are one to one.
const CODES: [(ErrorKind, Code, Option<u16>); 13] = [
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
    (ErrorKind::Conflict, Code::Aborted, None),
    (ErrorKind::Internal, Code::Internal, None),
];

/// Converts an error to a gRPC status, with the trailers that pyarrow reads.
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
    Status::with_metadata(code, shortened(error.message()), trailers)
}

/// Most bytes of a message in trailers: clients refuse metadata of more than 8 to 16 KiB, and percent-encoding makes
/// three bytes of one.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// Cuts a message to what trailers carry.
fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    format!("{} …", &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)])
}

/// Converts a gRPC status to an error. Codes that our servers never send mean a lost connection.
pub fn error_from_status(status: &Status) -> Error {
    let known = CODES.into_iter().find(|(_, code, _)| *code == status.code()).map(|(kind, ..)| kind);
    let kind = match status.code() {
        // Failures of the transport have a source, and all kinds of codes.
        _ if std::error::Error::source(status).is_some() => ErrorKind::Unavailable,
        Code::Unknown => ErrorKind::Unavailable,
        _ => known.unwrap_or(ErrorKind::Internal),
    };
    Error::new(kind, status.message())
}

/// Encodes an IPC message as a protobuf message with its body in one piece, for tonic's client. The server uses `grpc`.
pub fn flight_data(message: &ipc::Message) -> FlightData {
    FlightData { data_header: message.header(), data_body: message.body().concat().into(), ..FlightData::default() }
}

/// Reads from the headers how a reply is to be encoded.
///
/// # Errors
///
/// `InvalidQuery` for an invalid value of a header.
pub fn encoding(metadata: &MetadataMap, limits: &Limits) -> Result<Encoding> {
    Encoding::from_headers(|name| metadata.get(name).map(|value| value.to_str().unwrap_or("?")), limits)
}

/// Request header of GetFlightInfo: number of endpoints.
const ENDPOINTS: &str = "x-zepto-endpoints";

/// Most endpoints that a caller may ask for.
const ENDPOINTS_MAX: u32 = 256;

/// Reads from the headers how many endpoints the caller wants; the default is one.
///
/// # Errors
///
/// `InvalidQuery` for an invalid value of the header.
pub fn endpoints(metadata: &MetadataMap) -> Result<u32> {
    let Some(text) = metadata.get(ENDPOINTS).map(|value| value.to_str().unwrap_or("?")) else { return Ok(1) };
    text.parse().ok().filter(|count| (1..=ENDPOINTS_MAX).contains(count)).ok_or_else(|| {
        Error::invalid(format!(
            "invalid value {text:?} for header {ENDPOINTS}; expected a number from 1 to {ENDPOINTS_MAX}"
        ))
    })
}

/// Reads the options of a stream from the headers.
///
/// # Errors
///
/// `InvalidQuery` for a value that is not ASCII, which a header cannot carry.
pub fn put_options(metadata: &MetadataMap) -> Result<Vec<(&'static str, String)>> {
    let option = |name: &'static str| {
        let value = metadata.get(format!("{HEADER_PREFIX}{name}"))?;
        Some(value.to_str().map(|text| (name, text.to_owned())).map_err(|_| not_ascii(name)))
    };
    OPTIONS.into_iter().filter_map(option).collect()
}

/// Most time by which a call ends before the deadline of its caller.
const DEADLINE_MARGIN_MS: u64 = 20;

/// Reads `grpc-timeout` in milliseconds (gRPC over HTTP/2, "Timeout"), less a margin: tonic cuts a call off at its
/// deadline with CANCELLED, so DEADLINE_EXCEEDED has to be sent before.
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

/// Action that returns the server's health.
pub const HEALTHCHECK: &str = "healthcheck";
/// Action that describes a statement without running it.
pub const DESCRIBE: &str = "describe";
/// Action that pins the present state of all tables.
pub const SNAPSHOT: &str = "snapshot";

/// Action that answers how far a writer has come.
pub const WRITER: &str = "writer";

/// Encodes an ingest summary as DoPut answers it.
pub fn summary_json(summary: &IngestSummary) -> String {
    let mut answer = serde_json::json!({
        "rows": summary.rows,
        "batches": summary.batches,
        "bytes": summary.bytes,
        "table_created": summary.table_created,
    });
    add_writer(&mut answer, summary);
    answer.to_string()
}

/// Decodes the summary of [`summary_json`].
///
/// # Errors
///
/// `Internal` for anything else: only our own servers send these.
pub fn summary_from_json(text: &[u8]) -> Result<IngestSummary> {
    let wrong = || Error::internal("the server's summary of a DoPut does not decode");
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| wrong().with_source(error))?;
    let number = |key: &str| value[key].as_u64().ok_or_else(wrong);
    let (duplicate, writer) = writer_of(&value)?;
    Ok(IngestSummary {
        duplicate,
        writer,
        rows: number("rows")?,
        batches: number("batches")?,
        bytes: number("bytes")?,
        table_created: value["table_created"].as_bool().ok_or_else(wrong)?,
    })
}

/// Encodes what a table's FlightInfo has no field for, as its `app_metadata`.
pub fn table_json(table: &TableInfo) -> String {
    serde_json::json!({ "time_column": table.time_column }).to_string()
}

/// Decodes the time column from the text of [`table_json`]; none where an older server sends no text.
///
/// # Errors
///
/// `Internal` for anything else: only our own servers send these.
pub fn time_column_from_json(text: &[u8]) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::internal("the server's description of a table does not decode");
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| wrong().with_source(error))?;
    Ok(value["time_column"].as_str().map(str::to_owned))
}

/// Returns the number of rows that a change reports; 0 for a definition.
///
/// # Errors
///
/// Those of the reply's stream.
pub async fn change_count(reply: Reply) -> Result<i64> {
    let batches = reply.batches.collect().await?;
    Ok(match (reply.kind, batches.first()) {
        (StatementKind::Change, Some(count)) => {
            count.column(0).as_primitive_opt::<Int64Type>().map_or(-1, |count| count.value(0))
        }
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::wire::{CODES, error_from_status, status_from_error, timeout_ms};
    use crate::ports::{Error, ErrorKind};
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
    fn long_messages_are_cut_to_what_trailers_carry() {
        let status = status_from_error(&Error::invalid("ü".repeat(100_000)));
        assert!(status.message().len() < 2_100 && status.message().ends_with('…'));
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
