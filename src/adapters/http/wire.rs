//! The bytes of HTTP, both directions in one place: statuses, errors, headers, formats, JSON shapes.

use crate::adapters::ipc;
use crate::ports::{
    Access, Caller, Description, Error, ErrorKind, Part, Query, Result, SnapshotId, TableInfo, deadline_in_ms,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Header with a request's id, in both directions.
pub const REQUEST_ID: &str = "x-request-id";
/// Response header: the kind of the statement.
pub const STATEMENT_KIND: &str = "x-zepto-statement-kind";
/// Request header: `read` refuses changes.
pub const ACCESS: &str = "x-zepto-access";
/// Request header: the snapshot to read.
pub const SNAPSHOT: &str = "x-zepto-snapshot";
/// Request header: the part of the result to send, as `index/count`.
pub const PART: &str = "x-zepto-part";
/// Request header: parameters, a base64 IPC stream of one row.
pub const PARAMS: &str = "x-zepto-params";
/// Request header: the timeout.
pub const TIMEOUT_MS: &str = "x-zepto-timeout-ms";
/// Response header: the format of a body, as ZeptoDB names it.
pub const FORMAT: &str = "x-zepto-format";
/// Response header of an insertion: batches received.
pub const BATCHES: &str = "x-zepto-batches";
/// Query of an insertion: what to do where the table is missing.
pub const IF_MISSING: &str = "if_missing";
/// Query of an insertion: what to do where the table exists.
pub const IF_EXISTS: &str = "if_exists";
/// Response header of an insertion: bytes of the rows in memory.
pub const BYTES: &str = "x-zepto-bytes";
/// Response header of an insertion: whether the table was created.
pub const TABLE_CREATED: &str = "x-zepto-table-created";

/// Kinds and their statuses, one to one.
const STATUSES: [(ErrorKind, u16); 13] = [
    (ErrorKind::InvalidQuery, 400),
    (ErrorKind::NotFound, 404),
    (ErrorKind::AlreadyExists, 409),
    (ErrorKind::SchemaMismatch, 422),
    (ErrorKind::Unsupported, 501),
    (ErrorKind::Unauthenticated, 401),
    (ErrorKind::PermissionDenied, 403),
    (ErrorKind::LimitExceeded, 429),
    (ErrorKind::Timeout, 504),
    (ErrorKind::Cancelled, 499),
    (ErrorKind::Unavailable, 503),
    (ErrorKind::Conflict, 412),
    (ErrorKind::Internal, 500),
];

/// Returns the status of a kind.
pub fn status_from_kind(kind: ErrorKind) -> StatusCode {
    let code = STATUSES.into_iter().find(|(known, _)| *known == kind).map_or(500, |(_, code)| code);
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns the kind of a status. Other statuses below 500 are the caller's mistake, but for 408.
pub fn kind_from_status(status: StatusCode) -> ErrorKind {
    let known = STATUSES.into_iter().find(|(_, code)| *code == status.as_u16()).map(|(kind, _)| kind);
    known.unwrap_or(match status.as_u16() {
        408 => ErrorKind::Timeout,
        400..=499 => ErrorKind::InvalidQuery,
        502..=504 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    })
}

/// Encodes the body of an error.
pub fn error_json(kind: &str, message: &str, request_id: &str) -> String {
    json!({"error": {"kind": kind, "message": message, "request_id": request_id}}).to_string()
}

/// Decodes the error of a response whose status is one.
pub fn error_from_response(status: StatusCode, body: &[u8]) -> Error {
    let kind = kind_from_status(status);
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let message =
        value["error"]["message"].as_str().map_or_else(|| format!("the server answered {status}"), str::to_owned);
    Error::new(kind, message)
}

/// Returns the media type of a request's body, without its parameters.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Builds the query of `sql` and a request's headers; `access`, where given, overrides the header.
///
/// # Errors
///
/// `InvalidQuery` for a header with an invalid value.
pub fn query_from_headers(sql: String, access: Option<Access>, headers: &HeaderMap, caller: Caller) -> Result<Query> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let number = |name: &'static str, expected: &str| {
        text(name).map(|text| text.parse::<u64>().map_err(|_| invalid_header(name, text, expected))).transpose()
    };
    let access = match (access, text(ACCESS)) {
        (Some(access), _) => access,
        (None, None | Some("change")) => Access::Change,
        (None, Some("read")) => Access::Read,
        (None, Some(other)) => return Err(invalid_header(ACCESS, other, "read or change")),
    };
    let params = text(PARAMS)
        .map(|text| {
            let bytes = BASE64.decode(text).map_err(|_| invalid_header(PARAMS, text, "base64"))?;
            ipc::decode_batch(bytes.into())
        })
        .transpose()?;
    let part = text(PART)
        .map(|text| {
            let parsed =
                text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
            let (index, count) = parsed.ok_or_else(|| invalid_header(PART, text, "index/count"))?;
            Part::new(index, count)
        })
        .transpose()?;
    Ok(Query {
        sql,
        params,
        access,
        snapshot: number(SNAPSHOT, "the number of a snapshot")?.map(SnapshotId),
        part,
        deadline: number(TIMEOUT_MS, "a number of milliseconds")?.and_then(deadline_in_ms),
        caller,
    })
}

