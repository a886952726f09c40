//! Lines of text, decoded chunk by chunk: what CSV and NDJSON have in common.

use crate::adapters::formats::read::batch_budget::BatchBudget;
use crate::adapters::formats::read::chunks::ChunkStream;
use crate::adapters::formats::read::csv_quotes::QuoteTracker;
use crate::adapters::formats::read::schema_inference::row_error;
use crate::ports::{BatchSource, BatchStream, Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;

/// Bytes that are decoded before they are counted.
const STEP_BYTES: usize = 16 << 10;

/// Bytes that types are inferred from.
const SAMPLE_BYTES: usize = 1 << 20;

/// Bytes within which the first line has to end.
const FIRST_LINE_BYTES_MAX: usize = 16 << 20;

/// The beginning of a body.
pub(super) struct Head {
    pub bytes: Bytes,
    /// Whether it is the whole body.
    is_complete: bool,
}

/// How much of a body its head is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadSize {
    /// The first line.
    Line,
    /// As much as types are inferred from.
    Sample,
}

impl Head {
    pub async fn read<S: ChunkStream>(chunks: &mut S, size: HeadSize) -> Result<Self, S::Error> {
        let (mut bytes, mut has_line) = (BytesMut::new(), false);
        while !has_line || (size == HeadSize::Sample && bytes.len() < SAMPLE_BYTES) {
            if bytes.len() > FIRST_LINE_BYTES_MAX {
                let message =
                    format!("the first line of the body is longer than {FIRST_LINE_BYTES_MAX} bytes; send it as Arrow");
                return Err(Error::limit(message).into());
            }
            match chunks.next().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    has_line |= chunk.contains(&b'\n');
                    bytes.extend_from_slice(&chunk);
                }
                None => return Ok(Self { bytes: bytes.freeze(), is_complete: true }),
            }
        }
        Ok(Self { bytes: bytes.freeze(), is_complete: false })
    }

    /// Returns the bytes up to the last complete line.
    pub fn whole_lines(&self) -> &[u8] {
        let end = self.bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        &self.bytes[..end.filter(|_| !self.is_complete).unwrap_or(self.bytes.len())]
    }
}

pub(super) enum LineDecoder {
    Csv(Box<arrow::csv::reader::Decoder>, QuoteTracker),
    Json(Box<arrow::json::reader::Decoder>),
}

impl LineDecoder {
    /// Decodes as much of `bytes` as there is room for. Returns how much that was, and whether a row ended with it,
    /// which holds only where `bytes` is one line or a part of one. A line of CSV may end within quotes.
    fn decode(&mut self, bytes: &[u8]) -> Result<(usize, bool)> {
        let decoded = match self {
            Self::Csv(decoder, quotes) => {
                let room = decoder.capacity();
                let taken = decoder.decode(bytes);
                if let Ok(taken) = &taken {
                    quotes.push(&bytes[..*taken]);
                }
                taken.map(|taken| (taken, decoder.capacity() < room))
            }
            Self::Json(decoder) => decoder.decode(bytes).map(|taken| (taken, !decoder.has_partial_record())),
        };
        decoded.map_err(|error| row_error(&error))
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match self {
            Self::Csv(decoder, _) => decoder.flush(),
            Self::Json(decoder) => decoder.flush(),
        };
        batch.map_err(|error| row_error(&error))
    }

    /// Checks that the body may end here.
    fn finish(&self) -> Result<()> {
        match self {
            Self::Csv(_, quotes) if quotes.is_open() => {
                Err(Error::invalid("the body ends within a quoted value: its closing quote is missing"))
            }
            _ => Ok(()),
        }
    }
}

/// A body of lines that is being decoded.
struct LineReader<S> {
    chunks: S,
    /// What has arrived and is not decoded yet.
    waiting: Bytes,
    decoder: LineDecoder,
    budget: BatchBudget,
    ended: bool,
}

/// Decodes `head` and the rest of `chunks` to batches of `schema`.
pub(super) fn decode_lines(
    decoder: LineDecoder,
    budget: BatchBudget,
    schema: SchemaRef,
    head: Bytes,
    chunks: impl ChunkStream,
) -> BatchStream {
    BatchStream::from_source(schema, None, LineReader { chunks, waiting: head, decoder, budget, ended: false })
}

impl<S: ChunkStream> LineReader<S> {
    /// Decodes some of what has arrived, and returns whether that filled a batch.
    fn decode(&mut self) -> Result<bool> {
        let was_full = self.budget.is_full();
        let step = &self.waiting[..self.waiting.len().min(STEP_BYTES)];
        // Once the budget is used up, line by line, until a row ends with one: a batch can end only between rows.
        let line = || step.iter().position(|byte| matches!(byte, b'\n' | b'\r')).map(|at| at + 1);
        let step = &step[..was_full.then(line).flatten().unwrap_or(step.len())];
        let (taken, row_ended) = self.decoder.decode(step)?;
        self.budget.add(&step[..taken], 0)?;
        let is_full = taken < step.len() || (was_full && row_ended);
        self.waiting.advance(taken);
        Ok(is_full)
    }
}

#[async_trait]
impl<S: ChunkStream> BatchSource for LineReader<S> {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended {
            if self.waiting.is_empty() {
                match self.chunks.next().await {
                    Some(chunk) => self.waiting = chunk.map_err(Into::into)?,
                    // The decoder learns of the end by an empty step.
                    None => {
                        self.decoder.finish()?;
                        self.ended = true;
                    }
                }
            }
            if self.decode()? {
                self.budget.reset();
                if let Some(batch) = self.decoder.flush()? {
                    return Ok(Some(batch));
                }
            }
        }
        self.decoder.flush()
    }
}
