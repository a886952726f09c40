//! CSV (RFC 4180), with quotes where they are needed.

use crate::adapters::formats::write::cells::Cells;
use crate::ports::{Error, Result};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use std::ops::Range;

/// Returns the header line.
pub(super) fn csv_header(schema: &SchemaRef) -> Vec<u8> {
    csv_lines(|write| write(&mut schema.fields().iter().map(|field| field.name().as_bytes())))
}

/// Returns the lines of `rows`.
pub(super) fn csv_rows(columns: &[Cells], rows: Range<usize>) -> Result<Bytes> {
    let mut cells = vec![Vec::new(); columns.len()];
    let mut failed = None;
    let lines = csv_lines(|write| {
        for row in rows {
            for (cell, column) in cells.iter_mut().zip(columns) {
                cell.clear();
                failed = failed.take().or(column.plain(row, cell).err());
            }
            write(&mut cells.iter().map(Vec::as_slice));
        }
    });
    failed.map_or_else(|| Ok(lines.into()), Err)
}

fn csv_lines(write_all: impl FnOnce(&mut dyn FnMut(&mut dyn Iterator<Item = &[u8]>))) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    write_all(&mut |cells| {
        let written = writer.write_record(cells).map_err(|error| Error::internal(error.to_string()));
        debug_assert!(written.is_ok(), "a vector takes what is written to it");
    });
    writer.into_inner().unwrap_or_default()
}
