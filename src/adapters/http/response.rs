//! Responses: JSON answers, errors, and results that are written while they arrive.
//!
//! A result that breaks off breaks its connection too, so that a client does not take it for complete.

use crate::adapters::formats::format::Format;
use crate::adapters::formats::write::{ResultStyle, ResultWriter};
use crate::adapters::http::error::HttpError;
use crate::adapters::http::wire::{FORMAT, STATEMENT_KIND, error_json, status_from_kind};
use crate::adapters::serving::AdmittedRequest;
use crate::adapters::serving::ResultOptions;
use crate::ports::{BatchStream, Error, Reply, Result};
use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use sync_wrapper::SyncStream;
use warp::Reply as _;
use warp::reply::Response;

/// Sets a header; a value that is not one is left out.
pub fn set_header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        headers.insert(name, value);
    }
}

/// Builds a response of one JSON document.
pub fn json_response(status: StatusCode, json: &str) -> Response {
    let mut response = format!("{json}\n").into_response();
    *response.status_mut() = status;
    set_header(response.headers_mut(), CONTENT_TYPE.as_str(), "application/json");
    response
}

/// Ends an admitted request with a JSON document or an error.
pub fn finish_json(result: Result<Value, HttpError>, admitted: &mut AdmittedRequest) -> Response {
    match result {
        Ok(value) => {
            admitted.done();
            json_response(StatusCode::OK, &value.to_string())
        }
        Err(error) => finish_error(error, admitted),
    }
}

/// Ends an admitted request with an error.
pub fn finish_error(error: HttpError, admitted: &mut AdmittedRequest) -> Response {
    let response = error_response(&error, admitted.id());
    admitted.fail(error.into());
    response
}

/// Builds the response of an error.
pub fn error_response(error: &HttpError, request_id: &str) -> Response {
    match error {
        HttpError::Port(error) => {
            let body = error_json(error.kind().as_str(), error.message(), request_id);
            json_response(status_from_kind(error.kind()), &body)
        }
        HttpError::Status { status, kind, message, allow } => {
            let mut response = json_response(*status, &error_json(kind, message, request_id));
            if let Some(allow) = allow {
                set_header(response.headers_mut(), ALLOW.as_str(), allow);
            }
            response
        }
    }
}

/// Presents the columns of `reply` as its caller wants them. Where they change, this waits for the first batch, so that
/// a value that cannot be cast becomes a status and not a broken body.
///
/// # Errors
///
/// Those of the first batch.
pub async fn apply_options(reply: Reply, options: &ResultOptions) -> Result<Reply> {
    let given = reply.batches.schema();
    let schema = Arc::new(options.schema(&given));
    let mut batches = options.apply(reply.batches, schema.clone());
    if schema != given {
        let first = batches.next().await.transpose()?;
        batches = BatchStream::new(schema, stream::iter(first.map(Ok)).chain(batches));
    }
    Ok(Reply { batches, ..reply })
}

/// Builds the response of a query: its result, or its error.
pub fn result_response(reply: Result<(Reply, ResultStyle), HttpError>, mut admitted: AdmittedRequest) -> Response {
    let (reply, style) = match reply {
        Ok(reply) => reply,
        Err(error) => return finish_error(error, &mut admitted),
    };
    let kind = reply.kind;
    let bytes = match result_body(reply.batches, style, admitted) {
        Ok(bytes) => bytes,
        Err(refused) => {
            let (error, mut admitted) = *refused;
            return finish_error(error.into(), &mut admitted);
        }
    };
    let mut response = warp::reply::stream(SyncStream::new(bytes)).into_response();
    set_header(response.headers_mut(), CONTENT_TYPE.as_str(), style.format.media_type());
    set_header(response.headers_mut(), STATEMENT_KIND, kind.as_str());
    if style.format == Format::Arrow {
        set_header(response.headers_mut(), FORMAT, "arrow-stream");
    }
    response
}

/// A result that is being written.
struct ResultBody {
    batches: BatchStream,
    writer: ResultWriter,
    /// Pieces of a batch that are not written yet: one is written when the last is taken, so that a client that does not
    /// read holds no more than one piece of text in memory.
    pieces: VecDeque<RecordBatch>,
    /// Bytes that are written and not taken yet.
    waiting: VecDeque<Bytes>,
    ended: bool,
    admitted: AdmittedRequest,
}

/// Writes a result as a body. The request is logged when the last byte is taken, or the body is dropped.
fn result_body(
    batches: BatchStream,
    style: ResultStyle,
    admitted: AdmittedRequest,
) -> Result<impl Stream<Item = Result<Bytes>> + Send, Box<(Error, AdmittedRequest)>> {
    let (writer, first) = match ResultWriter::new(&batches.schema(), style) {
        Ok(begun) => begun,
        Err(error) => return Err(Box::new((error, admitted))),
    };
    let batches = admitted.until_shutdown(batches);
    let body = ResultBody { batches, writer, pieces: VecDeque::new(), waiting: first, ended: false, admitted };
    let bytes = stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        let next = body.next().await?;
        let rest = next.is_ok();
        if let Ok(bytes) = &next {
            body.admitted.sent(0, bytes.len() as u64);
        }
        let next = next.map_err(|error| body.admitted.fail(error));
        Some((next, rest.then_some(body)))
    });
    // The compressor polls once more after the end.
    Ok(bytes.fuse())
}

impl ResultBody {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                // A writer may have nothing yet to send, such as Parquet's within a row group.
                if bytes.is_empty() {
                    continue;
                }
                return Some(Ok(bytes));
            }
            if let Some(piece) = self.pieces.pop_front() {
                if let Err(error) = self.writer.write(&piece, &mut self.waiting) {
                    return Some(Err(error));
                }
                continue;
            }
            if self.ended {
                self.admitted.done();
                return None;
            }
            match self.batches.next().await {
                None => {
                    self.ended = true;
                    match self.writer.end(self.admitted.elapsed()) {
                        Ok(last) => self.waiting.push_back(last),
                        Err(error) => return Some(Err(error)),
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(batch)) => {
                    self.admitted.sent(batch.num_rows() as u64, 0);
                    self.pieces = self.writer.pieces(batch);
                }
            }
        }
    }
}
