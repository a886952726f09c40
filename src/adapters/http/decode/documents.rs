//! JSON and MessagePack bodies, which have to be there whole.
//!
//! They are looked over once, for where their rows are and what columns those have. Each row then goes to a decoder as text
//! when its turn comes, so that numbers keep their digits and no more than a batch is taken apart at a time.

use crate::adapters::http::decode::Turn;
use crate::adapters::http::decode::gauge::Gauge;
use crate::adapters::http::decode::schemas::{guessed_or_typed, json_decoder, no, unfit};
use crate::ports::{BatchSource, BatchStream, Error, Result, as_text};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::reader::Decoder;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::ops::Range;

/// How deep a MessagePack body may nest.
const DEPTH_MAX: usize = 64;

/// Rows after which others get their turn.
const ROWS_AT_ONCE: usize = 512;

/// The batches of a JSON body: an array of objects, an object with such an array as its `data`, or what a query answers.
///
/// # Errors
///
/// `InvalidQuery` for anything else.
pub fn json(body: Bytes, table: Option<SchemaRef>, turn: Turn) -> Result<BatchStream> {
    let wrong = |error| no("JSON array of objects or answer to a query", &error);
    let (rows, columns) = if body.trim_ascii_start().starts_with(b"[") {
        (serde_json::from_slice::<Vec<&RawValue>>(&body).map_err(wrong)?, None)
    } else {
        let Answer { columns, data } = serde_json::from_slice(&body).map_err(wrong)?;
        (data, columns)
    };
    let begin = body.as_ptr() as usize;
    let place = |row: &&RawValue| {
        let first = row.get().as_ptr() as usize - begin;
        first..first + row.get().len()
    };
    let rows = rows.iter().map(place).collect();
    let names = columns.map(|names| names.into_iter().map(|name| Value::String(name).to_string()).collect());
    batches(Rows::Json { body, rows, names }, table, turn)
}

#[derive(Deserialize)]
struct Answer<'a> {
    columns: Option<Vec<String>>,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

/// The batches of a MessagePack body: a map of columns, each an array.
///
/// # Errors
///
/// `InvalidQuery` for anything else.
pub fn msgpack(body: &[u8], table: Option<SchemaRef>, turn: Turn) -> Result<BatchStream> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(DEPTH_MAX);
    let columns = <Map<String, Value> as Deserialize>::deserialize(&mut deserializer);
    let columns = columns.map_err(|error| no("MessagePack map of columns", &error))?;
    let array = |(name, column)| match column {
        Value::Array(values) => Ok((name, values)),
        _ => Err(Error::invalid(format!("column {name:?} of the body is no array"))),
    };
    let columns = columns.into_iter().map(array).collect::<Result<Vec<_>>>()?;
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != rows) {
        return Err(Error::invalid(format!("column {name:?} has {} values, and others {rows}", values.len())));
    }
    batches(Rows::Columns { columns, rows }, table, turn)
}

fn batches(rows: Rows, table: Option<SchemaRef>, turn: Turn) -> Result<BatchStream> {
    let schema = guessed_or_typed(table, &mut (0..rows.len()).map(|row| rows.value(row)))?;
    let schema = std::sync::Arc::new(as_text(&schema));
    let gauge = Gauge::of_objects(&schema, b"");
    let decoder = json_decoder(&schema, gauge.rows_max())?;
    Ok(BatchStream::from_source(schema, None, Reading { rows, at: 0, text: Vec::new(), decoder, gauge, _turn: turn }))
}

/// Rows, each of which can be written as the text of an object.
enum Rows {
    /// Where they are in a body; and the names of their columns as JSON strings, where they are arrays.
    Json { body: Bytes, rows: Vec<Range<usize>>, names: Option<Vec<String>> },
    /// Columns of one length.
    Columns { columns: Vec<(String, Vec<Value>)>, rows: usize },
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Json { rows, .. } => rows.len(),
            Self::Columns { rows, .. } => *rows,
        }
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Json { body, rows, names: None } => out.extend_from_slice(&body[rows[row].clone()]),
            Self::Json { body, rows, names: Some(names) } => named(&body[rows[row].clone()], names, row, out)?,
            Self::Columns { columns, .. } => {
                let members = columns.iter().map(|(name, values)| (name, &values[row]));
                let written = serde_json::Serializer::new(out).collect_map(members);
                written.map_err(|error| no("MessagePack map of columns", &error))?;
            }
        }
        Ok(())
    }

    fn value(&self, row: usize) -> Result<Value> {
        let mut text = Vec::new();
        self.write(row, &mut text)?;
        serde_json::from_slice(&text).map_err(|error| no("JSON", &error))
    }
}

/// An array of values as an object.
fn named(row_text: &[u8], names: &[String], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let wrong = || Error::invalid(format!("row {row} of the body is no array of {} values", names.len()));
    let cells: Vec<&RawValue> = serde_json::from_slice(row_text).map_err(|_| wrong())?;
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

struct Reading {
    rows: Rows,
    at: usize,
    text: Vec<u8>,
    decoder: Decoder,
    gauge: Gauge,
    _turn: Turn,
}

#[async_trait]
impl BatchSource for Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.at < self.rows.len() && !self.gauge.is_full() {
            self.text.clear();
            self.rows.write(self.at, &mut self.text)?;
            self.gauge.add(&self.text, 1)?;
            // There is room for it: the decoder takes all of a row.
            self.decoder.decode(&self.text).map_err(|error| unfit(&error))?;
            self.at += 1;
            if self.at.is_multiple_of(ROWS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        self.gauge.reset();
        self.decoder.flush().map_err(|error| unfit(&error))
    }
}
