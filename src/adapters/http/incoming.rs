//! One HTTP request, taken apart: what every handler gets.

use crate::adapters::http::wire::{ARROW_STREAM, content_type};
use crate::ports::{Error, ErrorKind, Limits};
use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, Method, StatusCode};
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use sync_wrapper::SyncStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// What the connection knows of a request.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Who sent it.
    pub peer: String,
    /// Its id.
    pub request_id: String,
    /// Whether the end of a body shows: before HTTP/1.1 it is where the connection ends, whatever ended it.
    pub framed: bool,
}

/// A request.
pub struct Incoming {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its query, decoded; the last of several values of one name.
    pub query: HashMap<String, String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Peer and id.
    pub meta: Meta,
    /// Its body, piece by piece.
    pub body: Body,
}

/// A request's body. What is left of it when it is dropped is still read for a while: a client that is busy sending
/// would otherwise lose its connection before it sees the answer.
pub struct Body(Option<SyncStream<BoxStream<'static, Result<Bytes, Failure>>>>);

/// How long the rest of a body is read.
const DRAIN: Duration = Duration::from_secs(5);

impl futures::Stream for Body {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Some(pieces) => pieces.poll_next_unpin(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let (Some(mut rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(timeout(DRAIN, async move { while let Some(Ok(_)) = rest.next().await {} }));
        }
    }
}

/// Why a request is refused: an error of the service, or a status of HTTP's own.
#[derive(Debug)]
pub enum Failure {
    /// The service's.
    Port(Error),
    /// HTTP's.
    Http {
        /// The status.
        status: StatusCode,
        /// What stands for the kind.
        kind: &'static str,
        /// What to read.
        message: String,
        /// Methods that would do, for 405.
        allow: Option<&'static str>,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Port(error)
    }
}

impl Failure {
    /// A failure of HTTP's own.
    pub fn http(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self::Http { status, kind, message: message.into(), allow: None }
    }

    /// 405, with the methods that would do.
    pub fn method(allow: &'static str) -> Self {
        let message = format!("this takes {allow}");
        Self::Http { status: StatusCode::METHOD_NOT_ALLOWED, kind: "MethodNotAllowed", message, allow: Some(allow) }
    }

    /// 413, naming the limit.
    pub fn too_large(what: &str, bytes_max: u64, limit: &str) -> Self {
        let message = format!("{what} is larger than {bytes_max} bytes ({limit})");
        Self::http(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
    }

    /// The same for the log and for streams of batches.
    pub fn into_error(self) -> Error {
        match self {
            Self::Port(error) => error,
            Self::Http { message, .. } => Error::invalid(message),
        }
    }
}

/// A body whose pieces come in time.
pub fn timely<B: Buf, E: std::error::Error + Send + Sync + 'static>(
    body: impl futures::Stream<Item = Result<B, E>> + Send + 'static,
    limits: &Limits,
) -> Body {
    let patience = (limits.body_timeout_ms > 0).then(|| Duration::from_millis(limits.body_timeout_ms));
    let waiting = Some(Box::pin(body));
    let pieces = futures::stream::unfold(waiting, move |waiting| async move {
        let mut body = waiting?;
        let next = match patience {
            Some(patience) => timeout(patience, body.next()).await,
            None => Ok(body.next().await),
        };
        match next {
            Err(_) => {
                let message = "the rest of the body did not come in time (body_timeout_ms)";
                Some((Err(Failure::http(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message)), None))
            }
            Ok(None) => None,
            Ok(Some(Ok(mut piece))) => Some((Ok(piece.copy_to_bytes(piece.remaining())), Some(body))),
            Ok(Some(Err(error))) => Some((Err(Failure::Port(broken(error))), None)),
        }
    });
    Body(Some(SyncStream::new(pieces.fuse().boxed())))
}

/// What a body that gives no more bytes means: its connection broke, or what it is packed with cannot be undone.
fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let first: &(dyn std::error::Error + 'static) = &error;
    let causes = || std::iter::successors(Some(first), |cause| cause.source());
    let is_of_connection = |cause: &(dyn std::error::Error + 'static)| {
        let within = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause.is::<hyper::Error>() || within.is_some_and(|within| within.is::<hyper::Error>())
    };
    // What unpacks reports through `std::io`, the connection through hyper.
    if causes().any(|cause| cause.is::<std::io::Error>()) && !causes().any(is_of_connection) {
        return Error::invalid("the body is not what its Content-Encoding says").with_source(error);
    }
    Error::new(ErrorKind::Cancelled, "the body broke off").with_source(error)
}

impl Incoming {
    /// The statement of `POST /`: its body, or its address where there is no body, as ClickHouse's clients send it.
    ///
    /// # Errors
    ///
    /// As below, and `InvalidQuery` where both have one.
    pub async fn posted_statement(&mut self, limits: &Limits) -> Result<String, Failure> {
        let in_body = self.plain_statement(limits).await?;
        match self.query.get("query") {
            None => Ok(in_body),
            Some(in_address) if in_body.is_empty() => Ok(in_address.clone()),
            Some(_) => Err(Error::invalid("there is a statement in the address and one in the body; send one").into()),
        }
    }

    /// The statement of a body that may carry one.
    ///
    /// # Errors
    ///
    /// As below, and 415 for a body that says it is something else.
    pub async fn plain_statement(&mut self, limits: &Limits) -> Result<String, Failure> {
        let media_type = content_type(&self.headers);
        if matches!(media_type.as_str(), "application/json" | "multipart/form-data" | ARROW_STREAM) {
            let message = format!("the body is a statement as plain text, not {media_type}");
            return Err(Failure::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
        }
        self.statement(limits).await
    }

    /// The whole body as text: a statement.
    ///
    /// # Errors
    ///
    /// 413 beyond the limit on statements, `InvalidQuery` for what is not UTF-8.
    pub async fn statement(&mut self, limits: &Limits) -> Result<String, Failure> {
        let mut text = BytesMut::new();
        while let Some(piece) = self.body.next().await {
            text.extend_from_slice(&piece?);
            if text.len() as u64 > limits.sql_bytes_max {
                return Err(Failure::too_large("the statement", limits.sql_bytes_max, "sql_bytes_max"));
            }
        }
        String::from_utf8(text.into()).map_err(|_| Error::invalid("the statement is not UTF-8").into())
    }
}