fn invalid_header(name: &str, text: &str, expected: &str) -> Error {
    Error::invalid(format!("invalid value {text:?} for header {name}; expected {expected}"))
}

/// Encodes a query, but for its text, as headers.
///
/// # Errors
///
/// `Internal` for parameters that cannot be encoded.
pub fn headers_from_query(query: &Query) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    };
    set(ACCESS, if query.access == Access::Read { "read".into() } else { "change".into() });
    if let Some(snapshot) = query.snapshot {
        set(SNAPSHOT, snapshot.0.to_string());
    }
    if let Some(part) = query.part {
        set(PART, format!("{}/{}", part.index(), part.count()));
    }
    if let Some(timeout_ms) = query.timeout_ms() {
        set(TIMEOUT_MS, timeout_ms.to_string());
    }
    if let Some(params) = &query.params {
        set(PARAMS, BASE64.encode(ipc::encode_batch(params)?));
    }
    if !query.caller.request_id.is_empty() {
        set(REQUEST_ID, query.caller.request_id.clone());
    }
    Ok(headers)
}

/// Encodes a description.
pub fn description_json(description: &Description) -> Value {
    json!({
        "kind": description.kind.as_str(),
        "schema": BASE64.encode(ipc::encode_schema(&description.schema)),
        "rows": description.rows,
        "params": BASE64.encode(ipc::encode_schema(&description.params)),
    })
}

/// Decodes the description of [`description_json`].
///
/// # Errors
///
/// `Internal` for anything else: the sender is a server of this crate.
pub fn description_from_json(value: &Value) -> Result<Description> {
    Ok(Description {
        kind: value["kind"].as_str().unwrap_or_default().parse()?,
        schema: schema_from_json(&value["schema"])?,
        rows: value["rows"].as_u64(),
        params: schema_from_json(&value["params"])?,
    })
}

/// Encodes a table.
pub fn table_json(table: &TableInfo) -> Value {
    let columns: Vec<_> = table
        .schema
        .fields()
        .iter()
        .map(|field| json!({"name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable()}))
        .collect();
    json!({
        "name": table.name,
        "rows": table.rows,
        "bytes": table.bytes,
        "time_column": table.time_column,
        "columns": columns,
        "schema": BASE64.encode(ipc::encode_schema(&table.schema)),
    })
}

/// Decodes the table of [`table_json`].
///
/// # Errors
///
/// `Internal` for anything else.
pub fn table_from_json(value: &Value) -> Result<TableInfo> {
    Ok(TableInfo {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        schema: schema_from_json(&value["schema"])?,
        rows: value["rows"].as_u64(),
        bytes: value["bytes"].as_u64(),
        time_column: value["time_column"].as_str().map(str::to_owned),
    })
}

fn schema_from_json(value: &Value) -> Result<arrow::datatypes::SchemaRef> {
    let bytes = BASE64
        .decode(value.as_str().unwrap_or_default())
        .map_err(|error| Error::internal("the server's schema does not decode").with_source(error))?;
    ipc::decode_schema(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use crate::adapters::http::wire::{
        error_from_response, error_json, headers_from_query, kind_from_status, query_from_headers, status_from_kind,
    };
    use crate::ports::{Access, Caller, ErrorKind, Part, Query, SnapshotId};
    use http::HeaderMap;
    use std::collections::HashSet;

    #[test]
    fn kinds_and_statuses_are_one_to_one_and_carry_an_error_across() {
        let statuses: HashSet<_> = ErrorKind::ALL.map(status_from_kind).into_iter().collect();
        assert_eq!(statuses.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert_eq!(kind_from_status(status_from_kind(kind)), kind);
            let body = error_json(kind.as_str(), "what \"happened\"", "r1");
            let back = error_from_response(status_from_kind(kind), body.as_bytes());
            assert_eq!((back.kind(), back.message()), (kind, "what \"happened\""));
        }
    }

    #[test]
    fn a_query_survives_its_headers() {
        let query = Query {
            sql: "SELECT $1".into(),
            params: Some(arrow::array::record_batch!(("a", Int64, [1])).unwrap()),
            access: Access::Read,
            snapshot: Some(SnapshotId(9)),
            part: Some(Part::new(1, 3).unwrap()),
            deadline: None,
            caller: Caller::client("r", "10.0.0.1"),
        };
        let headers = headers_from_query(&query).unwrap();
        assert_eq!(query_from_headers(query.sql.clone(), None, &headers, query.caller.clone()).unwrap(), query);
        let timed = headers_from_query(&query.clone().within_ms(Some(5_000))).unwrap();
        let timed = query_from_headers(query.sql.clone(), None, &timed, query.caller.clone()).unwrap();
        assert!((4_000..=5_000).contains(&timed.timeout_ms().unwrap()));
        let mut wrong = HeaderMap::new();
        wrong.insert("x-zepto-timeout-ms", "soon".parse().unwrap());
        let error = query_from_headers(String::new(), None, &wrong, Caller::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidQuery);
        let expected = "invalid value \"soon\" for header x-zepto-timeout-ms; expected a number of milliseconds";
        assert_eq!(error.message(), expected);
    }
}
