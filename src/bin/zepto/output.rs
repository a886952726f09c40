//! Output of results: aligned tables for people, everything else in the server's own formats.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use futures::StreamExt;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use zepto_flight::adapters::formats::Format;
use zepto_flight::adapters::formats::write::{NanStyle, ResultStyle, ResultWriter};
use zepto_flight::adapters::ipc::Encoding;
use zepto_flight::ports::{BatchStream, Error, Reply, Result, StatementKind};

/// Most rows of a table that are shown.
const SHOWN_ROWS_MAX: usize = 1_000;

/// The narrowest column of a table; where the terminal has less room, rows are shown as records.
const COLUMN_CHARS_MIN: usize = 8;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Aligned columns; rows as records where the terminal is too narrow
    Table,
    /// Comma-separated values under a header line
    Csv,
    /// One JSON document
    Json,
    /// A JSON object on each line
    Ndjson,
    /// An Arrow IPC stream
    Arrow,
    /// A Parquet file
    Parquet,
    /// A Markdown table
    Markdown,
}

impl Layout {
    /// Returns the server's format for this layout, if it has one.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Table | Self::Markdown => None,
            Self::Csv => Some(Format::Csv),
            Self::Json => Some(Format::Json),
            Self::Ndjson => Some(Format::Ndjson),
            Self::Arrow => Some(Format::Arrow),
            Self::Parquet => Some(Format::Parquet),
        }
    }
}

/// Writes results to standard output.
pub struct Output {
    layout: Layout,
    /// Characters of a line; `None` where the output is not a terminal.
    width: Option<usize>,
    timing: bool,
}

/// A result as text.
pub struct RenderedResult {
    /// The text.
    pub text: String,
    /// A line with the number of rows and the time.
    pub summary: String,
}

impl Output {
    /// Creates an output for standard output, as it is now.
    pub fn standard(layout: Layout) -> Self {
        let terminal = std::io::stdout().is_terminal();
        // Some terminals report a size of 0.
        let columns = crossterm::terminal::size().map_or(0, |(columns, _)| usize::from(columns));
        let width = terminal.then_some(if columns == 0 { 80 } else { columns });
        Self { layout, width, timing: terminal }
    }

    /// Prints the reply to a statement that was sent at `began`.
    ///
    /// # Errors
    ///
    /// Those of the reply, and `Unavailable` where standard output fails.
    pub async fn print(&self, reply: Reply, began: Instant) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let Some(format) = self.layout.format() else {
            let rendered = self.render(reply, began).await?;
            out.write_all(rendered.text.as_bytes()).map_err(|error| output_error(&error))?;
            if self.timing && !rendered.summary.is_empty() {
                let _ = writeln!(std::io::stderr(), "{}", rendered.summary);
            }
            return Ok(());
        };
        if reply.kind == StatementKind::Definition {
            return Ok(());
        }
        write_result(reply.batches, format, &mut out, |_, _| {}).await.map(|_| ())
    }

    /// Renders the reply to a statement that was sent at `began` as text for people.
    ///
    /// # Errors
    ///
    /// Those of the reply.
    pub async fn render(&self, reply: Reply, began: Instant) -> Result<RenderedResult> {
        let Reply { kind, mut batches } = reply;
        let (mut kept, mut rows, mut more) = (Vec::new(), 0, false);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let take = batch.num_rows().min(SHOWN_ROWS_MAX - rows);
            more = take < batch.num_rows();
            rows += take;
            kept.push(batch.slice(0, take));
            if more {
                break;
            }
        }
        let schema = batches.schema();
        let time = elapsed(began.elapsed());
        Ok(match kind {
            StatementKind::Definition => RenderedResult { text: String::new(), summary: format!("done in {time}") },
            StatementKind::Change => {
                let count = kept.first().map(|batch| cell_texts(batch.column(0).as_ref())).transpose()?;
                let count = count.and_then(|count| count.into_iter().next().flatten()).unwrap_or_default();
                RenderedResult {
                    text: String::new(),
                    summary: format!("{count} rows {} in {time}", schema.field(0).name()),
                }
            }
            StatementKind::Read => {
                let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
                let right: Vec<_> = schema.fields().iter().map(|field| is_number(field.data_type())).collect();
                let cells = kept.iter().map(rows_as_text).collect::<Result<Vec<_>>>()?.concat();
                let text = self.lay_out(&names, &right, &cells);
                let only = if more { "first " } else { "" };
                RenderedResult {
                    text,
                    summary: format!("({only}{rows} row{} in {time})", if rows == 1 { "" } else { "s" }),
                }
            }
        })
    }

    fn lay_out(&self, names: &[String], right: &[bool], rows: &[Vec<Option<String>>]) -> String {
        let too_narrow = self.width.is_some_and(|width| names.len() * (COLUMN_CHARS_MIN + 3) > width);
        if self.layout == Layout::Markdown {
            return format!("{}\n", table(names, right, rows, presets::ASCII_MARKDOWN, None));
        }
        if too_narrow {
            return records(names, rows);
        }
        format!("{}\n", table(names, right, rows, presets::UTF8_FULL_CONDENSED, self.width))
    }
}

