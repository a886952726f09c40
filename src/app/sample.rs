//! Sample data: a table of trades to try things on.
//!
//! The rows are ZeptoDB's own sample ticks (its `--ticks`), with prices as prices: symbols 1 to 3 in turn, one tick a
//! millisecond. They go in through the ports, like a client's.

use crate::ports::{Append, BatchStream, Caller, Error, IngestPort, Query, QueryPort, Result};
use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::stream;
use std::sync::Arc;

/// The table.
pub const TABLE: &str = "trades";

/// Instant of the first tick, in nanoseconds since 1970 UTC.
const FIRST_NS: i64 = 1_711_234_567_000_000_000;

/// Rows of one batch.
const BATCH_ROWS: i64 = 65_536;

/// Makes the table of trades with `rows` rows.
///
/// # Errors
///
/// The ports' own.
pub async fn seed(query: &dyn QueryPort, ingest: &dyn IngestPort, rows: u64) -> Result<()> {
    let create = "CREATE TABLE trades (symbol INT64, price FLOAT64, volume FLOAT64, timestamp TIMESTAMP_NS)";
    query.query(Query { caller: Caller::internal(), ..Query::change(create) }).await?;
    let rows = i64::try_from(rows).map_err(|_| Error::invalid("too many sample rows"))?;
    let firsts = (0..rows).step_by(usize::try_from(BATCH_ROWS).unwrap_or(1));
    let batches = firsts.map(move |first| ticks(first, BATCH_ROWS.min(rows - first)));
    let request = Append { table: TABLE.to_owned(), caller: Caller::internal(), ..Append::default() };
    ingest.append(request, BatchStream::new(schema(), stream::iter(batches))).await?;
    Ok(())
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("symbol", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
        Field::new("volume", DataType::Float64, true),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ]))
}

#[expect(clippy::cast_precision_loss, reason = "remainders are small")]
fn ticks(first: i64, rows: i64) -> Result<RecordBatch> {
    let each = || first..first + rows;
    let symbols = Int64Array::from_iter_values(each().map(|tick| tick % 3 + 1));
    let prices = Float64Array::from_iter_values(each().map(|tick| 150.0 + (tick % 200) as f64 / 100.0));
    let volumes = Float64Array::from_iter_values(each().map(|tick| (100 + tick % 50) as f64));
    let times = TimestampNanosecondArray::from_iter_values(each().map(|tick| FIRST_NS + tick * 1_000_000));
    RecordBatch::try_new(schema(), vec![Arc::new(symbols), Arc::new(prices), Arc::new(volumes), Arc::new(times)])
        .map_err(|error| Error::internal("the sample rows do not fit their table").with_source(error))
}
