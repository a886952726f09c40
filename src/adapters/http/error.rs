//! Why a request is refused: an error of the ports, or a status that only HTTP has.

use crate::ports::Error;
use http::StatusCode;

/// An error of a request.
#[derive(Debug)]
pub enum HttpError {
    /// An error of the ports, whose kind gives the status.
    Port(Error),
    /// A status of HTTP's own.
    Status {
        /// The status.
        status: StatusCode,
        /// The name that stands in place of the kind.
        kind: &'static str,
        /// The message.
        message: String,
        /// Methods that are allowed, for 405.
        allow: Option<&'static str>,
    },
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Self::Port(error)
    }
}

/// For the log, and for streams of batches, which know the kinds of the ports alone.
impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Port(error) => error,
            HttpError::Status { message, .. } => Self::invalid(message),
        }
    }
}

impl HttpError {
    /// Creates an error with a status of HTTP's own.
    pub fn status(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self::Status { status, kind, message: message.into(), allow: None }
    }

    /// Creates a 405 that lists the allowed methods.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this route takes {allow}");
        Self::Status { status: StatusCode::METHOD_NOT_ALLOWED, kind: "MethodNotAllowed", message, allow: Some(allow) }
    }

    /// Creates a 413 that names the limit.
    pub fn payload_too_large(what: &str, bytes_max: u64, limit: &str) -> Self {
        let message = format!("{what} is larger than {bytes_max} bytes ({limit})");
        Self::status(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
    }
}
