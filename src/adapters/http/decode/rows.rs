//! CSV, NDJSON, JSON and MessagePack: rows of text, decoded to the columns of a table or to what they look like.

use crate::adapters::http::incoming::{Body, Failure};
use crate::ports::{BatchSource, BatchStream, Error, Result};
use arrow::array::RecordBatch;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::reader::{infer_json_schema, infer_json_schema_from_iterator};
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Cells and rows of one batch: decoders make room for all of them before they read the first.
const CELLS_MAX: usize = 1 << 20;
const BATCH_ROWS_MAX: usize = 16_384;

/// Cells of a body that is taken apart as a whole: each takes many times the memory of its text.
const WHOLE_CELLS_MAX: usize = 1 << 22;

/// How deep a MessagePack body may nest.
const DEPTH_MAX: usize = 64;

fn batch_rows(schema: &Schema) -> usize {
    (CELLS_MAX / schema.fields().len().max(1)).clamp(1, BATCH_ROWS_MAX)
}

/// What types are guessed from, and where a header line has to end.
const HEAD_BYTES: usize = 1 << 20;

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
    let schema = table.map_or_else(|| Arc::new(guessed.clone()), |table| typed(&guessed, &table));
    let decoder = arrow::csv::ReaderBuilder::new(schema.clone())
        .with_header(true)
        .with_batch_size(batch_rows(&schema))
        .build_decoder();
    Ok(decoded(Decoder::Csv(Box::new(decoder)), schema, head.bytes, body))
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
    Ok(decoded(Decoder::Json(Box::new(json_decoder(&schema)?)), schema, head.bytes, body))
}

/// `found` and the table's other columns, which a later row may have – but for a `timestamp`, whose absence says that the
/// arrival time is meant, and those that may not be null. What comes later and is not here is refused, not passed over.
fn with_columns_to_come(found: &Schema, table: &Schema) -> SchemaRef {
    let is_new = |field: &&FieldRef| {
        field.is_nullable()
            && field.name() != "timestamp"
            && !found.fields().iter().any(|known| known.name().eq_ignore_ascii_case(field.name()))
    };
    let others = table.fields().iter().filter(is_new).map(|field| Arc::new(readable(field)));
    Arc::new(Schema::new(found.fields().iter().cloned().chain(others).collect::<Vec<_>>()))
}

/// The batches of a JSON body. No row is taken apart twice over: each goes to the decoder as the text that it came as, so
/// that its numbers keep all their digits.
pub fn json(body: &[u8], table: Option<SchemaRef>) -> Result<BatchStream> {
    let rows = JsonRows::of(body)?;
    let mut text = Vec::new();
    let schema = guessed_or_typed(table, &mut (0..rows.len()).map(|row| rows.value(row)))?;
    let mut decoder = json_decoder(&schema)?;
    let mut batches = Vec::new();
    for row in 0..rows.len() {
        text.clear();
        rows.write(row, &mut text)?;
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let taken = decoder.decode(rest).map_err(|error| unfit(&error))?;
            rest = &rest[taken..];
            if !rest.is_empty() {
                // A batch is full.
                batches.extend(decoder.flush().map_err(|error| unfit(&error))?);
            }
        }
    }
    batches.extend(decoder.flush().map_err(|error| unfit(&error))?);
    Ok(BatchStream::from_batches(schema, batches))
}

/// The rows of a JSON document: an array of objects, an object with such an array as its `data`, or what a query answers.
struct JsonRows<'a> {
    rows: Vec<&'a RawValue>,
    /// Names of columns as JSON strings, where rows are arrays.
    names: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Document<'a> {
    columns: Option<Vec<String>>,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

impl<'a> JsonRows<'a> {
    fn of(body: &'a [u8]) -> Result<Self> {
        let wrong = |error| no("JSON array of objects or answer to a query", &error);
        if body.trim_ascii_start().starts_with(b"[") {
            return Ok(Self { rows: serde_json::from_slice(body).map_err(wrong)?, names: None });
        }
        let Document { columns, data } = serde_json::from_slice(body).map_err(wrong)?;
        let names = columns.map(|names| names.into_iter().map(|name| Value::String(name).to_string()).collect());
        Ok(Self { rows: data, names })
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    /// Row `row` as the text of an object.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let text = self.rows[row].get();
        let Some(names) = &self.names else {
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        };
        let wrong = || Error::invalid(format!("row {row} of the body is no array of {} values", names.len()));
        let cells: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| wrong())?;
        if cells.len() != names.len() {
            return Err(wrong());
        }
        out.push(b'{');
        for (at, (name, cell)) in names.iter().zip(cells).enumerate() {
            let comma = if at > 0 { "," } else { "" };
            for part in [comma, name, ":", cell.get()] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn value(&self, row: usize) -> Result<Value> {
        let mut text = Vec::new();
        self.write(row, &mut text)?;
        serde_json::from_slice(&text).map_err(|error| no("JSON", &error))
    }
}

/// The batches of a MessagePack body: a map of columns, each an array.
pub fn msgpack(body: &[u8], table: Option<SchemaRef>) -> Result<BatchStream> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(DEPTH_MAX);
    let columns = <Map<String, Value> as Deserialize>::deserialize(&mut deserializer);
    let columns = columns_of(columns.map_err(|error| no("MessagePack map of columns", &error))?)?;
    let rows: Vec<_> = (0..columns.first().map_or(0, |(_, values)| values.len()))
        .map(|row| MsgpackRow { columns: &columns, row })
        .collect();
    let value = |row: &MsgpackRow<'_>| serde_json::to_value(row).map_err(|error| no("MessagePack map", &error));
    let schema = guessed_or_typed(table, &mut rows.iter().map(value))?;
    let mut decoder = json_decoder(&schema)?;
    let mut batches = Vec::new();
    for rows in rows.chunks(batch_rows(&schema)) {
        decoder.serialize(rows).map_err(|error| unfit(&error))?;
        batches.extend(decoder.flush().map_err(|error| unfit(&error))?);
    }
    Ok(BatchStream::from_batches(schema, batches))
}

