//! One HTTP request: what every handler gets.

use crate::adapters::formats::format::ARROW_STREAM;
use crate::adapters::http::error::HttpError;
use crate::adapters::http::wire::content_type;
use crate::ports::{Error, ErrorKind, Limits, MemoryAccount, Reservation};
use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, Method, StatusCode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use sync_wrapper::SyncStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Properties of a request that its connection knows.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// Address of the sender.
    pub peer: Option<SocketAddr>,
    /// Id of the request.
    pub request_id: String,
    /// Whether HTTP marks the end of a body: before HTTP/1.1 a body ends with its connection, for whatever reason.
    pub framed: bool,
}

/// A request.
pub struct HttpRequest {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its query, decoded; of several values of one name, the last.
    pub query: HashMap<String, String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Peer and id.
    pub meta: RequestMeta,
    /// Its body, in chunks.
    pub body: RequestBody,
}

/// A request's body.
///
/// What is left of it when it is dropped is still read for a while: a client that is busy sending would otherwise lose
/// its connection before it sees the answer.
pub struct RequestBody(Option<SyncStream<BoxStream<'static, Result<Bytes, HttpError>>>>);

/// How long the rest of a body is read.
const DRAIN: Duration = Duration::from_secs(5);

impl futures::Stream for RequestBody {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Some(chunks) => chunks.poll_next_unpin(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(mut rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(timeout(DRAIN, async move { while let Some(Ok(_)) = rest.next().await {} }));
        }
    }
}

impl RequestBody {
    /// Wraps a body so that each of its chunks has to arrive within `body_timeout_ms`.
    pub fn with_read_timeout<B: Buf, E: std::error::Error + Send + Sync + 'static>(
        body: impl futures::Stream<Item = Result<B, E>> + Send + 'static,
        limits: &Limits,
    ) -> Self {
        // A time of 0 is no limit.
        let read_timeout = (limits.body_timeout_ms > 0).then(|| Duration::from_millis(limits.body_timeout_ms));
        let chunks = futures::stream::unfold(Some(Box::pin(body)), move |body| async move {
            let mut body = body?;
            let next = match read_timeout {
                Some(read_timeout) => timeout(read_timeout, body.next()).await,
                None => Ok(body.next().await),
            };
            match next {
                Err(_) => {
                    let message = "the rest of the body did not arrive in time (body_timeout_ms)";
                    Some((Err(HttpError::status(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message)), None))
                }
                Ok(None) => None,
                Ok(Some(Ok(mut chunk))) => Some((Ok(chunk.copy_to_bytes(chunk.remaining())), Some(body))),
                Ok(Some(Err(error))) => Some((Err(HttpError::Port(body_error(error))), None)),
            }
        });
        Self(Some(SyncStream::new(chunks.fuse().boxed())))
    }

    /// Reads the whole body. Its bytes are counted in `memory` until the last of them is dropped.
    ///
    /// # Errors
    ///
    /// 413 beyond `bytes_max`, `LimitExceeded` where the memory is not free, and those of the body.
    pub async fn read_to_end(mut self, bytes_max: u64, memory: &MemoryAccount) -> Result<Bytes, HttpError> {
        let (mut bytes, mut reserved) = (BytesMut::new(), memory.reserve(0)?);
        while let Some(chunk) = self.next().await {
            let chunk = chunk?;
            reserved.join(memory.reserve(chunk.len() as u64)?);
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > bytes_max {
                let advice = "send it as Arrow or NDJSON, which have no such limit";
                return Err(HttpError::payload_too_large("the body", bytes_max, advice));
            }
        }
        Ok(Bytes::from_owner(CountedBytes { bytes, _memory: reserved }))
    }
}

/// Bytes with their reservation.
struct CountedBytes {
    bytes: BytesMut,
    _memory: Reservation,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Tells a broken connection from a body that cannot be decompressed.
fn body_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let first: &(dyn std::error::Error + 'static) = &error;
    let causes = || std::iter::successors(Some(first), |cause| cause.source());
    let is_of_connection = |cause: &(dyn std::error::Error + 'static)| {
        let within = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause.is::<hyper::Error>() || within.is_some_and(|within| within.is::<hyper::Error>())
    };
    // Decompression reports its errors through `std::io`, the connection through hyper.
    if causes().any(|cause| cause.is::<std::io::Error>()) && !causes().any(is_of_connection) {
        return Error::invalid("the body is not what its Content-Encoding says").with_source(error);
    }
    Error::new(ErrorKind::Cancelled, "the body broke off").with_source(error)
}

impl HttpRequest {
    /// Returns whether the method only reads.
    pub fn is_get(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Returns the text of a header; one that is not text becomes `?`, a value that no header takes.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or("?"))
    }

    /// Reads the statement of `POST /`: its body, or its query where there is no body, as ClickHouse's clients send it.
    ///
    /// # Errors
    ///
    /// As for [`HttpRequest::plain_statement`], and `InvalidQuery` where both have one.
    pub async fn posted_statement(&mut self, limits: &Limits) -> Result<String, HttpError> {
        let in_body = self.plain_statement(limits).await?;
        match self.query.get("query") {
            None => Ok(in_body),
            Some(in_query) if in_body.is_empty() => Ok(in_query.clone()),
            Some(_) => Err(Error::invalid("there is a statement in the address and one in the body; send one").into()),
        }
    }

    /// Reads the statement of a body that may carry one.
    ///
    /// # Errors
    ///
    /// 415 for a body with another media type, 413 beyond the limit on statements, `InvalidQuery` for a body that is not
    /// UTF-8.
    pub async fn plain_statement(&mut self, limits: &Limits) -> Result<String, HttpError> {
        let media_type = content_type(&self.headers);
        if matches!(media_type.as_str(), "application/json" | "multipart/form-data" | ARROW_STREAM) {
            let message = format!("the body must be a statement as plain text, not {media_type}");
            return Err(HttpError::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
        }
        let mut text = BytesMut::new();
        while let Some(chunk) = self.body.next().await {
            text.extend_from_slice(&chunk?);
            if text.len() as u64 > limits.sql_bytes_max {
                return Err(HttpError::payload_too_large("the statement", limits.sql_bytes_max, "sql_bytes_max"));
            }
        }
        String::from_utf8(text.into()).map_err(|_| Error::invalid("the statement is not UTF-8").into())
    }
}
