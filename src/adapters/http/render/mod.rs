//! Results as text, or as an Arrow stream: written batch by batch, never gathered.
//!
//! A result that breaks off leaves its format unfinished – JSON without its last brace, an Arrow stream without its end
//! mark – and breaks the connection too, so nobody takes it for whole.

mod cells;
mod clickhouse;
mod parquet;
mod text;
mod texts;

pub use cells::NanStyle;

use crate::adapters::http::format::Format;
use crate::adapters::http::render::parquet::ParquetWriter;
use crate::adapters::http::render::text::TextWriter;
use crate::adapters::ipc::{END_OF_STREAM, Encoder, Encoding, Message, split};
use crate::adapters::serving::AdmittedRequest as Admitted;
use crate::ports::{BatchStream, Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of values that are written as one piece of text.
const TEXT_BYTES_TARGET: usize = 64 << 10;

/// How to write a result.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// What NaN and the infinities become in JSON.
    pub nan: NanStyle,
    /// How Arrow messages are written.
    pub encoding: Encoding,
}

/// What turns batches into bytes.
pub struct Writer(Kind);

enum Kind {
    Arrow(Box<Encoder>),
    Parquet(Box<ParquetWriter>),
    Text(TextWriter),
}

struct Rendering {
    batches: BatchStream,
    writer: Writer,
    /// What is yet to be written of a batch.
    pieces: VecDeque<RecordBatch>,
    waiting: VecDeque<Bytes>,
    ended: bool,
    admitted: Admitted,
}

/// The body of a result. The request is logged when the last byte was taken, or nobody wants it.
///
/// # Errors
///
/// `Unsupported` for a result that the format cannot hold.
pub fn body(
    batches: BatchStream,
    style: Style,
    admitted: Admitted,
) -> Result<impl Stream<Item = Result<Bytes>> + Send, Box<(Error, Admitted)>> {
    let (writer, first) = match Writer::new(&batches.schema(), style) {
        Ok(begun) => begun,
        Err(error) => return Err(Box::new((error, admitted))),
    };
    let batches = admitted.until_shutdown(batches);
    let rendering = Rendering { batches, writer, pieces: VecDeque::new(), waiting: first, ended: false, admitted };
    let bytes = stream::unfold(Some(rendering), |rendering| async move {
        let mut rendering = rendering?;
        let next = rendering.next().await?;
        let rest = next.is_ok();
        if let Ok(bytes) = &next {
            rendering.admitted.sent(0, bytes.len() as u64);
        }
        let next = next.map_err(|error| rendering.admitted.fail(error));
        Some((next, rest.then_some(rendering)))
    });
    // The compressor asks once more after the end.
    Ok(bytes.fuse())
}

impl Rendering {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                if bytes.is_empty() {
                    continue;
                }
                return Some(Ok(bytes));
            }
            if let Some(piece) = self.pieces.pop_front() {
                if let Err(error) = self.writer.write(&piece, &mut self.waiting) {
                    return Some(Err(error));
                }
                continue;
            }
            if self.ended {
                self.admitted.done();
                return None;
            }
            match self.batches.next().await {
                None => {
                    self.ended = true;
                    match self.writer.end(self.admitted.elapsed()) {
                        Ok(last) => self.waiting.push_back(last),
                        Err(error) => return Some(Err(error)),
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(batch)) => {
                    self.admitted.sent(batch.num_rows() as u64, 0);
                    self.pieces = self.writer.pieces(batch);
                }
            }
        }
    }
}

/// Refuses objects that would have a key twice: every parser keeps one of them and says nothing.
fn check_keys(format: Format, schema: &SchemaRef) -> Result<()> {
    if !matches!(format, Format::ClickHouse | Format::Ndjson) {
        return Ok(());
    }
    let mut names = std::collections::HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(twice) => Err(Error::invalid(format!(
            "two columns are called {:?}, and an object has a name once: rename one with AS, or take json, csv or arrow",
            twice.name()
        ))),
        None => Ok(()),
    }
}

impl Writer {
    /// A writer, and what comes before the first row.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a result that the format cannot hold.
    pub fn new(schema: &SchemaRef, style: Style) -> Result<(Self, VecDeque<Bytes>)> {
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

    /// Cuts `batch` into what is written at a time, so that no more than a piece stands in memory as text.
    pub fn pieces(&self, batch: RecordBatch) -> VecDeque<RecordBatch> {
        match &self.0 {
            Kind::Text(_) => split(&batch, TEXT_BYTES_TARGET).into(),
            Kind::Arrow(_) | Kind::Parquet(_) => [batch].into(),
        }
    }

    /// Writes the rows of `batch`.
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

    /// What comes after the last row.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn end(&mut self, elapsed: Duration) -> Result<Bytes> {
        match &mut self.0 {
            Kind::Arrow(_) => Ok(Bytes::from_static(&END_OF_STREAM)),
            Kind::Parquet(writer) => writer.end(),
            Kind::Text(writer) => Ok(writer.end(elapsed)),
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}
