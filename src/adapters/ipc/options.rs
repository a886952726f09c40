//! Options of an Arrow stream: the size of its messages and their compression.
//!
//! Both protocols take them from request headers of the same names.

use crate::ports::{Error, Limits, Result};

/// Request header: bytes of one message of the reply.
pub const MESSAGE_BYTES: &str = "x-zepto-max-message-bytes";
/// Request header: compression of the reply's Arrow buffers.
pub const COMPRESSION: &str = "x-zepto-ipc-compression";

/// Smallest messages that a caller may ask for.
const MESSAGE_BYTES_MIN: u64 = 4 << 10;

/// Options of a stream that is to be encoded.
#[derive(Debug, Clone, Copy)]
pub struct Encoding {
    /// Bytes of one message, unless a single row has more.
    pub message_bytes_target: u64,
    /// Compression of the bodies.
    pub compression: Option<Compression>,
}

/// Compression of IPC bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// LZ4, framed.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Encoding {
    /// Creates options without compression.
    pub fn plain(message_bytes_target: u64) -> Self {
        Self { message_bytes_target, compression: None }
    }

    /// Reads the options from the two headers; a header that is missing means the default.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a value that is not allowed, naming the allowed ones.
    pub fn from_headers<'a>(header: impl Fn(&'static str) -> Option<&'a str>, limits: &Limits) -> Result<Self> {
        let bytes_max = limits.message_bytes_max;
        let wrong = |name: &str, text: &str, expected: &str| {
            Error::invalid(format!("invalid value {text:?} for header {name}; expected {expected}"))
        };
        let message_bytes_target = match header(MESSAGE_BYTES) {
            None => limits.message_bytes_target,
            Some(text) => {
                let expected = format!("a number of bytes from {MESSAGE_BYTES_MIN} to {bytes_max}");
                let bytes = text.parse().ok().filter(|bytes| (MESSAGE_BYTES_MIN..=bytes_max).contains(bytes));
                bytes.ok_or_else(|| wrong(MESSAGE_BYTES, text, &expected))?
            }
        };
        let compression = match header(COMPRESSION) {
            None | Some("none") => None,
            Some("lz4") => Some(Compression::Lz4),
            Some("zstd") => Some(Compression::Zstd),
            Some(text) => return Err(wrong(COMPRESSION, text, "lz4, zstd or none")),
        };
        Ok(Self { message_bytes_target, compression })
    }
}
