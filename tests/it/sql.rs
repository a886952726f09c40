//! What was seen to go wrong with SQL engines, and does not here.

use crate::harness::{Sut, int, memory, numbers, one};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use std::sync::Arc;
use zepto_flight::ports::{Caller, ErrorKind, Part, Query};

fn sut() -> Sut {
    Sut::of(memory(), Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_reads_passes_for_a_read() {
    let sut = sut();
    sut.put("t", vec![numbers(0, 10)]).await.unwrap();
    for sql in [
        "INSERT INTO t VALUES (1, 1, 'x')",
        "DELETE FROM t",
        "UPDATE t SET n = 1",
        "TRUNCATE t",
        "CREATE TABLE u (a INT)",
        "CREATE TABLE u AS SELECT 1",
        "DROP TABLE t",
        "ALTER TABLE t DROP COLUMN n",
        "SELECT 1 AS a INTO u",
        "SELECT * FROM (SELECT 1 AS a INTO u)",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1, 1, 'x')",
        "EXPLAIN DELETE FROM t",
        "EXPLAIN ANALYZE DELETE FROM t",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 1.0, 'x'",
        "WITH x AS (DELETE FROM t RETURNING n) SELECT * FROM x",
        "COPY t TO '/tmp/zepto-should-not-exist.csv'",
        "COPY (SELECT 1) TO '/tmp/zepto-should-not-exist.csv'",
        "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE DATABASE d",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "BEGIN",
        "COMMIT",
        "USE t",
        "KILL 1",
        "MERGE INTO t USING t AS u ON t.n = u.n WHEN MATCHED THEN DELETE",
        "GRANT SELECT ON t TO me",
    ] {
        let error = sut.read(sql).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{sql}: {error}");
        assert_eq!(sut.rows("SELECT * FROM t").await, 10, "{sql}");
        assert_eq!(sut.query.tables(Caller::default()).await.unwrap().len(), 1, "{sql}");
    }
    for sql in ["SELECT * FROM '/etc/passwd'", "SELECT * FROM \"/etc/passwd\"", "SELECT * FROM read_csv('/etc/passwd')"]
    {
        let error = sut.read(sql).await.expect_err(sql);
        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidQuery), "{sql}: {error}");
    }
    assert!(!std::path::Path::new("/tmp/zepto-should-not-exist.csv").exists());
    for sql in ["SELECT * FROM t FOR UPDATE", "SELECT * FROM t FORMAT JSON", "SELECT * FROM t SETTINGS a = 1"] {
        let error = sut.read(sql).await.expect_err(sql);
        assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidQuery), "{sql}: {error}");
    }
    let explained = sut.read("EXPLAIN ANALYZE SELECT * FROM t").await.unwrap();
    assert!(one(&explained).num_rows() > 0);
}

/// One of `terms` many `term`s, joined.
fn chain(terms: usize, head: &str, term: &str, joint: &str) -> String {
    format!("{head}{}", vec![term; terms].join(joint))
}

