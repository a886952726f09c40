//! Ping latency beside a heavy query, as a ratio to the latency of an idle server.
//!
//! The engine works on a runtime of its own, so a query that keeps every core busy should not hold up a ping. On a
//! machine whose cores are all taken the operating system still has to share them: the ratio tells how well.

use futures::StreamExt;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use zepto_flight::adapters::flight;
use zepto_flight::adapters::serving::ServerOptions;
use zepto_flight::app;
use zepto_flight::domain::EngineOptions;
use zepto_flight::ports::{Caller, Query};

const PINGS: usize = 2_000;
const ROWS: u64 = 5_000_000;
const HEAVY: &str = "SELECT a.symbol, count(*), sum(a.price * b.price) FROM trades a JOIN trades b ON a.volume = b.volume AND a.price < b.price GROUP BY a.symbol";

/// Latencies of pings, sorted.
async fn pings(client: &dyn zepto_flight::ports::QueryPort) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let began = Instant::now();
        client.snapshot(Caller::default()).await.expect("the server answers");
        latencies.push(began.elapsed());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    latencies.sort();
    latencies
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let backend = app::connect("memory:", EngineOptions::default()).expect("an engine");
        zepto_flight::app::sample::seed(backend.query.as_ref(), backend.ingest.as_ref(), ROWS)
            .await
            .expect("sample rows");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("grpc://{}", listener.local_addr().expect("an address"));
        let server = flight::Server::new(backend.query.clone(), backend.ingest.clone(), ServerOptions::default());
        tokio::spawn(server.serve(listener, std::future::pending()));
        let client = app::connect(&url, EngineOptions::default()).expect("a client");
        for round in 1..=3 {
            let idle = pings(client.query.as_ref()).await;
            let query = backend.query.clone();
            let running = tokio::spawn(async move {
                let mut batches = query.query(Query::read(HEAVY)).await.expect("the heavy query runs").batches;
                batches.next().await
            });
            let busy = pings(client.query.as_ref()).await;
            let still_running = !running.is_finished();
            running.abort();
            let at = |latencies: &[Duration], part: f64| {
                latencies[(latencies.len() as f64 * part) as usize].as_secs_f64() * 1e6
            };
            let report = |name: &str, part: f64| {
                let (idle, busy) = (at(&idle, part), at(&busy, part));
                format!("{name} {idle:.0} us idle, {busy:.0} us busy, ratio {:.2}", busy / idle)
            };
            let line = format!(
                "round {round}: {}; {}; query still running: {still_running}\n",
                report("p50", 0.5),
                report("p99", 0.99)
            );
            let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
        }
    });
}