fn table(names: &[String], right: &[bool], rows: &[Vec<Option<String>>], preset: &str, width: Option<usize>) -> Table {
    let mut table = Table::new();
    table.load_preset(preset);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    let alignment = |right: bool| if right { CellAlignment::Right } else { CellAlignment::Left };
    let head = names.iter().zip(right).map(|(name, right)| Cell::new(name).set_alignment(alignment(*right)));
    table.set_header(head);
    for row in rows {
        let cells = row.iter().zip(right).map(|(cell, right)| match cell {
            Some(text) => Cell::new(text).set_alignment(alignment(*right)),
            None if width.is_some() => Cell::new("NULL").set_alignment(alignment(*right)).add_attribute(Attribute::Dim),
            None => Cell::new("NULL").set_alignment(alignment(*right)),
        });
        table.add_row(cells);
    }
    table
}

/// Renders rows one below the other, a line for each column.
fn records(names: &[String], rows: &[Vec<Option<String>>]) -> String {
    let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        text.push_str(&format!("── row {} ──\n", at + 1));
        for (name, cell) in names.iter().zip(row) {
            text.push_str(&format!("{name:>wide$}  {}\n", cell.as_deref().unwrap_or("NULL")));
        }
    }
    text
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// Formats the values of a column; `None` for null.
fn cell_texts(column: &dyn Array) -> Result<Vec<Option<String>>> {
    let options = FormatOptions::new();
    let text_error = |error| Error::internal(format!("a value has no text: {error}"));
    let formatter = ArrayFormatter::try_new(column, &options).map_err(text_error)?;
    let text = |row: usize| {
        if column.is_null(row) || *column.data_type() == DataType::Null {
            return Ok(None);
        }
        formatter.value(row).try_to_string().map(Some).map_err(text_error)
    };
    (0..column.len()).map(text).collect()
}

fn rows_as_text(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>> {
    let columns = batch.columns().iter().map(|column| cell_texts(column.as_ref())).collect::<Result<Vec<_>>>()?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn elapsed(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// Writes all of `batches`, and returns the number of rows. `progress` gets the rows and bytes of each piece.
///
/// # Errors
///
/// Those of `batches`, and `Unavailable` where `out` fails.
pub async fn write_result(
    mut batches: BatchStream,
    format: Format,
    out: &mut impl Write,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64> {
    let began = Instant::now();
    let style = ResultStyle { format, nan: NanStyle::Null, encoding: Encoding::plain(2 << 20) };
    let (mut writer, mut pieces) = ResultWriter::new(&batches.schema(), style)?;
    let mut rows = 0;
    loop {
        let mut bytes = 0;
        for piece in pieces.drain(..) {
            bytes += piece.len() as u64;
            out.write_all(&piece).map_err(|error| output_error(&error))?;
        }
        let Some(batch) = batches.next().await else {
            let last = writer.end(began.elapsed())?;
            progress(0, bytes + last.len() as u64);
            out.write_all(&last).and_then(|()| out.flush()).map_err(|error| output_error(&error))?;
            return Ok(rows);
        };
        let batch = batch?;
        rows += batch.num_rows() as u64;
        progress(batch.num_rows() as u64, bytes);
        pieces = VecDeque::new();
        for piece in writer.pieces(batch) {
            writer.write(&piece, &mut pieces)?;
        }
    }
}

/// Builds the error for output that cannot be written. A closed pipe ends the program instead.
pub fn output_error(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        // `head` and the like close the pipe once they have enough: not an error.
        std::process::exit(0);
    }
    Error::unavailable(format!("the result cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::output::{Layout, Output};
    use arrow::array::record_batch;
    use futures::FutureExt;
    use zepto_flight::ports::{BatchStream, Reply, StatementKind};

    fn rendered(layout: Layout, width: Option<usize>) -> String {
        let batch =
            record_batch!(("n", Int64, [Some(1), Some(-200), None]), ("text", Utf8, [Some("a"), None, Some("ü")]))
                .unwrap();
        let batches = BatchStream::from_batches(batch.schema(), vec![batch]);
        let output = Output { layout, width, timing: false };
        let reply = Reply { kind: StatementKind::Read, batches };
        let rendered = output.render(reply, std::time::Instant::now()).now_or_never().unwrap().unwrap();
        assert!(rendered.summary.starts_with("(3 rows in "), "{}", rendered.summary);
        rendered.text
    }

    #[test]
    fn numbers_stand_right_nulls_show_and_narrow_terminals_get_records() {
        let table = rendered(Layout::Table, None);
        assert!(table.contains("│ -200 ┆ NULL │") && table.contains("│ NULL ┆ ü    │"), "{table}");
        let markdown = rendered(Layout::Markdown, None);
        assert!(markdown.starts_with("|    n | text |\n"), "{markdown}");
        let records = rendered(Layout::Table, Some(10));
        assert!(records.contains("── row 2 ──\n   n  -200\ntext  NULL\n"), "{records}");
    }
}
