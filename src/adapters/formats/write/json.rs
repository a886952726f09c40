//! JSON around the cells: our own document, ClickHouse's two, and the objects of NDJSON.

use crate::adapters::formats::write::cell_text::write_json;
use crate::adapters::formats::write::cells::Cells;
use crate::adapters::formats::write::clickhouse::type_name;
use crate::ports::Result;
use arrow::datatypes::SchemaRef;
use std::time::Duration;

pub(super) fn json_head(names: &[Vec<u8>]) -> Vec<u8> {
    [b"{\"columns\":[".as_slice(), &names.join(&b","[..]), b"],\"data\":["].concat()
}

pub(super) fn json_end(rows: u64, elapsed: Duration) -> String {
    let micros = elapsed.as_secs_f64() * 1e6;
    format!("],\"rows\":{rows},\"execution_time_us\":{micros:.2}}}\n")
}

pub(super) fn clickhouse_head(schema: &SchemaRef, names: &[Vec<u8>]) -> Vec<u8> {
    let columns = schema.fields().iter().zip(names).map(|(field, name)| {
        let name_of_type = json_string(&type_name(field));
        [b"{\"name\":".as_slice(), name, b",\"type\":", &name_of_type, b"}"].concat()
    });
    let columns: Vec<_> = columns.collect();
    [b"{\"meta\":[".as_slice(), &columns.join(&b","[..]), b"],\"data\":["].concat()
}

pub(super) fn clickhouse_end(rows: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let read = format!("\"elapsed\":{seconds:.9},\"rows_read\":{rows},\"bytes_read\":{bytes}");
    format!("],\"rows\":{rows},\"statistics\":{{{read}}}}}\n")
}

/// Writes a row as an object; `names` are JSON strings.
pub(super) fn write_object(names: &[Vec<u8>], columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'{');
    for (at, (name, column)) in names.iter().zip(columns).enumerate() {
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

/// Writes a row as an array.
pub(super) fn write_array(columns: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<()> {
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

/// Returns `text` as a JSON string.
pub(super) fn json_string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_json(text, &mut out);
    out
}