#[tokio::test(flavor = "multi_thread")]
async fn long_flat_statements_are_refused_or_run_and_the_server_lives() {
    let sut = sut();
    sut.put("t", vec![numbers(0, 10)]).await.unwrap();
    let forms: [(&str, &str, &str); 12] = [
        ("SELECT ", "1", " + "),
        ("SELECT ", "n", " - "),
        ("SELECT * FROM t WHERE ", "n = 1", " OR "),
        ("SELECT * FROM t WHERE ", "n = half", " AND "),
        ("SELECT * FROM t WHERE ", "name LIKE 'x'", " OR NOT "),
        ("", "SELECT 1", " UNION ALL "),
        ("", "SELECT n FROM t", " UNION "),
        ("", "SELECT 1", " EXCEPT "),
        ("SELECT ", "'a'", " || "),
        ("SELECT 1", "::TEXT", ""),
        ("SELECT * FROM t ", "CROSS JOIN t", " "),
        ("SELECT 1 FROM ", "(SELECT 1)", ", "),
    ];
    for (head, term, joint) in forms {
        for terms in [5_000, 20_000] {
            let error = sut.read(&chain(terms, head, term, joint)).await.expect_err(head);
            assert!(matches!(error.kind(), ErrorKind::InvalidQuery | ErrorKind::Unsupported), "{term}{joint}: {error}");
        }
        // The most that the limits let through: an answer or an error, and a living server.
        let operators_each =
            term.matches("SELECT").count() + term.matches(['=', ':']).count() + term.matches(" LIKE").count();
        let joints = usize::from(!joint.trim().is_empty()) + joint.matches("NOT").count();
        let terms = 990 / (operators_each + joints).max(1);
        let _ = sut.read(&chain(terms, head, term, joint)).await;
        assert_eq!(sut.rows("SELECT 1").await, 1, "{term}{joint}");
    }
    let ctes: String = (1..5_000).map(|at| format!(", c{at} AS (SELECT * FROM c{})", at - 1)).collect();
    let error = sut.read(&format!("WITH c0 AS (SELECT 1){ctes} SELECT * FROM c4999")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidQuery);
    let ctes: String = (1..980).map(|at| format!(", c{at} AS (SELECT * FROM c{})", at - 1)).collect();
    let _ = sut.read(&format!("WITH c0 AS (SELECT 1){ctes} SELECT * FROM c979")).await;
    let values = vec!["(-1, 2.5, 'x')"; 20_000].join(", ");
    assert_eq!(sut.count(&format!("INSERT INTO t VALUES {values}")).await, 20_000);
    let list = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(sut.rows(&format!("SELECT * FROM t WHERE n IN ({list})")).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_statements_are_refused_and_the_server_lives() {
    let sut = sut();
    for (open, core, close) in [
        ("(", "1", ")"),
        ("abs(", "1", ")"),
        ("NOT ", "true", ""),
        ("- ", "1", ""),
        ("(SELECT ", "1", ")"),
        ("CASE WHEN true THEN ", "1", " END"),
        ("[", "1", "]"),
        ("CAST(", "1", " AS TEXT)"),
    ] {
        for depth in [100, 3_000, 50_000] {
            let sql = format!("SELECT {}{core}{}", open.repeat(depth), close.repeat(depth));
            match sut.read(&sql).await {
                Ok(_) => {
                    assert!(close.is_empty() && depth == 100, "{open} {depth}: signs and NOTs are counted as operators")
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{open}: {error}"),
            }
        }
        // Where something inside is wrong, sqlparser tries each level twice: that must stay a matter of moments.
        for core in ["1 1 1", "", "1 AS x", ") "] {
            let _ = sut.read(&format!("SELECT {}{core}", open.repeat(48))).await;
        }
        let _ = sut.read(&format!("SELECT {}{core}{}", open.repeat(8), close.repeat(8))).await;
    }
    assert_eq!(sut.rows("SELECT 1").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_would_fill_any_memory_are_refused() {
    let sut = sut();
    for sql in [
        "SELECT repeat('x', 1000000000000)",
        "SELECT lpad('x', 1000000000000)",
        "SELECT rpad('x', 1000000000000, 'ab')",
        "SELECT range(0, 1000000000000)",
        "SELECT range(0, 1000000000)",
        "SELECT range(TIMESTAMP '1970-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 nanosecond')",
        "SELECT repeat('x', 1000000000)",
        "SELECT sum(length(repeat('x', value * 1000000))) FROM generate_series(1, 100000)",
        "SELECT array_repeat('x', 2000000000)",
        "SELECT generate_series(0, 1000000000000)",
        "SELECT array_repeat(1, 1000000000000)",
        "SELECT array_resize([1], 1000000000000)",
        "SELECT space(1000000000000)",
    ] {
        assert!(sut.read(sql).await.is_err(), "{sql}");
        assert_eq!(sut.rows("SELECT 1").await, 1, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_leaves_nothing_out() {
    let sut = sut();
    sut.define("CREATE TABLE t (f FLOAT64, n INT64, s STRING)").await;
    for values in [
        "(1.0, 1, 'a'), (2.0, 2, 'b')",
        "('NaN', 3, NULL)",
        "(-0.0, NULL, 'zz')",
        "(NULL, NULL, NULL)",
        "('Infinity', 9, '')",
    ] {
        sut.count(&format!("INSERT INTO t VALUES {values}")).await;
    }
    // The same rows in one segment, where there is nothing to prune.
    sut.define("CREATE TABLE whole AS SELECT * FROM t ORDER BY n").await;
    for filter in [
        "f > 1.5",
        "f < 0.5",
        "f = 0.0",
        "f = CAST('NaN' AS FLOAT64)",
        "f >= CAST('Infinity' AS FLOAT64)",
        "f <> 1.0",
        "f IS NULL",
        "n BETWEEN 2 AND 3",
        "n IN (1, 9)",
        "n NOT IN (1, 9)",
        "s = 'zz'",
        "s LIKE 'z%'",
        "s > 'a'",
        "s IS NOT NULL",
        "n + 1 = 4",
        "n > 5 OR f < 1.5",
        "NOT (n > 2)",
        "n IS DISTINCT FROM 3",
        "coalesce(n, 7) = 7",
        "false",
        "true",
    ] {
        let count = |table: &str| format!("SELECT count(*) FROM {table} WHERE {filter}");
        let pruned = int(&sut.read(&count("t")).await.unwrap());
        assert_eq!(pruned, int(&sut.read(&count("whole")).await.unwrap()), "{filter}");
        let rows = sut.rows(&format!("SELECT * FROM t WHERE {filter}")).await;
        assert_eq!(rows as i64, pruned, "{filter}");
    }
    let plan = one(&sut.read("EXPLAIN SELECT * FROM t WHERE n > 5").await.unwrap());
    let text: String = plan.column(1).as_string::<i32>().iter().flatten().collect();
    assert!(text.contains("segments=1,"), "{text}");
    let plan = one(&sut.read("EXPLAIN SELECT * FROM t LIMIT 1").await.unwrap());
    let text: String = plan.column(1).as_string::<i32>().iter().flatten().collect();
    assert!(text.contains("segments=1, rows=1,"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_by_name_in_casts_and_times_that_move() {
    let sut = sut();
    let sql = "SELECT CAST('5' AS INT64), CAST(2 AS FLOAT32), CAST('x' AS SYMBOL), CAST('2024-01-01' AS TIMESTAMP_NS), 1::UINT64";
    let schema = sut.read(sql).await.unwrap()[0].schema();
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Float32", "Dictionary(Int32, Utf8)", "Timestamp(ns)", "UInt64"]);
    let now = "SELECT CAST(now() AS BIGINT)";
    let first = int(&sut.read(now).await.unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert!(int(&sut.read(now).await.unwrap()) > first, "now() stands still");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_of_select_works() {
    let sut = sut();
    sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    for (sql, rows) in [
        ("WITH RECURSIVE c AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM c WHERE x < 10) SELECT * FROM c", 10),
        ("SELECT n, rank() OVER (PARTITION BY n % 3 ORDER BY half DESC) FROM t", 100),
        ("SELECT n % 2 AS odd, sum(half) FROM t GROUP BY odd HAVING sum(half) > 0 ORDER BY odd", 2),
        ("SELECT a.n FROM t a LEFT ANTI JOIN t b ON a.n = b.n + 50", 50),
        ("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM t u WHERE u.n = t.n + 90)", 10),
        ("SELECT date_bin(INTERVAL '5 minutes', TIMESTAMP '2024-01-01 00:07:00')", 1),
        ("SELECT unnest(make_array(1, 2, 3))", 3),
        ("SELECT n FROM t INTERSECT SELECT n + 95 FROM t", 5),
        ("SELECT regexp_replace('abc', 'b', 'x'), md5('a'), encode('a', 'hex'), substr('abc', 2)", 1),
        ("SELECT * FROM generate_series(1, 5)", 5),
        ("SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY half) FROM t", 1),
    ] {
        let batches = sut.read(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), rows, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_while_a_table_changes() {
    let sut = sut();
    sut.put("t", vec![numbers(0, 50_000)]).await.unwrap();
    let appends = async {
        for at in 0..50 {
            sut.put("t", vec![numbers(1_000_000 + at * 10, 10)]).await.unwrap();
        }
    };
    let changes = async {
        let mut deleted = 0;
        for at in 0..10 {
            deleted +=
                sut.count(&format!("DELETE FROM t WHERE n < {} AND n >= {}", (at + 1) * 1_000, at * 1_000)).await;
            assert_eq!(
                sut.query.query(Query::change("UPDATE t SET half = 0 WHERE n = 40000")).await.unwrap().kind.as_str(),
                "change"
            );
        }
        deleted
    };
    let ((), deleted) = tokio::join!(appends, changes);
    assert_eq!(deleted, 10_000);
    assert_eq!(sut.rows("SELECT * FROM t").await, 40_000 + 500);
    assert_eq!(sut.rows("SELECT * FROM t WHERE n >= 1000000").await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_survive_their_table_being_replaced() {
    let sut = sut();
    for _ in 0..5 {
        sut.put("t", vec![numbers(0, 200_000)]).await.unwrap();
        let delete = |from: i64| {
            let sut = sut.clone();
            async move {
                // The table may be gone by then; what must not be is somebody else's rows.
                let sql = format!("DELETE FROM t WHERE n >= {from} AND n < {}", from + 1_000);
                if let Err(error) = sut.change(&sql).await {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                }
            }
        };
        let replace = async {
            sut.define("CREATE OR REPLACE TABLE t AS SELECT * FROM t WHERE n < 0").await;
            for at in 0..40 {
                sut.put("t", vec![numbers(1_000_000 + at * 10, 10)]).await.unwrap();
            }
        };
        tokio::join!(delete(0), delete(1_000), delete(2_000), replace, delete(3_000));
        assert_eq!(sut.rows("SELECT * FROM t WHERE n >= 1000000").await, 400);
        sut.define("DROP TABLE t").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_asked_for_their_size_still_work() {
    let sut = sut();
    for (sql, rows) in [
        ("SELECT unnest(range(5))", 5),
        ("SELECT unnest(generate_series(1, 10, 3))", 4),
        ("SELECT unnest(range(DATE '2024-01-01', DATE '2024-02-01', INTERVAL '1 day'))", 31),
        ("SELECT repeat('ab', 3), lpad('x', 5, '-'), rpad('x', 5), array_repeat(1, 3), array_resize([1], 3)", 1),
        ("SELECT repeat('x', value) FROM generate_series(1, 1000)", 1000),
        ("SELECT repeat(NULL, 3), range(NULL)", 1),
    ] {
        assert_eq!(sut.rows(sql).await, rows, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_slices_take_the_memory_of_slices() {
    let limits = zepto_flight::ports::Limits { memory_bytes_max: 100_000_000, ..Default::default() };
    let sut = Sut::of(crate::harness::memory_with(limits), Vec::new());
    sut.put("t", vec![numbers(0, 1_000_000)]).await.unwrap();
    sut.define("CREATE TABLE copy AS SELECT * FROM t").await;
    sut.define("CREATE TABLE one AS SELECT * FROM t LIMIT 1").await;
    let tables = sut.query.tables(Caller::default()).await.unwrap();
    let bytes = |name: &str| tables.iter().find(|table| table.name == name).unwrap().bytes.unwrap();
    assert!(bytes("copy") < 2 * bytes("t"), "{} for {}", bytes("copy"), bytes("t"));
    assert!(bytes("one") < 100_000, "{}", bytes("one"));
}

/// Rows are numbered in three ways once some are deleted: in memory, among those that are left, and in parts of an answer.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_are_nowhere_and_all_others_are_in_place() {
    let sut = Sut::in_process().await;
    let numbers = |range: std::ops::Range<i64>| {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)]).unwrap()
    };
    // One segment that loses few runs, one that loses many, one that loses all, one that loses nothing.
    let segments =
        vec![numbers(0..200_000), numbers(200_000..300_000), numbers(300_000..301_000), numbers(301_000..310_000)];
    sut.put("t", segments).await.unwrap();
    let mut model: Vec<i64> = (0..310_000).collect();
    let delete = async |sql: &str, model: &mut Vec<i64>, deleted: &dyn Fn(i64) -> bool| {
        let before = model.len();
        model.retain(|n| !deleted(*n));
        assert_eq!(sut.count(sql).await, (before - model.len()) as i64, "{sql}");
        let read = async |query: Query| {
            let batches = sut.query.query(query).await.unwrap().batches.collect().await.unwrap();
            let values = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
            batches.iter().flat_map(values).collect::<Vec<_>>()
        };
        assert!(read(Query::read("SELECT n FROM t")).await == *model, "{sql}");
        assert!(read(Query::read("SELECT n FROM t LIMIT 250000")).await == model[..model.len().min(250_000)], "{sql}");
        let snapshot = Some(sut.query.snapshot(Caller::default()).await.unwrap());
        let mut parts = Vec::new();
        for index in 0..7 {
            let part = Some(Part::new(index, 7).unwrap());
            parts.extend(read(Query { part, snapshot, ..Query::read("SELECT n FROM t") }).await);
        }
        assert!(parts == *model, "{sql}: in parts");
        assert_eq!(read(Query::read("SELECT count(*) FROM t")).await, [model.len() as i64]);
        let from = model[model.len() / 3];
        let filtered = read(Query::read(format!("SELECT n FROM t WHERE n >= {from} AND n < {from} + 1000"))).await;
        assert!(filtered == model.iter().copied().filter(|n| (from..from + 1000).contains(n)).collect::<Vec<_>>());
    };
    delete("DELETE FROM t WHERE n IN (0, 70000, 199999)", &mut model, &|n| [0, 70_000, 199_999].contains(&n)).await;
    delete("DELETE FROM t WHERE n >= 200000 AND n < 300000 AND n % 3 = 0", &mut model, &|n| {
        (200_000..300_000).contains(&n) && n % 3 == 0
    })
    .await;
    delete("DELETE FROM t WHERE n >= 300000 AND n < 301000", &mut model, &|n| (300_000..301_000).contains(&n)).await;
    delete("DELETE FROM t WHERE n < 100000 AND n % 5000 = 1", &mut model, &|n| n < 100_000 && n % 5_000 == 1).await;
    assert_eq!(sut.count("UPDATE t SET n = n + 1000000 WHERE n % 2 = 0").await as usize, {
        model.iter().filter(|n| *n % 2 == 0).count()
    });
    for n in &mut model {
        *n += if *n % 2 == 0 { 1_000_000 } else { 0 };
    }
    delete("DELETE FROM t WHERE n > 1300000 OR n < 50", &mut model, &|n| !(50..=1_300_000).contains(&n)).await;
}

/// IN chooses before FROM's joins run, where it has a condition of its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_in_chooses_is_joined_and_nothing_else() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE a AS SELECT value AS k, value % 3 AS g FROM generate_series(1, 30)").await;
    sut.define("CREATE TABLE b AS SELECT value % 30 + 1 AS k, value AS v FROM generate_series(1, 300)").await;
    let of = |condition: &str| {
        format!(
            "SELECT sum(v), count(*), count(DISTINCT a.k) FROM a JOIN b ON a.k = b.k JOIN (VALUES (0), (1)) AS c(g) ON a.g = c.g WHERE {condition}"
        )
    };
    let chosen = "SELECT k FROM b GROUP BY k HAVING sum(v) > 1600";
    let explained = sut.read(&format!("EXPLAIN {}", of(&format!("a.k IN ({chosen})")))).await.unwrap();
    let plan = explained[0].column(1).as_string::<i32>().value(0).to_owned();
    let (semi, inner) = (plan.find("LeftSemi Join").unwrap(), plan.find("Inner Join").unwrap());
    assert!(inner < semi, "{plan}");
    for (condition, same) in [
        (format!("a.k IN ({chosen})"), format!("EXISTS (SELECT 1 FROM ({chosen}) AS x WHERE x.k = a.k)")),
        (
            format!("a.k IN ({chosen}) AND b.k IN (SELECT k FROM a WHERE g = 1)"),
            format!("a.k IN (SELECT * FROM ({chosen})) AND a.g = 1"),
        ),
        ("b.v IN (SELECT k FROM a WHERE g = 0)".to_owned(), "b.v <= 30 AND b.v % 3 = 0".to_owned()),
        ("a.g IN (SELECT g FROM a WHERE k > 40)".to_owned(), "false".to_owned()),
    ] {
        let [one, other] = [condition, same].map(|condition| of(&condition));
        assert_eq!(
            format!("{:?}", sut.read(&one).await.unwrap()),
            format!("{:?}", sut.read(&other).await.unwrap()),
            "{one}"
        );
    }
}

/// However many cores look for rows, those leave in the order in which the tables hold them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_filter_lets_through_keep_their_order() {
    let sut = Sut::in_parts(3).await;
    sut.define("CREATE TABLE one AS SELECT value AS id, 'k' || (value % 50) AS k FROM generate_series(1, 20000)").await;
    sut.define("CREATE TABLE many AS SELECT value AS id, 'k' || (value % 50) AS k FROM generate_series(20001, 110000)")
        .await;
    for from in [110_001, 200_001] {
        sut.count(&format!(
            "INSERT INTO many SELECT value, 'k' || (value % 50) FROM generate_series({from}, {})",
            from + 89_999
        ))
        .await;
    }
    let explained = sut.read("EXPLAIN SELECT id + 0 FROM many WHERE id % 3 = 0").await.unwrap();
    let plan = explained[0].column(1).as_string::<i32>().value(1).to_owned();
    assert!(plan.contains("partitions=3"), "{plan}");
    for (sql, expected) in [
        ("SELECT id FROM many WHERE id % 3 = 0", 90_000),
        ("SELECT id FROM many WHERE k = 'k7'", 5_400),
        ("SELECT id * 1 FROM one UNION ALL SELECT id + 0 FROM many WHERE id % 7 < 6", 20_000 + 231_429),
        (
            "SELECT id FROM (SELECT id FROM one WHERE id % 2 = 0 UNION ALL SELECT id FROM many WHERE id % 2 = 0) WHERE id % 3 = 0",
            48_333,
        ),
        ("SELECT id FROM many WHERE id % 1000 = 1 LIMIT 200", 200),
        ("SELECT id FROM many WHERE id IN (SELECT id FROM many WHERE id % 3 = 0)", 90_000),
        ("SELECT id FROM many WHERE id > 30000 OR k IN (SELECT k FROM one WHERE id = 7)", 260_200),
        ("SELECT id, (SELECT max(o.k) FROM many AS o WHERE o.id = many.id) FROM many", 270_000),
        ("SELECT id FROM many WHERE id % 1000 = 1 LIMIT 100 OFFSET 150", 100),
    ] {
        for _ in 0..3 {
            let batches = sut.read(sql).await.unwrap();
            let ids: Vec<i64> = batches
                .iter()
                .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert!(ids.is_sorted(), "{sql}");
            assert_eq!(ids.len(), expected, "{sql}");
        }
    }
}