/// One row of columns, which stay as they are.
struct MsgpackRow<'a> {
    columns: &'a [(String, Vec<Value>)],
    row: usize,
}

impl Serialize for MsgpackRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().map(|(name, values)| (name, &values[self.row])))
    }
}

/// Columns of one length.
fn columns_of(columns: Map<String, Value>) -> Result<Vec<(String, Vec<Value>)>> {
    let array = |(name, column)| match column {
        Value::Array(values) => Ok((name, values)),
        _ => Err(Error::invalid(format!("column {name:?} of the body is no array"))),
    };
    let columns = columns.into_iter().map(array).collect::<Result<Vec<_>>>()?;
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != rows) {
        return Err(Error::invalid(format!("column {name:?} has {} values, and others {rows}", values.len())));
    }
    let cells = rows.saturating_mul(columns.len());
    if cells > WHOLE_CELLS_MAX {
        return Err(Error::limit(format!(
            "the body has {cells} values, more than {WHOLE_CELLS_MAX}; send Arrow or NDJSON"
        )));
    }
    Ok(columns)
}

/// The schema that rows look like, with the types of the table's columns of the same names.
fn guessed_or_typed(table: Option<SchemaRef>, rows: &mut dyn Iterator<Item = Result<Value>>) -> Result<SchemaRef> {
    let foreign = |row: Result<Value>| row.map_err(|error| ArrowError::JsonError(error.message().to_owned()));
    let guessed = infer_json_schema_from_iterator(rows.map(foreign)).map_err(|error| no("table", &error))?;
    let guessed = nullable(&guessed);
    Ok(table.map_or_else(|| Arc::new(guessed.clone()), |table| typed(&guessed, &table)))
}

/// A decoder that refuses what it has no column for.
fn json_decoder(schema: &SchemaRef) -> Result<arrow::json::reader::Decoder> {
    arrow::json::ReaderBuilder::new(schema.clone())
        .with_batch_size(batch_rows(schema))
        .with_strict_mode(true)
        .build_decoder()
        .map_err(|error| Error::unsupported(format!("the table's columns cannot be read from JSON: {error}")))
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
        let mut bytes = BytesMut::new();
        while bytes.len() < HEAD_BYTES && (until == Until::Guess || !bytes.contains(&b'\n')) {
            match body.next().await {
                Some(piece) => bytes.extend_from_slice(&piece?),
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

/// The columns that were found, with the types of the table's columns of the same names.
fn typed(found: &Schema, table: &Schema) -> SchemaRef {
    let field = |found: &FieldRef| {
        let exact = table.fields().iter().find(|field| field.name() == found.name());
        let alike = || table.fields().iter().find(|field| field.name().eq_ignore_ascii_case(found.name()));
        // Nulls are the table's to refuse, with its own words.
        exact.or_else(alike).map_or_else(|| found.clone(), |field| Arc::new(readable(field).with_name(found.name())))
    };
    Arc::new(Schema::new(found.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A column as text can be read into: views and dictionaries as what they stand for.
fn readable(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type).with_nullable(true)
}

/// Guessed columns, all of which may be null: the guess has seen the beginning only.
fn nullable(guessed: &Schema) -> Schema {
    let field = |field: &FieldRef| {
        // A column without a value so far may be anything.
        let data_type = if *field.data_type() == DataType::Null { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(guessed.fields().iter().map(field).collect::<Vec<_>>())
}

fn no(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("the body is no {what}: {error}"))
}

fn unfit(error: &ArrowError) -> Error {
    Error::invalid(format!("a row of the body does not fit: {error}"))
}

enum Decoder {
    Csv(Box<arrow::csv::reader::Decoder>),
    Json(Box<arrow::json::reader::Decoder>),
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.decode(bytes),
            Self::Json(decoder) => decoder.decode(bytes),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.flush(),
            Self::Json(decoder) => decoder.flush(),
        }
    }
}

struct Reading {
    body: Body,
    waiting: Bytes,
    decoder: Decoder,
    ended: bool,
}

fn decoded(decoder: Decoder, schema: SchemaRef, head: Bytes, body: Body) -> BatchStream {
    BatchStream::from_source(schema, None, Reading { body, waiting: head, decoder, ended: false })
}

#[async_trait]
impl BatchSource for Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended {
            if self.waiting.is_empty() {
                match self.body.next().await {
                    Some(piece) => self.waiting = piece.map_err(Failure::into_error)?,
                    None => self.ended = true,
                }
            }
            // Nothing says to a decoder that nothing follows.
            let taken = self.decoder.decode(&self.waiting).map_err(|error| unfit(&error))?;
            self.waiting.advance(taken);
            if !self.waiting.is_empty() {
                // A batch is full.
                if let Some(batch) = self.decoder.flush().map_err(|error| unfit(&error))? {
                    return Ok(Some(batch));
                }
            }
        }
        self.decoder.flush().map_err(|error| unfit(&error))
    }
}
