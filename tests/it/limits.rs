//! Every limit is kept, and named in the error that it makes.

use crate::harness::{Sut, memory_with, numbers};
use futures::StreamExt;
use zepto_flight::ports::{ErrorKind, Limits, Query};

fn sut(limits: Limits) -> Sut {
    Sut::of(memory_with(limits), Vec::new())
}

async fn check(limits: Limits, sql: &str, kind: ErrorKind, name: &str) {
    let sut = sut(limits);
    let _ = sut.put("t", vec![numbers(0, 100_000)]).await;
    let error = match sut.query.query(Query::change(sql)).await {
        Err(error) => error,
        Ok(reply) => reply.batches.collect().await.expect_err(sql),
    };
    assert_eq!(error.kind(), kind, "{sql}: {error}");
    assert!(error.message().contains(name), "{name}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_statements() {
    let d = Limits::default;
    let nested = format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60));
    let (invalid, limit) = (ErrorKind::InvalidQuery, ErrorKind::LimitExceeded);
    check(Limits { sql_bytes_max: 10, ..d() }, "SELECT 1 + 1 + 1", invalid, "sql_bytes_max").await;
    check(Limits { sql_operators_max: 2, ..d() }, "SELECT 1 + 1 + 1", invalid, "sql_operators_max").await;
    check(d(), &nested, invalid, "sql_depth_max").await;
    check(Limits { tables_max: 1, ..d() }, "CREATE TABLE u (a INT)", limit, "tables_max").await;
    let sort = "SELECT * FROM t AS a JOIN t AS b ON a.n = b.n + 1 ORDER BY a.half, b.name";
    check(Limits { query_memory_bytes_max: 1_000_000, ..d() }, sort, limit, "query_memory_bytes_max").await;
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) a WHERE a.value % 7 = 8";
    check(Limits { query_timeout_ms: 200, ..d() }, endless, ErrorKind::Timeout, "query_timeout_ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_ingestion() {
    let d = Limits::default;
    for (limits, name) in [
        (Limits { stream_rows_max: 150, ..d() }, "stream_rows_max"),
        (Limits { stream_bytes_max: 4_000, ..d() }, "stream_bytes_max"),
        (Limits { memory_bytes_max: 4_000, ..d() }, "memory_bytes_max"),
    ] {
        let sut = sut(limits);
        let error = sut.put("t", vec![numbers(0, 100), numbers(0, 100)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{name}");
        assert!(error.message().contains(name), "{error}");
        assert!(sut.query.tables().await.unwrap().is_empty());
        sut.put("t", vec![numbers(0, 50)])
            .await
            .unwrap_or_else(|error| panic!("{name}: memory was not given back: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_what_was_deleted_is_given_back() {
    let sut = sut(Limits { memory_bytes_max: 10_000_000, ..Limits::default() });
    for _ in 0..20 {
        sut.put("t", vec![numbers(0, 100_000)]).await.unwrap();
        assert_eq!(sut.count("DELETE FROM t WHERE n < 50000").await, 50_000);
        sut.define("DROP TABLE t").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_concurrency_and_patience() {
    let limits = Limits { query_concurrency_max: 1, stall_timeout_ms: 300, ..Limits::default() };
    let sut = sut(limits);
    sut.put("t", (0..20).map(|at| numbers(at * 50_000, 50_000)).collect()).await.unwrap();
    let mut first = sut.query.query(Query::read("SELECT * FROM t")).await.unwrap().batches;
    first.next().await.unwrap().unwrap();
    let refused = sut.query.query(Query::read("SELECT 1")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert!(refused.message().contains("query_concurrency_max"), "{refused}");
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    let mut stalled = None;
    while let Some(batch) = first.next().await {
        stalled = batch.err();
    }
    let stalled = stalled.expect("a reader that does not read is cut off");
    assert_eq!(stalled.kind(), ErrorKind::Timeout);
    assert!(stalled.message().contains("stall_timeout_ms"), "{stalled}");
    sut.rows("SELECT 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_holds_the_query_and_little_memory() {
    let sut = sut(Limits::default());
    let reply = sut.query.query(Query::read("SELECT * FROM generate_series(1, 1000000000000)")).await.unwrap();
    let mut batches = reply.batches;
    for _ in 0..3 {
        batches.next().await.unwrap().unwrap();
    }
    drop(batches);
    assert_eq!(sut.rows("SELECT 1").await, 1);
}
