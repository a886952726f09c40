//! Bodies to batches: every form in which data may be inserted.
//!
//! Arrow says its types itself. Text takes the types of the table that it goes into, and where there is none they are
//! guessed from its beginning. Arrow, CSV and NDJSON are read as they come; JSON, MessagePack and Parquet have to be there
//! whole, and are limited in size.

mod arrow;
mod columns;
mod documents;
mod gauge;
mod parquet;
mod rows;
mod schemas;

pub use columns::Columns;

use crate::adapters::http::format::Format;
use crate::adapters::http::incoming::{Body, Failure};
use crate::adapters::ipc::DecodeLimits;
use crate::ports::{BatchStream, Error, Limits, Result};
use ::arrow::datatypes::SchemaRef;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// An Arrow IPC stream.
    Arrow,
    /// Comma-separated values under a header line.
    Csv,
    /// A JSON object for each row.
    Ndjson,
    /// A JSON array of objects, or what a query answers as JSON.
    Json,
    /// A MessagePack map of columns.
    Msgpack,
    /// A Parquet file.
    Parquet,
}

impl BodyFormat {
    /// Every form under the name that its route has.
    pub const ALL: [(&str, Self); 6] = [
        ("arrow", Self::Arrow),
        ("csv", Self::Csv),
        ("ndjson", Self::Ndjson),
        ("json", Self::Json),
        ("msgpack", Self::Msgpack),
        ("parquet", Self::Parquet),
    ];

    /// The form of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    /// The media type of a body in this form.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Arrow => Format::Arrow.media_type(),
            Self::Csv => "text/csv",
            Self::Ndjson => Format::Ndjson.media_type(),
            Self::Json => "application/json",
            Self::Msgpack => "application/msgpack",
            Self::Parquet => Format::Parquet.media_type(),
        }
    }
}

/// The batches of a body that goes into a table of `schema`, if that is there already. Their schema is known when this
/// returns.
///
/// # Errors
///
/// `InvalidQuery` for a body that is not of its form, `LimitExceeded` and 413 beyond the limits.
pub async fn batches(
    format: BodyFormat,
    body: Body,
    schema: Option<SchemaRef>,
    limits: &Limits,
) -> Result<BatchStream, Failure> {
    match format {
        BodyFormat::Arrow => arrow::batches(body, limits).await,
        BodyFormat::Csv => rows::csv(body, schema).await,
        BodyFormat::Ndjson => rows::ndjson(body, schema).await,
        BodyFormat::Json => taken_apart(body, move |body, turn| documents::json(body, schema, turn)).await,
        BodyFormat::Msgpack => taken_apart(body, move |body, turn| documents::msgpack(&body, schema, turn)).await,
        BodyFormat::Parquet => {
            let limits = DecodeLimits::from(limits);
            let file = whole(body, limits.message_bytes_max).await?;
            aside(file, move |file| parquet::batches(file, limits)).await
        }
    }
}

/// Bytes of a JSON or MessagePack body: looked over, each takes many times as much.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of one that need not wait for others.
const SMALL_BYTES: usize = 64 << 10;

/// Larger ones that are taken in at the same time, so that they do not add up.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Leave to take in a document, for as long as anything is kept of it.
type Turn = Option<SemaphorePermit<'static>>;

/// A body that has to be there whole, looked over when it is its turn.
async fn taken_apart(
    body: Body,
    decode: impl FnOnce(Bytes, Turn) -> Result<BatchStream> + Send + 'static,
) -> Result<BatchStream, Failure> {
    let body = whole(body, DOCUMENT_BYTES_MAX).await?;
    let turn = if body.len() > SMALL_BYTES { TURNS.acquire().await.ok() } else { None };
    // The work has it: that goes on where its caller has left.
    aside(body, move |body| decode(body, turn)).await
}

/// Takes a body apart, which takes a while, where it holds up no socket. Readers of foreign files may panic.
async fn aside(
    body: Bytes,
    decode: impl FnOnce(Bytes) -> Result<BatchStream> + Send + 'static,
) -> Result<BatchStream, Failure> {
    let decoded = tokio::task::spawn_blocking(move || decode(body)).await;
    Ok(decoded.unwrap_or_else(|_| Err(corrupt()))?)
}

fn corrupt() -> Error {
    Error::invalid("the body is corrupt")
}

/// All of a body.
async fn whole(mut body: Body, bytes_max: u64) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > bytes_max {
            return Err(Failure::too_large(
                "the body",
                bytes_max,
                "send it as Arrow or NDJSON, which have no such limit",
            ));
        }
    }
    Ok(bytes.freeze())
}
