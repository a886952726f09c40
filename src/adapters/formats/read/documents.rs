//! Rows of a document that has arrived whole: what JSON and MessagePack have in common.
//!
//! A document is parsed once, to find where its rows are and which columns they have. Each row is then written out as
//! text and given to a decoder when its batch is asked for, so that numbers keep their digits and no more than one batch
//! is decoded at a time.

use crate::adapters::formats::read::batch_budget::BatchBudget;
use crate::adapters::formats::read::schema_inference::{infer_or_apply_table, json_decoder, not_a, row_error};
use crate::ports::{BatchSource, BatchStream, Error, Result, as_text};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::reader::Decoder;
use async_trait::async_trait;
use bytes::Bytes;
use serde::Serializer;
use serde_json::Value;
use serde_json::value::RawValue;
use std::ops::Range;
use tokio::sync::OwnedSemaphorePermit;

/// Rows after which other tasks get the thread.
const ROWS_PER_YIELD: usize = 512;

/// Permission to hold a document, given back when nothing of it is left; `None` where none is needed.
pub type DocumentPermit = Option<OwnedSemaphorePermit>;

/// Rows, each of which can be written as the text of an object.
pub(super) enum Rows {
    /// Their places in a body, and the names of their columns as JSON strings where rows are arrays.
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
            Self::Json { body, rows, names: Some(names) } => {
                write_object(&body[rows[row].clone()], names, row, out)?;
            }
            Self::Columns { columns, .. } => {
                let members = columns.iter().map(|(name, values)| (name, &values[row]));
                let written = serde_json::Serializer::new(out).collect_map(members);
                written.map_err(|error| not_a("a MessagePack map of columns", &error))?;
            }
        }
        Ok(())
    }

    fn value(&self, row: usize) -> Result<Value> {
        let mut text = Vec::new();
        self.write(row, &mut text)?;
        serde_json::from_slice(&text).map_err(|error| not_a("valid JSON", &error))
    }
}

/// Writes an array of values as an object.
fn write_object(row_text: &[u8], names: &[String], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let wrong = || Error::invalid(format!("row {row} of the body is not an array of {} values", names.len()));
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

/// Returns `rows` as batches, with the types of `table` or inferred ones.
pub(super) fn read_rows(rows: Rows, table: Option<SchemaRef>, permit: DocumentPermit) -> Result<BatchStream> {
    let schema = infer_or_apply_table(table, &mut (0..rows.len()).map(|row| rows.value(row)))?;
    let schema = std::sync::Arc::new(as_text(&schema));
    let budget = BatchBudget::for_objects(&schema, b"");
    let decoder = json_decoder(&schema, budget.rows_max())?;
    let reader = DocumentReader { rows, at: 0, text: Vec::new(), decoder, budget, _permit: permit };
    Ok(BatchStream::from_source(schema, None, reader))
}

struct DocumentReader {
    rows: Rows,
    at: usize,
    text: Vec<u8>,
    decoder: Decoder,
    budget: BatchBudget,
    /// Held for as long as the document is: it bounds how many are in memory.
    _permit: DocumentPermit,
}

#[async_trait]
impl BatchSource for DocumentReader {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.at < self.rows.len() && !self.budget.is_full() {
            self.text.clear();
            self.rows.write(self.at, &mut self.text)?;
            self.budget.add(&self.text, 1)?;
            // The budget has room for a row, so the decoder takes all of it.
            self.decoder.decode(&self.text).map_err(|error| row_error(&error))?;
            self.at += 1;
            if self.at.is_multiple_of(ROWS_PER_YIELD) {
                tokio::task::yield_now().await;
            }
        }
        self.budget.reset();
        self.decoder.flush().map_err(|error| row_error(&error))
    }
}
