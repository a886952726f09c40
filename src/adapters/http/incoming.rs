//! One HTTP request, taken apart: what every handler gets.

use crate::ports::{Error, Limits};
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
            Ok(Some(Err(error))) => {
                let error = Error::new(crate::ports::ErrorKind::Cancelled, "the body broke off").with_source(error);
                Some((Err(Failure::Port(error)), None))
            }
        }
    });
    Body(Some(SyncStream::new(pieces.fuse().boxed())))
}

impl Incoming {
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
