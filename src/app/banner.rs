//! What the server prints when every port is open.

use crate::adapters::serving::ServerInfo;
use crate::app::Backend;
use crate::ports::{Caller, Result};
use std::fmt::Write;
use std::time::Duration;

/// Writes the banner: addresses, where data lives and how long it took to be opened, the tables, and a client to paste.
pub async fn text(about: &ServerInfo, backend: &Backend, opened: Duration) -> Result<String> {
    let mut text = format!("zepto-flight {}\n", about.version);
    for (protocol, place) in &about.protocols {
        let _ = writeln!(text, "  {:<8} {place}", format!("{protocol}:"));
    }
    // A backend somewhere else may be started later than this one.
    let tables = backend.query.tables(Caller::internal()).await.unwrap_or_default();
    let where_data_lives = match about.backend.as_str() {
        "memory:" => "memory: gone when this process ends".to_owned(),
        "stub:" => "stub: nowhere, answers are canned".to_owned(),
        kept if kept.starts_with("file:") => {
            let rows: u64 = tables.iter().filter_map(|table| table.rows).sum();
            let bytes: u64 = tables.iter().filter_map(|table| table.bytes).sum();
            let count = tables.len();
            format!("{kept}, {count} tables with {rows} rows, {bytes} bytes, recovered in {} ms", opened.as_millis())
        }
        elsewhere => elsewhere.to_owned(),
    };
    let _ = writeln!(text, "  {:<8} {where_data_lives}", "data:");
    for table in tables.iter().take(20) {
        let _ = writeln!(text, "  {:<8} {} ({} rows)", "table:", table.name, table.rows.unwrap_or(0));
    }
    if tables.is_empty() {
        let _ = writeln!(
            text,
            "  {:<8} none yet; DoPut and CREATE TABLE make them, --ticks 1000 makes sample trades",
            "tables:"
        );
    }
    if let Some((_, place)) = about.protocols.iter().find(|(_, place)| place.starts_with("grpc://")) {
        let sql =
            tables.first().map_or("SELECT 1".to_owned(), |table| format!("SELECT * FROM {} LIMIT 10", table.name));
        let _ = write!(
            text,
            "\n  import pyarrow.flight as fl\n  client = fl.connect(\"{place}\")\n  print(client.do_get(fl.Ticket(\"{sql}\")).read_all().to_pandas())\n"
        );
    }
    Ok(text)
}
