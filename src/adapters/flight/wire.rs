//! The bytes of Flight, both directions in one place: errors, messages, headers. Handles and commands have files of their
//! own.

use crate::adapters::ipc::{self, Encoding};
use crate::ports::{Error, ErrorKind, Limits, Result};
use arrow_flight::FlightData;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Status codes of Arrow C++ (`arrow::StatusCode`), which pyarrow and R rebuild their exceptions from.
const ARROW_STATUS: &str = "x-arrow-status";

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
    Status::with_metadata(code, shortened(error.message()), trailers)
}

/// Bytes of a message that trailers carry: clients refuse metadata of more than 8 to 16 KiB, and percent-encoding makes
/// three bytes of one.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// Returns the beginning of a message, as much as trailers carry.
fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    format!("{} …", &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)])
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
