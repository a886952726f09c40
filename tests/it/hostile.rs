//! Requests that would stop a server: each is refused, bounded or stopped, and the server answers the next one.

use crate::harness::{Sut, memory_with, numbers};
use std::time::{Duration, Instant};
use zepto_flight::ports::{Caller, ErrorKind, Limits, Query};

fn sut_with(limits: Limits) -> Sut {
    Sut::of(memory_with(limits), Vec::new())
}

fn sut() -> Sut {
    sut_with(Limits::default())
}

/// Far more than any of it takes, and far less than what it guards against.
const SOON: Duration = Duration::from_secs(60);

async fn refused(sut: &Sut, sql: &str, kinds: &[ErrorKind]) {
    let short: String = sql.chars().take(120).collect();
    let answer = tokio::time::timeout(SOON, sut.read(sql)).await;
    let error = answer.unwrap_or_else(|_| panic!("{short}: still at it")).map(|_| panic!("{short}")).unwrap_err();
    assert!(kinds.contains(&error.kind()), "{short}: {error}");
    assert!(error.message().len() < 10_000, "{short}");
    assert_eq!(sut.rows("SELECT 1").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_make_much_of_little_are_refused() {
    let sut = sut();
    let limit = [ErrorKind::LimitExceeded, ErrorKind::InvalidQuery];
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT length(repeat(repeat('x', 1000000), 1000000))",
        "SELECT replace(repeat('a', 100000000), 'a', 'bbbbbbbbbb') FROM generate_series(1, 60)",
        "SELECT lpad('x', 2000000000), rpad('x', 2000000000)",
        "SELECT array_resize([1], 2000000000, 0)",
        "SELECT array_repeat(1, 2000000000)",
        "SELECT array_repeat(array_repeat(1, 100000), 100000)",
        "SELECT range(0, 2000000000)",
        "SELECT generate_series(0, 2000000000)",
        "SELECT concat_ws(repeat('x', 1000000), repeat('a', 1000000), repeat('b', 1000000)) FROM generate_series(1, 100000)",
        "SELECT string_agg(repeat('y', 50000000), ',') FROM generate_series(1, 60)",
        "SELECT to_char(CAST('2024-01-01' AS TIMESTAMP), repeat('%Y', 50000000))",
        "SELECT regexp_replace(repeat('a', 10000000), 'a', repeat('b', 1000), 'g')",
        "SELECT overlay(repeat('x', 100000000) PLACING repeat('y', 100000000) FROM 1 FOR 1) FROM generate_series(1, 100)",
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
    ] {
        refused(&sut, sql, &limit).await;
    }
    refused(&sut, "SELECT version()", &[ErrorKind::Unsupported]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_joined_with_itself_does_not_double_for_ever() {
    let sut = sut();
    let doubled =
        (0..40).fold("SELECT repeat('x', 1000) AS x".to_owned(), |sql, _| format!("SELECT x || x AS x FROM ({sql})"));
    refused(&sut, &format!("SELECT length(x) FROM ({doubled})"), &[ErrorKind::LimitExceeded, ErrorKind::InvalidQuery])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parsing_ends() {
    let sut = sut();
    for open in ["CASE WHEN a THEN ", "CASE WHEN t.end THEN ", "(", "[", "NOT ", "- "] {
        for depth in [60, 1_000] {
            refused(&sut, &format!("SELECT {}", open.repeat(depth)), &[ErrorKind::InvalidQuery]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_doubles_at_each_level_is_refused_before_it_is_planned() {
    let sut = sut();
    let ctes: String =
        (1..30).map(|at| format!(", c{at} AS (SELECT * FROM c{0} UNION ALL SELECT * FROM c{0})", at - 1)).collect();
    refused(&sut, &format!("WITH c0 AS (SELECT 1 AS x){ctes} SELECT * FROM c29"), &[ErrorKind::InvalidQuery]).await;
    let nested =
        (0..30).fold("SELECT n AS x FROM t".to_owned(), |sql, _| format!("SELECT x * x + x AS x FROM ({sql})"));
    sut.define("CREATE TABLE t (n INT64)").await;
    refused(&sut, &nested, &[ErrorKind::InvalidQuery]).await;
    let between = (0..30).fold("n".to_owned(), |inner, _| format!("coalesce({inner}, n)"));
    refused(&sut, &format!("SELECT {between} FROM t"), &[ErrorKind::InvalidQuery]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_is_kept_by_what_never_yields() {
    let sut = sut_with(Limits { query_timeout_ms: 1_000, ..Limits::default() });
    sut.define("CREATE TABLE n AS SELECT value AS i FROM generate_series(1, 30000)").await;
    let slow = [
        "SELECT count(*) FROM n a, n b WHERE (a.i * b.i) % 7 = 3",
        "SELECT a.i FROM n a, n b, n c ORDER BY a.i + b.i + c.i LIMIT 5",
        "SELECT count(*) FROM n a JOIN n b ON a.i < b.i JOIN n c ON b.i < c.i",
    ];
    for sql in slow {
        let started = Instant::now();
        let error = sut.read(sql).await.map(|_| panic!("{sql}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{sql}: {error}");
        // A limit of a second, on a machine that may be busy.
        assert!(started.elapsed() < Duration::from_secs(20), "{sql}: {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_query_beside_large_ones_does_not_wait_for_them() {
    let sut = sut();
    sut.define("CREATE TABLE n AS SELECT value AS i FROM generate_series(1, 30000)").await;
    let large: Vec<_> = (0..4)
        .map(|_| {
            let query = sut.query.clone();
            tokio::spawn(async move {
                let sql = "SELECT count(*) FROM n a, n b, n c WHERE (a.i * b.i + c.i) % 7 = 3";
                let reply = query.query(Query::read(sql)).await?;
                reply.batches.collect().await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..5 {
        let small = tokio::time::timeout(Duration::from_secs(20), sut.rows("SELECT i FROM n WHERE i < 10")).await;
        assert_eq!(small.expect("they run for minutes"), 9);
    }
    large.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_have_a_most_of_columns_and_no_reserved_names() {
    let sut = sut();
    let columns: Vec<_> = (0..10_001).map(|at| format!("c{at} INT64")).collect();
    let error = sut.change(&format!("CREATE TABLE wide ({})", columns.join(", "))).await.unwrap_err();
    assert!(error.message().contains("columns_max"), "{error}");
    for name in ["__zepto_row", "__ZEPTO_target"] {
        assert!(sut.change(&format!("CREATE TABLE r (\"{name}\" INT64)")).await.is_err(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_of_what_is_gone_does_not_keep_new_rows_out() {
    let sut = sut_with(Limits { memory_bytes_max: 2 << 20, ..Limits::default() });
    sut.put("t", vec![numbers(0, 50_000)]).await.unwrap();
    let pinned = sut.query.snapshot(Caller::default()).await.unwrap();
    sut.define("DROP TABLE t").await;
    sut.put("t", vec![numbers(0, 50_000)]).await.unwrap();
    let query = Query { snapshot: Some(pinned), ..Query::read("SELECT count(*) FROM t") };
    let error = sut.query.query(query).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // What is there for good is not given up.
    let error = sut.put("more", vec![numbers(0, 400_000)]).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_functions_make_is_counted_together_until_it_is_read() {
    let sut = sut_with(Limits { query_memory_bytes_max: 150_000_000, ..Limits::default() });
    let columns: Vec<_> =
        (0..10).map(|at| format!("repeat(chr({}), CAST(3000 + x AS INT64)) AS c{at}", 33 + at)).collect();
    // Each of the columns would fit by itself.
    let sql = format!("SELECT {} FROM generate_series(1, 8192) g(x)", columns.join(", "));
    let error = match sut.query.query(Query::read(sql)).await {
        Err(error) => error,
        Ok(reply) => reply.batches.collect().await.unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert_eq!(sut.rows("SELECT repeat('x', CAST(3000 + x AS INT64)) FROM generate_series(1, 8192) g(x)").await, 8192);
    // Constants count together, too.
    let constants: Vec<_> = (0..16).map(|at| format!("repeat(chr({}), 8000000) AS c{at}", 33 + at)).collect();
    refused(&sut, &format!("SELECT {}", constants.join(", ")), &[ErrorKind::InvalidQuery]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_engine_are_nobody_elses() {
    let sut = sut();
    sut.define("CREATE TABLE b (px FLOAT64)").await;
    sut.count("INSERT INTO b VALUES (1.5)").await;
    for sql in
        ["DELETE FROM b WHERE \"__zepto_row\" < 1", "UPDATE b SET px = __zepto_row + 7", "SELECT __ZEPTO_row FROM b"]
    {
        assert_eq!(sut.change(sql).await.unwrap_err().kind(), ErrorKind::InvalidQuery, "{sql}");
    }
}
