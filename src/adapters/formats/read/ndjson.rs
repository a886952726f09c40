//! NDJSON, decoded as it arrives into the columns of a table, or into inferred ones.

use crate::adapters::formats::read::batch_budget::BatchBudget;
use crate::adapters::formats::read::chunks::ChunkStream;
use crate::adapters::formats::read::lines::{Head, HeadSize, LineDecoder, decode_lines};
use crate::adapters::formats::read::schema_inference::{
    json_decoder, not_a, nullable, typed, with_remaining_table_columns,
};
use crate::ports::{BatchStream, Result, as_text};
use arrow::datatypes::SchemaRef;
use arrow::json::reader::infer_json_schema;
use std::sync::Arc;

/// Reads a JSON object from each line. Returns once the schema is inferred from the beginning.
///
/// # Errors
///
/// Those of the chunks, `InvalidQuery` for a body that is not NDJSON, `LimitExceeded` for a first line without end.
pub async fn read_ndjson<S: ChunkStream>(mut chunks: S, table: Option<SchemaRef>) -> Result<BatchStream, S::Error> {
    let head = Head::read(&mut chunks, HeadSize::Sample).await?;
    let (inferred, _) = infer_json_schema(head.whole_lines(), None).map_err(|error| not_a("valid NDJSON", &error))?;
    let inferred = nullable(&inferred);
    let schema = match &table {
        None => Arc::new(inferred),
        Some(table) => with_remaining_table_columns(&typed(&inferred, table), table),
    };
    let schema = Arc::new(as_text(&schema));
    let budget = BatchBudget::for_objects(&schema, &head.bytes);
    let decoder = json_decoder(&schema, budget.rows_max())?;
    Ok(decode_lines(LineDecoder::Json(Box::new(decoder)), budget, schema, head.bytes, chunks))
}
