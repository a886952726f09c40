//! Every limit is kept, and named in the error that it makes.

use crate::harness::{Served, Sut, connect, memory, memory_with, numbers, serve_flight, serve_http};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zepto_flight::adapters::clock::SystemClock;
use zepto_flight::adapters::memory::MemoryJournal;
use zepto_flight::domain::{Engine, EngineOptions, Foundation, PlanCounts};
use zepto_flight::ports::{Append, BatchStream, Caller, ErrorKind, Limits, MemoryAccount, Query, QueryPort};

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
        assert!(sut.query.tables(Caller::default()).await.unwrap().is_empty());
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
async fn changes_take_memory_only_for_what_is_new() {
    // A table that takes most of the memory there is.
    let sut = sut(Limits { memory_bytes_max: 9_400_000, ..Limits::default() });
    let wide = |from: i64| {
        let column = |add: i64| Arc::new(Int64Array::from_iter_values(from + add..from + add + 100_000)) as ArrayRef;
        RecordBatch::try_from_iter([("a", column(0)), ("b", column(1)), ("c", column(2)), ("d", column(3))]).unwrap()
    };
    sut.put("t", vec![wide(0), wide(100_000)]).await.unwrap();
    sut.put("t", vec![wide(0)]).await.expect_err("there is no room for half as much again");
    assert_eq!(sut.count("DELETE FROM t WHERE a % 1000 = 0").await, 200);
    assert_eq!(sut.count("UPDATE t SET a = -1 WHERE a = 7").await, 1);
    sut.define("ALTER TABLE t RENAME COLUMN b TO e").await;
    sut.define("ALTER TABLE t ADD COLUMN f INT8").await;
    sut.define("ALTER TABLE t DROP COLUMN c").await;
    assert_eq!(sut.rows("SELECT a FROM t WHERE e > 0 AND f IS NULL").await, 199_800);
    assert_eq!(sut.count("DELETE FROM t WHERE a % 2 = 0").await, 99_800);
    // What is half deleted is copied soon, and gives back what it held.
    for _ in 0..100 {
        if sut.put("t2", vec![wide(0), wide(0)]).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the memory of deleted rows was not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_concurrency_and_patience() {
    let limits = Limits { query_concurrency_max: 1, stall_timeout_ms: 300, ..Limits::default() };
    let sut = sut(limits);
    sut.put("t", (0..20).map(|at| numbers(at * 50_000, 50_000)).collect()).await.unwrap();
    let mut first = sut.query.query(Query::read("SELECT * FROM t")).await.unwrap().batches;
    first.next().await.unwrap().unwrap();
    // A reader that does not read computes nothing, and keeps nobody out.
    sut.rows("SELECT 1").await;
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) a WHERE a.value % 7 = 8";
    let (query, computing) = (sut.query.clone(), Query::read(endless));
    let computing = tokio::spawn(async move { query.query(computing).await });
    while sut.query.query(Query::read("SELECT 1")).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = sut.query.query(Query::read("SELECT 1")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert!(refused.message().contains("query_concurrency_max"), "{refused}");
    computing.abort();
    tokio::time::sleep(Duration::from_millis(900)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_waits_for_its_place() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    for Served { url, guard: _guard } in
        [serve_flight(memory(), limits.clone()).await, serve_http(memory(), limits.clone()).await]
    {
        let address = url.split_once("://").unwrap().1;
        let idle = TcpStream::connect(address).await.unwrap();
        let client = connect(&url);
        let mut waiting = client.query.query(Query::read("SELECT 1"));
        assert!(timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "{url}");
        drop(idle);
        timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_kept_up_to_their_number_and_never_past_their_moment() {
    let limits = Limits { plans_max: 2, ..Limits::default() };
    let runtime = tokio::runtime::Handle::current();
    let options = EngineOptions { limits, create_tables: true, ..EngineOptions::default() };
    let foundation = Foundation { journal: Arc::new(MemoryJournal), store: None, clock: Arc::new(SystemClock) };
    let engine = Engine::open(runtime, options, MemoryAccount::default(), foundation).unwrap();
    let ask = |sql: &'static str| {
        let engine = engine.clone();
        async move { engine.query(Query::read(sql)).await.unwrap().batches.collect().await.unwrap() }
    };
    let counts = |hits, misses| PlanCounts { hits, misses };
    for sql in ["SELECT 1", "SELECT 1", "SELECT 2", "SELECT 1", "SELECT 3", "SELECT 1"] {
        ask(sql).await;
    }
    assert_eq!(engine.plan_counts(), counts(3, 3));
    ask("SELECT 2").await;
    assert_eq!(engine.plan_counts(), counts(3, 4), "the least recently used had given way");
    let now = "SELECT CAST(now() AS STRING) AS n";
    let first = ask(now).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_ne!(ask(now).await, first);
    assert_eq!(engine.plan_counts(), counts(3, 6));
    for _ in 0..2 {
        ask("SELECT repeat('x', 1000000)").await;
    }
    assert_eq!(engine.plan_counts(), counts(3, 8), "what the optimiser has computed may be large, and is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_that_has_staged_too_much_stops_nobody() {
    let sut = sut(Limits { staged_bytes_max: 1_000, ..Limits::default() });
    let ingest = sut.ingest.clone();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let batches = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let batches = BatchStream::new(numbers(0, 1).schema(), batches.map(Ok));
    let append = Append { table: "a".into(), ..Append::default() };
    let silent = tokio::spawn(async move { ingest.append(append, batches).await });
    for _ in 0..3 {
        sender.send(numbers(0, 1_000)).await.unwrap();
    }
    assert_eq!(sut.put("b", vec![numbers(0, 1_000), numbers(0, 1_000)]).await.unwrap().rows, 2_000);
    drop(sender);
    assert_eq!(silent.await.unwrap().unwrap().rows, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rows_of_parameters_share_the_time_of_one_statement() {
    let sut = sut(Limits { query_timeout_ms: 200, ..Limits::default() });
    sut.put("t", vec![numbers(0, 1_000)]).await.unwrap();
    let params = numbers(0, 10_000).project(&[0]).ok();
    let query = Query { params, ..Query::change("UPDATE t SET n = n WHERE n = $1") };
    let error = sut.query.query(query).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_where_nothing_is_computed_and_nobody_reads() {
    let sut = sut(Limits::default());
    sut.put("t", (0..20).map(|at| numbers(at * 50_000, 50_000)).collect()).await.unwrap();
    let query = Query::read("SELECT * FROM t").within_ms(Some(300));
    let mut batches = sut.query.query(query).await.unwrap().batches;
    batches.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut last = None;
    while let Some(batch) = batches.next().await {
        last = batch.err();
    }
    assert_eq!(last.expect("the deadline has passed").kind(), ErrorKind::Timeout);
}
