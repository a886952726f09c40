//! One error for the whole service.
//!
//! A kind exists only where a caller would act differently; everything else is in the message. Kind and message are
//! what crosses a wire, so both protocols map kinds one to one onto their own codes. Messages are lowercase, name the
//! thing, and carry no trailing dot.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Result of every port call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms of somebody who has to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: it does not parse, plan or decode.
    InvalidQuery,
    /// A table, snapshot or held result that does not exist (any more).
    NotFound,
    /// The table is there already.
    AlreadyExists,
    /// Data does not fit the table, or would lose something by fitting.
    SchemaMismatch,
    /// Well-formed, and refused: this backend does not do it.
    Unsupported,
    /// Who is calling is not known.
    Unauthenticated,
    /// Who is calling may not do this.
    PermissionDenied,
    /// A named limit was reached; it may be free again later.
    LimitExceeded,
    /// The time allowed ran out.
    Timeout,
    /// The caller went away or asked to stop.
    Cancelled,
    /// Not serving now: shutting down, or the connection to the backend is lost.
    Unavailable,
    /// It does not follow what is there: a writer skipped a number, or another one has taken over from it.
    Conflict,
    /// A bug. Logged with its source; the message stays bland.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tests that must cover them all.
    pub const ALL: [Self; 13] = [
        Self::InvalidQuery,
        Self::NotFound,
        Self::AlreadyExists,
        Self::SchemaMismatch,
        Self::Unsupported,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::LimitExceeded,
        Self::Timeout,
        Self::Cancelled,
        Self::Unavailable,
        Self::Conflict,
        Self::Internal,
    ];

    /// The kind's name on the wire and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidQuery => "InvalidQuery",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::SchemaMismatch => "SchemaMismatch",
            Self::Unsupported => "Unsupported",
            Self::Unauthenticated => "Unauthenticated",
            Self::PermissionDenied => "PermissionDenied",
            Self::LimitExceeded => "LimitExceeded",
            Self::Timeout => "Timeout",
            Self::Cancelled => "Cancelled",
            Self::Unavailable => "Unavailable",
            Self::Conflict => "Conflict",
            Self::Internal => "Internal",
        }
    }

    /// Whether the same request may succeed later without being changed.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::LimitExceeded | Self::Timeout | Self::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::internal(format!("unknown error kind {text:?}")))
    }
}

/// The error of every port: a kind to act on, a message to read, and a source to log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it, for the log. Sources never cross a wire.
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// An [`ErrorKind::InvalidQuery`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidQuery, message)
    }

    /// An [`ErrorKind::SchemaMismatch`].
    pub fn mismatch(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::SchemaMismatch, message)
    }

    /// An [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// An [`ErrorKind::LimitExceeded`].
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    /// An [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// An [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The [`ErrorKind::Unavailable`] that everything answers once a stop has begun.
    pub fn stopping() -> Self {
        Self::unavailable("the server is shutting down")
    }

    /// The kind to act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message to read.
    pub fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use crate::ports::{Error, ErrorKind};
    use std::collections::HashSet;

    #[test]
    fn kinds_and_names_are_one_to_one() {
        let names: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert_eq!(kind.as_str().parse::<ErrorKind>().unwrap(), kind);
        }
        assert_eq!("Nonsense".parse::<ErrorKind>().unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_source_is_kept_for_the_log_and_out_of_the_message() {
        let error = Error::internal("internal error").with_source(std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "internal error");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk on fire");
    }
}
