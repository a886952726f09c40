//! Readers: every format in which rows may be sent, as batches.
//!
//! Arrow and Parquet carry their types. Text takes the types of the table that it goes into; without a table they are
//! inferred from the beginning. Arrow, CSV and NDJSON are decoded while they arrive; JSON, MessagePack and Parquet need
//! the whole body. Every reader bounds what it decodes at a time, whatever the input claims.

mod arrow;
mod batch_budget;
mod chunks;
mod csv;
mod csv_quotes;
mod documents;
mod json;
mod lines;
mod msgpack;
mod ndjson;
mod parquet;
mod parquet_pages;
mod schema_inference;

pub use crate::adapters::formats::read::arrow::read_arrow;
pub use crate::adapters::formats::read::chunks::ChunkStream;
pub use crate::adapters::formats::read::csv::read_csv;
pub use crate::adapters::formats::read::documents::DocumentPermit;
pub use crate::adapters::formats::read::json::read_json;
pub use crate::adapters::formats::read::msgpack::read_msgpack;
pub use crate::adapters::formats::read::ndjson::read_ndjson;
pub use crate::adapters::formats::read::parquet::read_parquet;
pub use crate::adapters::formats::read::schema_inference::nullable;

use crate::adapters::formats::format::Format;

/// A format of rows that are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// An Arrow IPC stream.
    Arrow,
    /// Comma-separated values under a header line.
    Csv,
    /// A JSON object for each row.
    Ndjson,
    /// A JSON array of objects, or the JSON answer to a query.
    Json,
    /// A MessagePack map of columns.
    Msgpack,
    /// A Parquet file.
    Parquet,
}

impl InputFormat {
    /// Every format and its name, which is also that of its route.
    pub const ALL: [(&str, Self); 6] = [
        ("arrow", Self::Arrow),
        ("csv", Self::Csv),
        ("ndjson", Self::Ndjson),
        ("json", Self::Json),
        ("msgpack", Self::Msgpack),
        ("parquet", Self::Parquet),
    ];

    /// Returns the format called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Returns the media type of a body in this format.
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
