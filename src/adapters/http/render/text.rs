//! Rows as text: JSON in three shapes, NDJSON, CSV, TSV.

use crate::adapters::http::format::Format;
use crate::adapters::http::render::cells::{CellStyle, Cells, NanStyle, TimeStyle, written};
use crate::adapters::http::render::clickhouse::type_name;
use crate::adapters::ipc::batch_bytes;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use std::time::Duration;

/// Writes the rows of one result.
pub struct TextWriter {
    format: Format,
    style: CellStyle,
    /// Column names as JSON strings.
    names: Vec<Vec<u8>>,
    rows: u64,
    bytes: u64,
}

impl TextWriter {
    /// A writer, and what comes before the first row.
    pub fn new(format: Format, nan: NanStyle, schema: &SchemaRef) -> (Self, Bytes) {
        let names: Vec<_> = schema.fields().iter().map(|field| quoted(field.name())).collect();
        let plain = || schema.fields().iter().map(|field| field.name().as_bytes());
        let head = match format {
            Format::Json => [b"{\"columns\":[".as_slice(), &names.join(&b","[..]), b"],\"data\":["].concat(),
            Format::ClickHouse | Format::ClickHouseCompact => {
                let columns = schema.fields().iter().zip(&names).map(|(field, name)| {
                    let name_of_type = quoted(&type_name(field));
                    [b"{\"name\":".as_slice(), name, b",\"type\":", &name_of_type, b"}"].concat()
                });
                let columns: Vec<_> = columns.collect();
                [b"{\"meta\":[".as_slice(), &columns.join(&b","[..]), b"],\"data\":["].concat()
            }
            Format::Csv => csv_lines(|write| write(&mut plain())),
            Format::Tsv => tsv_line(plain().map(tsv_escaped)),
            _ => Vec::new(),
        };
        let is_clickhouse =
            matches!(format, Format::ClickHouse | Format::ClickHouseCompact | Format::Tsv | Format::TsvBare);
        let times = if is_clickhouse { TimeStyle::Space } else { TimeStyle::Iso };
        (Self { format, style: CellStyle { nan, times }, names, rows: 0, bytes: 0 }, head.into())
    }

    /// The rows of `batch`.
    ///
    /// # Errors
    ///
    /// `Internal` for a type that has no text.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let cells = |column: &arrow::array::ArrayRef| Cells::new(column.clone(), self.style);
        let columns = batch.columns().iter().map(cells).collect::<Result<Vec<_>>>()?;
        let rows = 0..batch.num_rows();
        self.bytes += batch_bytes(batch) as u64;
        let first = self.rows == 0;
        self.rows += batch.num_rows() as u64;
        let mut out = Vec::new();
        match self.format {
            Format::Csv | Format::CsvBare => return csv_rows(&columns, rows),
            Format::Tsv | Format::TsvBare => {
                for row in rows {
                    tsv_row(&columns, row, &mut out)?;
                }
            }
            Format::Ndjson => {
                for row in rows {
                    self.object(&columns, row, &mut out)?;
                    out.push(b'\n');
                }
            }
            Format::ClickHouse => {
                for row in rows {
                    out.extend_from_slice(if first && row == 0 { b"" } else { b"," });
                    self.object(&columns, row, &mut out)?;
                }
            }
            _ => {
                for row in rows {
                    out.extend_from_slice(if first && row == 0 { b"" } else { b"," });
                    array(&columns, row, &mut out)?;
                }
            }
        }
        Ok(out.into())
    }

    /// What comes after the last row.
    pub fn end(&self, elapsed: Duration) -> Bytes {
        let rows = self.rows;
        match self.format {
            Format::Json => {
                let micros = elapsed.as_secs_f64() * 1e6;
                format!("],\"rows\":{rows},\"execution_time_us\":{micros:.2}}}\n").into()
            }
            Format::ClickHouse | Format::ClickHouseCompact => {
                let (seconds, bytes) = (elapsed.as_secs_f64(), self.bytes);
                let read = format!("\"elapsed\":{seconds:.9},\"rows_read\":{rows},\"bytes_read\":{bytes}");
                format!("],\"rows\":{rows},\"statistics\":{{{read}}}}}\n").into()
            }
            _ => Bytes::new(),
        }
    }

    fn object(&self, columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
        out.push(b'{');
        for (at, (name, column)) in self.names.iter().zip(columns).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b':');
            column.json(row, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    written(text, &mut out);
    out
}

fn array(columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'[');
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        column.json(row, out)?;
    }
    out.push(b']');
    Ok(())
}

fn csv_rows(columns: &[Cells], rows: std::ops::Range<usize>) -> Result<Bytes> {
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

/// Lines of RFC 4180, with quotes where they are needed.
fn csv_lines(write_all: impl FnOnce(&mut dyn FnMut(&mut dyn Iterator<Item = &[u8]>))) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    write_all(&mut |cells| {
        let written = writer.write_record(cells).map_err(|error| Error::internal(error.to_string()));
        debug_assert!(written.is_ok(), "a vector takes what is written to it");
    });
    writer.into_inner().unwrap_or_default()
}

fn tsv_row(columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b'\t');
        }
        if column.is_null(row) {
            out.extend_from_slice(b"\\N");
        } else {
            let start = out.len();
            column.plain(row, out)?;
            if out[start..].iter().any(|byte| b"\t\n\r\\".contains(byte)) {
                let escaped = tsv_escaped(&out[start..]);
                out.truncate(start);
                out.extend(escaped);
            }
        }
    }
    out.push(b'\n');
    Ok(())
}

fn tsv_line(cells: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut line = cells.collect::<Vec<_>>().join(&b'\t');
    line.push(b'\n');
    line
}

/// What would end a cell or a line, escaped as ClickHouse does it.
fn tsv_escaped(cell: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(cell.len());
    for byte in cell {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(*other),
        }
    }
    out
}
