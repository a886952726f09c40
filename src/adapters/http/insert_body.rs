//! The bodies of insertions, as batches.
//!
//! Arrow, CSV and NDJSON are read while they arrive. JSON, MessagePack and Parquet have to be there whole, are limited in
//! size, and are decoded where they hold up no socket.

use crate::adapters::formats::format::ARROW_STREAM;
use crate::adapters::formats::read::{
    DocumentPermit, InputFormat, read_arrow, read_csv, read_json, read_msgpack, read_ndjson, read_parquet,
};
use crate::adapters::http::error::HttpError;
use crate::adapters::http::request::RequestBody;
use crate::adapters::http::wire::content_type;
use crate::adapters::ipc::DecodeLimits;
use crate::adapters::serving::ServerOptions;
use crate::ports::{BatchStream, Error, Limits, MemoryAccount, Result};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes of a JSON or MessagePack body: parsed, it takes many times as much.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a document that needs no permit.
const SMALL_DOCUMENT_BYTES: usize = 64 << 10;

/// How many times its bytes a document takes when it is parsed, about.
const PARSED_FACTOR: u64 = 8;

/// Larger documents that are read at the same time, so that their memory does not add up.
const DOCUMENT_PERMITS: usize = 2;

/// Reads the bodies of one server's insertions.
#[derive(Debug)]
pub struct InsertBodyReader {
    limits: Limits,
    memory: MemoryAccount,
    permits: Arc<Semaphore>,
}

impl InsertBodyReader {
    /// Creates a reader that keeps to the limits of a server.
    pub fn new(options: &ServerOptions) -> Self {
        let (limits, memory) = (options.limits.clone(), options.memory.clone());
        Self { limits, memory, permits: Arc::new(Semaphore::new(DOCUMENT_PERMITS)) }
    }

    /// Reads a body that goes into a table of schema `table`, if that exists. Returns once the schema of the batches is
    /// known.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a body that is not of its format, `LimitExceeded` and 413 beyond the limits.
    pub async fn read(
        &self,
        format: InputFormat,
        body: RequestBody,
        table: Option<SchemaRef>,
    ) -> Result<BatchStream, HttpError> {
        let limits = DecodeLimits { memory: self.memory.clone(), ..DecodeLimits::from(&self.limits) };
        match format {
            InputFormat::Arrow => read_arrow(body, limits).await,
            InputFormat::Csv => read_csv(body, table).await,
            InputFormat::Ndjson => read_ndjson(body, table).await,
            InputFormat::Json => self.decode_document(body, move |body, permit| read_json(body, table, permit)).await,
            InputFormat::Msgpack => {
                self.decode_document(body, move |body, permit| read_msgpack(&body, table, permit)).await
            }
            InputFormat::Parquet => {
                let file = body.read_to_end(limits.message_bytes_max, &self.memory).await?;
                decode_blocking(move || read_parquet(file, limits)).await
            }
        }
    }

    async fn decode_document(
        &self,
        body: RequestBody,
        decode: impl FnOnce(Bytes, DocumentPermit) -> Result<BatchStream> + Send + 'static,
    ) -> Result<BatchStream, HttpError> {
        let body = body.read_to_end(DOCUMENT_BYTES_MAX, &self.memory).await?;
        let is_large = body.len() > SMALL_DOCUMENT_BYTES;
        let permit = if is_large { self.permits.clone().acquire_owned().await.ok() } else { None };
        // The permit goes with the work, not with this future: decoding goes on when its caller has left.
        let parsed = self.memory.reserve((body.len() as u64).saturating_mul(PARSED_FACTOR))?;
        decode_blocking(move || {
            let _parsed = parsed;
            decode(body, permit)
        })
        .await
    }
}

/// Decodes a body on a thread where it holds up no socket, and catches the panics of decoders.
async fn decode_blocking(
    decode: impl FnOnce() -> Result<BatchStream> + Send + 'static,
) -> Result<BatchStream, HttpError> {
    let decoded = tokio::task::spawn_blocking(decode).await;
    Ok(decoded.unwrap_or_else(|_| Err(Error::invalid("the body is corrupt")))?)
}

/// Checks that a body with a media type has that of its route. The media type that curl sends by default counts as none.
///
/// # Errors
///
/// 415 for the media type of another format; for Arrow, for any other.
pub fn check_media_type(format: InputFormat, headers: &HeaderMap) -> Result<(), HttpError> {
    let given = content_type(headers);
    let says_nothing = matches!(given.as_str(), "" | "application/octet-stream" | "application/x-www-form-urlencoded");
    let others = InputFormat::ALL.iter().filter(|(_, other)| *other != format).map(|(_, other)| other.media_type());
    let is_other = others.into_iter().any(|other| given == other.split(';').next().unwrap_or_default());
    if says_nothing || !(is_other || format == InputFormat::Arrow && given != ARROW_STREAM) {
        return Ok(());
    }
    let message = format!("the body must be {}, not {given}", format.media_type());
    Err(HttpError::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message))
}
