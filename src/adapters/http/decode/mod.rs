//! Bodies to batches: every form in which data may be inserted.
//!
//! Arrow says its types itself. Text takes the types of the table that it goes into, and where there is none they are
//! guessed from its beginning. Arrow, CSV and NDJSON are read as they come; JSON, MessagePack and Parquet have to be there
//! whole, and are limited to the size of one message.

mod arrow;
mod columns;
mod rows;

pub use columns::Columns;

use crate::adapters::http::format::Format;
use crate::adapters::http::incoming::{Body, Failure};
use crate::adapters::ipc::DecodeLimits;
use crate::ports::{BatchStream, Error, Limits, Result};
use ::arrow::datatypes::SchemaRef;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// An Arrow IPC stream.
    Arrow,
    /// Comma-separated values under a header line.
    Csv,
    /// Tab-separated values under a header line.
    Tsv,
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
    pub const ALL: [(&str, Self); 7] = [
        ("arrow", Self::Arrow),
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
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
            Self::Tsv => "text/tab-separated-values",
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
        BodyFormat::Csv => rows::csv(body, schema, b',').await,
        BodyFormat::Tsv => rows::csv(body, schema, b'\t').await,
        BodyFormat::Ndjson => rows::ndjson(body, schema).await,
        BodyFormat::Json => Ok(rows::json(&whole(body, limits).await?, schema)?),
        BodyFormat::Msgpack => Ok(rows::msgpack(&whole(body, limits).await?, schema)?),
        BodyFormat::Parquet => Ok(parquet_batches(whole(body, limits).await?, limits)?),
    }
}

/// All of a body.
async fn whole(mut body: Body, limits: &Limits) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > limits.message_bytes_max {
            return Err(Failure::too_large("the body", limits.message_bytes_max, "message_bytes_max"));
        }
    }
    Ok(bytes.freeze())
}

fn parquet_batches(file: Bytes, limits: &Limits) -> Result<BatchStream> {
    let wrong = |error: parquet::errors::ParquetError| Error::invalid(format!("the body is no Parquet file: {error}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(wrong)?;
    let groups = builder.metadata().row_groups();
    let inflated: i64 = groups.iter().map(|group| group.total_byte_size().max(0)).fold(0, i64::saturating_add);
    let inflated_max = DecodeLimits::from(limits).inflated_bytes_max;
    if u64::try_from(inflated).unwrap_or(u64::MAX) > inflated_max {
        return Err(Error::limit(format!(
            "the file inflates to {inflated} bytes, more than {inflated_max} (inflated_bytes_max)"
        )));
    }
    let schema = builder.schema().clone();
    let reader = builder.with_batch_size(65_536).build().map_err(wrong)?;
    let batches = reader.map(|batch| batch.map_err(|error| Error::invalid(format!("the Parquet file: {error}"))));
    Ok(BatchStream::new(schema, stream::iter(batches)))
}
