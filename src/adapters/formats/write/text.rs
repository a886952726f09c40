//! Rows as text, in any of the text formats.

use crate::adapters::formats::format::Format;
use crate::adapters::formats::write::cell_text::TimeStyle;
use crate::adapters::formats::write::cells::{CellStyle, Cells, NanStyle};
use crate::adapters::formats::write::csv::{csv_header, csv_rows};
use crate::adapters::formats::write::json::{
    clickhouse_end, clickhouse_head, json_end, json_head, json_string, write_array, write_object,
};
use crate::adapters::formats::write::tsv::{tsv_header, write_tsv_row};
use crate::adapters::ipc::batch_bytes;
use crate::ports::Result;
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
    /// Creates a writer, and returns it with what comes before the first row.
    pub fn new(format: Format, nan: NanStyle, schema: &SchemaRef) -> (Self, Bytes) {
        let names: Vec<_> = schema.fields().iter().map(|field| json_string(field.name())).collect();
        let head = match format {
            Format::Json => json_head(&names),
            Format::ClickHouse | Format::ClickHouseCompact => clickhouse_head(schema, &names),
            Format::Csv => csv_header(schema),
            Format::Tsv => tsv_header(schema),
            _ => Vec::new(),
        };
        let is_clickhouse =
            matches!(format, Format::ClickHouse | Format::ClickHouseCompact | Format::Tsv | Format::TsvNoHeader);
        let times = if is_clickhouse { TimeStyle::Space } else { TimeStyle::Iso };
        (Self { format, style: CellStyle { nan, times }, names, rows: 0, bytes: 0 }, head.into())
    }

    /// Returns the text of the rows of `batch`.
    ///
    /// # Errors
    ///
    /// `Internal` for a type that has no text.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let cells = |column: &arrow::array::ArrayRef| Cells::new(column.clone(), self.style);
        let columns = batch.columns().iter().map(cells).collect::<Result<Vec<_>>>()?;
        let rows = 0..batch.num_rows();
        self.bytes += batch_bytes(batch) as u64;
        // A comma stands before every row but the first of the whole result.
        let first = self.rows == 0;
        self.rows += batch.num_rows() as u64;
        let mut out = Vec::new();
        match self.format {
            Format::Csv | Format::CsvNoHeader => return csv_rows(&columns, rows),
            Format::Tsv | Format::TsvNoHeader => {
                for row in rows {
                    write_tsv_row(&columns, row, &mut out)?;
                }
            }
            Format::Ndjson => {
                for row in rows {
                    write_object(&self.names, &columns, row, &mut out)?;
                    out.push(b'\n');
                }
            }
            Format::ClickHouse => {
                for row in rows {
                    out.extend_from_slice(if first && row == 0 { b"" } else { b"," });
                    write_object(&self.names, &columns, row, &mut out)?;
                }
            }
            _ => {
                for row in rows {
                    out.extend_from_slice(if first && row == 0 { b"" } else { b"," });
                    write_array(&columns, row, &mut out)?;
                }
            }
        }
        Ok(out.into())
    }

    /// Returns what comes after the last row.
    pub fn end(&self, elapsed: Duration) -> Bytes {
        match self.format {
            Format::Json => json_end(self.rows, elapsed).into(),
            Format::ClickHouse | Format::ClickHouseCompact => clickhouse_end(self.rows, self.bytes, elapsed).into(),
            _ => Bytes::new(),
        }
    }
}
