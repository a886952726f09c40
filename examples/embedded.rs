//! The engine without a server: tables, ingestion and SQL in this process, through the same ports.
//!
//! `cargo run --example embedded`

use std::sync::Arc;
use zepto_flight::app;
use zepto_flight::ports::{Append, BatchStream, Query};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use arrow::array::{Float64Array, RecordBatch, StringArray};
    let backend = app::in_memory()?;
    let batch = RecordBatch::try_from_iter([
        ("symbol", Arc::new(StringArray::from(vec!["AAPL", "MSFT", "AAPL"])) as _),
        ("price", Arc::new(Float64Array::from(vec![189.5, 415.25, 190.0])) as _),
    ])?;
    let request = Append { table: "quotes".to_owned(), ..Append::default() };
    let summary = backend.ingest.append(request, BatchStream::from_batches(batch.schema(), vec![batch])).await?;
    let mut out = format!("{summary:?}\n");
    let sql = "SELECT symbol, max(price) AS high FROM quotes GROUP BY symbol ORDER BY symbol";
    for batch in backend.query.query(Query::read(sql)).await?.batches.collect().await? {
        for row in 0..batch.num_rows() {
            let cell = |column: usize| arrow::util::display::array_value_to_string(batch.column(column), row);
            out.push_str(&format!("{}\t{}\n", cell(0)?, cell(1)?));
        }
    }
    std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes())?;
    Ok(())
}
