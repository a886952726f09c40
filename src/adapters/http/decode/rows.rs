//! CSV and NDJSON: rows of text, decoded as they come to the columns of a table or to what they look like.

use crate::adapters::http::decode::gauge::Gauge;
use crate::adapters::http::decode::schemas::{json_decoder, no, nullable, typed, unfit, with_columns_to_come};
use crate::adapters::http::incoming::{Body, Failure};
use crate::ports::{BatchSource, BatchStream, Error, Result, as_text};
use arrow::array::{AsArray, RecordBatch};
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::json::reader::infer_json_schema;
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use std::sync::Arc;

/// Bytes that are decoded before they are counted.
const STEP_BYTES: usize = 16 << 10;

/// What types are guessed from, and where a header line has to end.
const HEAD_BYTES: usize = 1 << 20;

/// Where a first line has to end at the latest.
const FIRST_LINE_BYTES_MAX: usize = 16 << 20;

/// The batches of a CSV body, whose first line names the columns.
pub async fn csv(mut body: Body, table: Option<SchemaRef>) -> Result<BatchStream, Failure> {
    let head = Head::read(&mut body, if table.is_some() { Until::Line } else { Until::Guess }).await?;
    if head.bytes.is_empty() {
        return Err(Error::invalid("the body is empty; its first line names the columns").into());
    }
    // A record may be cut where the head ends: what it lacks says nothing about types.
    let format = CsvFormat::default().with_header(true).with_truncated_rows(true);
    let rows = if table.is_some() { Some(0) } else { None };
    let (guessed, _) = format.infer_schema(head.whole_lines(), rows).map_err(|error| no("CSV", &error))?;
    let guessed = nullable(&guessed);
    let schema = match table {
        Some(table) => typed(&guessed, &table),
        None => Arc::new(with_codes(guessed, head.whole_lines())?),
    };
    let schema = Arc::new(as_text(&schema));
    let gauge = Gauge::of_lines(&schema, &head.bytes);
    let decoder = arrow::csv::ReaderBuilder::new(schema.clone())
        .with_header(true)
        .with_batch_size(gauge.rows_max())
        .build_decoder();
    Ok(decoded(Decoder::Csv(Box::new(decoder)), gauge, schema, head.bytes, body))
}

/// The guess, but that numbers with leading zeros are text: 007 is a code, and would not be 7.
fn with_codes(guessed: Schema, head: &[u8]) -> Result<Schema> {
    let fields = guessed.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let text = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = arrow::csv::ReaderBuilder::new(text).with_header(true).with_truncated_rows(true);
    let reader = reader.build(head).map_err(|error| no("CSV", &error))?;
    let mut codes = vec![false; guessed.fields().len()];
    // What is wrong further on is said when it is read.
    for batch in reader.map_while(std::result::Result::ok) {
        for (is_code, column) in codes.iter_mut().zip(batch.columns()) {
            *is_code |= column.as_string::<i32>().iter().flatten().any(has_leading_zero);
        }
    }
    let field = |(field, is_code): (&FieldRef, &bool)| match is_code {
        true if field.data_type().is_numeric() => Field::new(field.name(), DataType::Utf8, true),
        _ => Field::clone(field),
    };
    Ok(Schema::new(guessed.fields().iter().zip(&codes).map(field).collect::<Vec<_>>()))
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    digits.starts_with('0') && digits[1..].starts_with(|next: char| next.is_ascii_digit())
}

/// The batches of a body with a JSON object on each line.
pub async fn ndjson(mut body: Body, table: Option<SchemaRef>) -> Result<BatchStream, Failure> {
    let head = Head::read(&mut body, Until::Guess).await?;
    let (guessed, _) = infer_json_schema(head.whole_lines(), None).map_err(|error| no("NDJSON", &error))?;
    let guessed = nullable(&guessed);
    let schema = match &table {
        None => Arc::new(guessed),
        Some(table) => with_columns_to_come(&typed(&guessed, table), table),
    };
    let schema = Arc::new(as_text(&schema));
    let gauge = Gauge::of_objects(&schema, &head.bytes);
    let decoder = json_decoder(&schema, gauge.rows_max())?;
    Ok(decoded(Decoder::Json(Box::new(decoder)), gauge, schema, head.bytes, body))
}

