//! How a request says what its result is to look like.
//!
//! `?format=` takes our names, `?default_format=` ClickHouse's; else the first known type in `Accept` counts, else JSON.
//! A FORMAT clause at the end of a statement overrides all but an explicit choice.

use crate::adapters::formats::format::{ARROW_STREAM, Format, PARQUET};
use crate::adapters::formats::write::{NanStyle, ResultStyle};
use crate::adapters::http::error::HttpError;
use crate::adapters::http::request::HttpRequest;
use crate::adapters::ipc::Encoding;
use crate::adapters::serving::ResultOptions;
use crate::ports::{Error, Limits, Result};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use std::collections::HashMap;

/// Returns how a request wants its result written, and its columns; `trailing_format` is that of the statement's FORMAT
/// clause.
///
/// # Errors
///
/// 406 where it accepts no known format, 505 for a format that needs HTTP/1.1, `InvalidQuery` for an option that is
/// unknown or has an invalid value.
pub fn result_style(
    request: &HttpRequest,
    trailing_format: Option<Format>,
    limits: &Limits,
) -> Result<(ResultStyle, ResultOptions), HttpError> {
    let chosen = match trailing_format {
        Some(format) => Some(format),
        None => choose_format(&request.query, &request.headers)?,
    };
    let format = chosen.ok_or_else(|| {
        let message = "no accepted media type is supported; docs/protocol.md lists those that are";
        HttpError::status(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    })?;
    // HTTP/1.0 ends a body by closing the connection, so that a truncated CSV would look complete.
    if !request.meta.framed && !format.self_terminating() {
        let message = "over HTTP/1.0 a truncated result in this format looks complete; use HTTP/1.1";
        return Err(HttpError::status(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "VersionNotSupported", message));
    }
    let nan = match request.query.get("nan").map(String::as_str) {
        None | Some("null") => NanStyle::Null,
        Some("string") => NanStyle::Text,
        Some(other) => {
            return Err(Error::invalid(format!("invalid value {other:?} for nan; expected null or string")).into());
        }
    };
    let encoding = Encoding::from_headers(|name| request.header(name), limits)?;
    Ok((ResultStyle { format, nan, encoding }, options(request)?))
}

/// Returns how a request wants the columns of its result.
///
/// # Errors
///
/// `InvalidQuery` for an option that is unknown or has an invalid value.
pub fn options(request: &HttpRequest) -> Result<ResultOptions> {
    ResultOptions::from_headers(|name| request.header(name))
}

/// Returns whether a request names its format explicitly, so that a FORMAT clause does not count.
pub fn is_explicit(request: &HttpRequest) -> bool {
    let accept = request.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    request.query.contains_key("format")
        || accept.is_some_and(|accept| !accept.contains("*/*") && format_from_media_type(accept).is_some())
}

/// Returns the format that a request asks for; `None` where it accepts no known one.
fn choose_format(query: &HashMap<String, String>, headers: &HeaderMap) -> Result<Option<Format>> {
    let unknown = |name: &String| {
        let names: Vec<_> = Format::names().collect();
        Error::invalid(format!("unknown format {name:?}; expected one of {}", names.join(", ")))
    };
    if let Some(name) = query.get("format") {
        return Format::named(name).ok_or_else(|| unknown(name)).map(Some);
    }
    if let Some(name) = query.get("default_format") {
        return Format::clickhouse(name).ok_or_else(|| unknown(name)).map(Some);
    }
    let Some(accept) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else {
        return Ok(Some(Format::Json));
    };
    let types = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    Ok(types.into_iter().find_map(|media_type| format_from_media_type(&media_type)))
}

fn format_from_media_type(media_type: &str) -> Option<Format> {
    match media_type {
        "application/json" | "application/*" | "*/*" | "" => Some(Format::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Format::Ndjson),
        "text/csv" | "text/*" => Some(Format::Csv),
        "text/tab-separated-values" => Some(Format::Tsv),
        ARROW_STREAM => Some(Format::Arrow),
        PARQUET | "application/x-parquet" => Some(Format::Parquet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::formats::format::Format;
    use crate::adapters::http::negotiation::choose_format;
    use crate::ports::{ErrorKind, Result};
    use http::HeaderMap;
    use std::collections::HashMap;

    fn choose(name: &str, value: &str, accept: &str) -> Result<Option<Format>> {
        let query: HashMap<_, _> =
            Some((name.to_owned(), value.to_owned())).filter(|_| !name.is_empty()).into_iter().collect();
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert("accept", accept.parse().unwrap());
        }
        choose_format(&query, &headers)
    }

    #[test]
    fn formats_are_chosen_by_name_then_by_accept() {
        assert_eq!(choose("", "", "").unwrap(), Some(Format::Json));
        assert_eq!(choose("format", "ArrowStream", "text/csv").unwrap(), Some(Format::Arrow));
        assert_eq!(choose("format", "JSON", "").unwrap(), Some(Format::Json), "our own parameter, our own shape");
        assert_eq!(choose("default_format", "JSON", "").unwrap(), Some(Format::ClickHouse));
        assert_eq!(choose("default_format", "CSV", "").unwrap(), Some(Format::CsvNoHeader));
        assert_eq!(choose("format", "JSONCompact", "").unwrap(), Some(Format::ClickHouseCompact));
        assert_eq!(choose("", "", "image/png, text/csv;q=0.5").unwrap(), Some(Format::Csv));
        assert_eq!(choose("", "", "image/png").unwrap(), None);
        assert_eq!(choose("format", "xml", "").unwrap_err().kind(), ErrorKind::InvalidQuery);
    }
}
