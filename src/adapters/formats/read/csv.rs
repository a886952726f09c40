//! CSV, decoded as it arrives into the columns of a table, or into inferred ones.

use crate::adapters::formats::read::batch_budget::BatchBudget;
use crate::adapters::formats::read::chunks::ChunkStream;
use crate::adapters::formats::read::csv_quotes::QuoteTracker;
use crate::adapters::formats::read::lines::{Head, HeadSize, LineDecoder, decode_lines};
use crate::adapters::formats::read::schema_inference::{not_a, nullable, typed};
use crate::ports::{BatchStream, Error, Result, as_text};
use arrow::array::AsArray;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use std::sync::Arc;

/// Reads CSV whose first line names the columns. Returns once the schema is known: after the first line where there is
/// a table, else after what types are inferred from.
///
/// # Errors
///
/// Those of the chunks, `InvalidQuery` for an empty body or one that is not CSV, `LimitExceeded` for a first line
/// without end.
pub async fn read_csv<S: ChunkStream>(mut chunks: S, table: Option<SchemaRef>) -> Result<BatchStream, S::Error> {
    let size = if table.is_some() { HeadSize::Line } else { HeadSize::Sample };
    let head = Head::read(&mut chunks, size).await?;
    if head.bytes.is_empty() {
        return Err(Error::invalid("the body is empty; its first line names the columns").into());
    }
    // A record may be cut where the head ends: what it lacks says nothing about types.
    let format = CsvFormat::default().with_header(true).with_truncated_rows(true);
    let rows = if table.is_some() { Some(0) } else { None };
    let (inferred, _) = format.infer_schema(head.whole_lines(), rows).map_err(|error| not_a("valid CSV", &error))?;
    let inferred = nullable(&inferred);
    let schema = match table {
        Some(table) => typed(&inferred, &table),
        None => Arc::new(codes_as_text(inferred, head.whole_lines())?),
    };
    let schema = Arc::new(as_text(&schema));
    let budget = BatchBudget::for_lines(&schema, &head.bytes);
    let decoder = arrow::csv::ReaderBuilder::new(schema.clone())
        .with_header(true)
        .with_batch_size(budget.rows_max())
        .build_decoder();
    Ok(decode_lines(LineDecoder::Csv(Box::new(decoder), QuoteTracker::default()), budget, schema, head.bytes, chunks))
}

/// Turns inferred numbers with leading zeros into text: 007 is a code, and would not be 7.
fn codes_as_text(inferred: Schema, head: &[u8]) -> Result<Schema> {
    let fields = inferred.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let text = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = arrow::csv::ReaderBuilder::new(text).with_header(true).with_truncated_rows(true);
    let reader = reader.build(head).map_err(|error| not_a("valid CSV", &error))?;
    let mut codes = vec![false; inferred.fields().len()];
    // A wrong record ends the sample; it is reported when it is decoded.
    for batch in reader.map_while(std::result::Result::ok) {
        for (is_code, column) in codes.iter_mut().zip(batch.columns()) {
            *is_code |= column.as_string::<i32>().iter().flatten().any(has_leading_zero);
        }
    }
    let field = |(field, is_code): (&FieldRef, &bool)| match is_code {
        true if field.data_type().is_numeric() => Field::new(field.name(), DataType::Utf8, true),
        _ => Field::clone(field),
    };
    Ok(Schema::new(inferred.fields().iter().zip(&codes).map(field).collect::<Vec<_>>()))
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    digits.starts_with('0') && digits[1..].starts_with(|next: char| next.is_ascii_digit())
}