/// The beginning of a body.
struct Head {
    bytes: Bytes,
    /// Whether it is all of the body.
    is_all: bool,
}

/// How much of a body is its beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Its first line.
    Line,
    /// As much as types are guessed from.
    Guess,
}

impl Head {
    async fn read(body: &mut Body, until: Until) -> Result<Self, Failure> {
        let (mut bytes, mut has_line) = (BytesMut::new(), false);
        while !has_line || (until == Until::Guess && bytes.len() < HEAD_BYTES) {
            if bytes.len() > FIRST_LINE_BYTES_MAX {
                let message =
                    format!("the first line of the body is longer than {FIRST_LINE_BYTES_MAX} bytes; send it as Arrow");
                return Err(Error::limit(message).into());
            }
            match body.next().await {
                Some(piece) => {
                    let piece = piece?;
                    has_line |= piece.contains(&b'\n');
                    bytes.extend_from_slice(&piece);
                }
                None => return Ok(Self { bytes: bytes.freeze(), is_all: true }),
            }
        }
        Ok(Self { bytes: bytes.freeze(), is_all: false })
    }

    /// Up to the last line that is whole.
    fn whole_lines(&self) -> &[u8] {
        let end = self.bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        &self.bytes[..end.filter(|_| !self.is_all).unwrap_or(self.bytes.len())]
    }
}

enum Decoder {
    Csv(Box<arrow::csv::reader::Decoder>),
    Json(Box<arrow::json::reader::Decoder>),
}

impl Decoder {
    /// Takes as much of `bytes` as there is room for: how much, and, where they are one line or a part of one, whether a row
    /// ended with them. A line of CSV may end within quotes.
    fn decode(&mut self, bytes: &[u8]) -> Result<(usize, bool)> {
        let decoded = match self {
            Self::Csv(decoder) => {
                let room = decoder.capacity();
                decoder.decode(bytes).map(|taken| (taken, decoder.capacity() < room))
            }
            Self::Json(decoder) => decoder.decode(bytes).map(|taken| (taken, !decoder.has_partial_record())),
        };
        decoded.map_err(|error| unfit(&error))
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match self {
            Self::Csv(decoder) => decoder.flush(),
            Self::Json(decoder) => decoder.flush(),
        };
        batch.map_err(|error| unfit(&error))
    }
}

struct Reading {
    body: Body,
    waiting: Bytes,
    decoder: Decoder,
    gauge: Gauge,
    ended: bool,
}

fn decoded(decoder: Decoder, gauge: Gauge, schema: SchemaRef, head: Bytes, body: Body) -> BatchStream {
    BatchStream::from_source(schema, None, Reading { body, waiting: head, decoder, gauge, ended: false })
}

impl Reading {
    /// Decodes some of what has come: whether that filled a batch.
    fn decode(&mut self) -> Result<bool> {
        let was_full = self.gauge.is_full();
        let step = &self.waiting[..self.waiting.len().min(STEP_BYTES)];
        // Where enough waits, line by line, until a row ends with one.
        let line = || step.iter().position(|byte| matches!(byte, b'\n' | b'\r')).map(|at| at + 1);
        let step = &step[..was_full.then(line).flatten().unwrap_or(step.len())];
        let (taken, row_ended) = self.decoder.decode(step)?;
        self.gauge.add(&step[..taken], 0)?;
        let is_full = taken < step.len() || (was_full && row_ended);
        self.waiting.advance(taken);
        Ok(is_full)
    }
}

#[async_trait]
impl BatchSource for Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended {
            if self.waiting.is_empty() {
                match self.body.next().await {
                    Some(piece) => self.waiting = piece.map_err(Failure::into_error)?,
                    // Nothing says to a decoder that nothing follows.
                    None => self.ended = true,
                }
            }
            if self.decode()? {
                self.gauge.reset();
                if let Some(batch) = self.decoder.flush()? {
                    return Ok(Some(batch));
                }
            }
        }
        self.decoder.flush()
    }
}
