//! Rows as JSON, NDJSON or CSV.

use crate::adapters::http::render::cells::{Cells, NanStyle, string};
use crate::adapters::http::wire::Format;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use std::time::Duration;

/// Writes the rows of one result.
pub struct TextWriter {
    format: Format,
    nan: NanStyle,
    /// Column names as JSON strings.
    names: Vec<Vec<u8>>,
    rows: u64,
}

impl TextWriter {
    /// A writer, and what comes before the first row.
    pub fn new(format: Format, nan: NanStyle, schema: &SchemaRef) -> (Self, Bytes) {
        let quoted = |name: &String| {
            let mut out = Vec::new();
            string(name, &mut out);
            out
        };
        let names: Vec<_> = schema.fields().iter().map(|field| quoted(field.name())).collect();
        let head = match format {
            Format::Json => [b"{\"columns\":[".as_slice(), &names.join(&b","[..]), b"],\"data\":["].concat(),
            Format::Csv => csv_line(schema.fields().iter().map(|field| field.name().as_bytes())),
            _ => Vec::new(),
        };
        (Self { format, nan, names, rows: 0 }, head.into())
    }

    /// The rows of `batch`.
    ///
    /// # Errors
    ///
    /// `Internal` for a type that has no text.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let columns =
            batch.columns().iter().map(|column| Cells::new(column.clone(), self.nan)).collect::<Result<Vec<_>>>()?;
        let mut out = Vec::new();
        for row in 0..batch.num_rows() {
            match self.format {
                Format::Csv => csv_row(&columns, row, &mut out)?,
                Format::Ndjson => self.object(&columns, row, &mut out)?,
                _ => self.array(&columns, row, &mut out)?,
            }
            self.rows += 1;
        }
        Ok(out.into())
    }

    /// What comes after the last row.
    pub fn end(&self, elapsed: Duration) -> Bytes {
        match self.format {
            Format::Json => {
                let micros = elapsed.as_secs_f64() * 1e6;
                format!("],\"rows\":{},\"execution_time_us\":{micros:.2}}}\n", self.rows).into()
            }
            _ => Bytes::new(),
        }
    }

    fn array(&self, columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(if self.rows == 0 { b"[" } else { b",[" });
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            column.json(row, out)?;
        }
        out.push(b']');
        Ok(())
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
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

fn csv_row(columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut cells = Vec::with_capacity(columns.len());
    for column in columns {
        let mut cell = Vec::new();
        column.plain(row, &mut cell)?;
        cells.push(cell);
    }
    out.extend(csv_line(cells.iter().map(Vec::as_slice)));
    Ok(())
}

/// One line of RFC 4180, with its quotes where they are needed.
fn csv_line<'a>(cells: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    let written = writer.write_record(cells).map_err(|error| Error::internal(error.to_string()));
    debug_assert!(written.is_ok(), "a vector takes what is written to it");
    writer.into_inner().unwrap_or_default()
}
