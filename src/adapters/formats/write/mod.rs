//! Writers: results as text, Arrow or Parquet, batch by batch.
//!
//! A result that breaks off leaves its format unfinished – JSON without its last brace, an Arrow stream without its end
//! marker – so that a reader does not take it for complete.

mod cell_text;
mod cells;
mod clickhouse;
mod csv;
mod json;
mod parquet;
mod text;
mod tsv;

pub use crate::adapters::formats::write::cells::NanStyle;

use crate::adapters::formats::format::Format;
use crate::adapters::formats::write::parquet::ParquetWriter;
use crate::adapters::formats::write::text::TextWriter;
use crate::adapters::ipc::{END_OF_STREAM, Encoder, Encoding, Message, split};
use crate::ports::{Error, Result};
use ::arrow::array::RecordBatch;
use ::arrow::datatypes::SchemaRef;
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Bytes of values that are written as one piece of text.
const TEXT_BYTES_TARGET: usize = 64 << 10;

/// How to write a result.
#[derive(Debug, Clone, Copy)]
pub struct ResultStyle {
    /// The format.
    pub format: Format,
    /// What NaN and the infinities become in JSON.
    pub nan: NanStyle,
    /// How Arrow messages are written.
    pub encoding: Encoding,
}

/// Writes the batches of one result as bytes of its format.
pub struct ResultWriter(Kind);

enum Kind {
    Arrow(Box<Encoder>),
    Parquet(Box<ParquetWriter>),
    Text(TextWriter),
}

impl ResultWriter {
    /// Creates a writer, and returns it with what comes before the first row.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a result that the format cannot hold, `InvalidQuery` for column names that it cannot tell apart.
    pub fn new(schema: &SchemaRef, style: ResultStyle) -> Result<(Self, VecDeque<Bytes>)> {
        Ok(match style.format {
            Format::Arrow => {
                let (encoder, first) = Encoder::new(schema, style.encoding);
                (Self(Kind::Arrow(Box::new(encoder))), first.into_pieces().collect())
            }
            Format::Parquet => (Self(Kind::Parquet(Box::new(ParquetWriter::new(schema)?))), VecDeque::new()),
            format => {
                check_keys(format, schema)?;
                let (writer, head) = TextWriter::new(format, style.nan, schema);
                (Self(Kind::Text(writer)), VecDeque::from([head]))
            }
        })
    }

    /// Splits `batch` into what is written at a time, so that no more than one piece is in memory as text.
    pub fn pieces(&self, batch: RecordBatch) -> VecDeque<RecordBatch> {
        match &self.0 {
            Kind::Text(_) => split(&batch, TEXT_BYTES_TARGET).into(),
            Kind::Arrow(_) | Kind::Parquet(_) => [batch].into(),
        }
    }

    /// Appends the rows of `batch` to `out`.
    ///
    /// # Errors
    ///
    /// `Internal` for a column that cannot be written.
    pub fn write(&mut self, batch: &RecordBatch, out: &mut VecDeque<Bytes>) -> Result<()> {
        match &mut self.0 {
            Kind::Arrow(encoder) => out.extend(encoder.encode(batch)?.into_iter().flat_map(Message::into_pieces)),
            Kind::Parquet(writer) => out.push_back(writer.rows(batch)?),
            Kind::Text(writer) => out.push_back(writer.rows(batch)?),
        }
        Ok(())
    }

    /// Returns what comes after the last row.
    ///
    /// # Errors
    ///
    /// As for [`ResultWriter::write`].
    pub fn end(&mut self, elapsed: Duration) -> Result<Bytes> {
        match &mut self.0 {
            Kind::Arrow(_) => Ok(Bytes::from_static(&END_OF_STREAM)),
            Kind::Parquet(writer) => writer.end(),
            Kind::Text(writer) => Ok(writer.end(elapsed)),
        }
    }
}

/// Refuses objects that would have a duplicate key: every parser keeps one of the two and says nothing.
fn check_keys(format: Format, schema: &SchemaRef) -> Result<()> {
    if !matches!(format, Format::ClickHouse | Format::Ndjson) {
        return Ok(());
    }
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(duplicate) => Err(Error::invalid(format!(
            "duplicate column {:?}, which a JSON object cannot hold: rename one with AS, or use json, csv or arrow",
            duplicate.name()
        ))),
        None => Ok(()),
    }
}

impl std::fmt::Debug for ResultWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResultWriter")
    }
}
