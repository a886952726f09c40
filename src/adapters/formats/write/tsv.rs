//! TSV, escaped as ClickHouse does it.

use crate::adapters::formats::write::cells::Cells;
use crate::ports::Result;
use arrow::datatypes::SchemaRef;

/// Returns the header line.
pub(super) fn tsv_header(schema: &SchemaRef) -> Vec<u8> {
    let cells: Vec<_> = schema.fields().iter().map(|field| tsv_escaped(field.name().as_bytes())).collect();
    let mut line = cells.join(&b'\t');
    line.push(b'\n');
    line
}

/// Writes the line of a row.
pub(super) fn write_tsv_row(columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b'\t');
        }
        if column.is_null(row) {
            out.extend_from_slice(b"\\N");
        } else {
            let start = out.len();
            column.plain(row, out)?;
            // Few cells need escapes, so they are written in place and rewritten only then.
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

/// Escapes what would end a cell or a line.
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
