//! What changes and definitions do.

use crate::harness::{Sut, int, numbers, one};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use zepto_flight::ports::{Caller, ErrorKind, Query, StatementKind};

async fn values(sut: &Sut, sql: &str) -> Vec<Option<i64>> {
    let batches = sut.read(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    batches.iter().flat_map(column).collect()
}

async fn refused(sut: &Sut, sql: &str, kind: ErrorKind) {
    match sut.change(sql).await {
        Ok(_) => panic!("{sql} went through"),
        Err(error) => assert_eq!(error.kind(), kind, "{sql}: {error}"),
    }
}

pub async fn tables_come_and_go(sut: Sut) {
    sut.define("CREATE TABLE a (x INT64 NOT NULL, y SYMBOL, z TIMESTAMP_NS, f FLOAT32)").await;
    sut.define("CREATE TABLE IF NOT EXISTS a (other INT)").await;
    refused(&sut, "CREATE TABLE a (x INT)", ErrorKind::AlreadyExists).await;
    sut.define("CREATE TABLE b AS SELECT 1 AS n, CAST(2 AS FLOAT64) AS f UNION ALL SELECT 3, 4").await;
    let tables = sut.query.tables(Caller::default()).await.unwrap();
    let names: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
    assert_eq!(names, [("a", Some(0)), ("b", Some(2))]);
    for listed in &tables {
        let table = sut.query.table(listed.name.clone(), Caller::default()).await.unwrap();
        assert_eq!(table, *listed);
    }
    let missing = sut.query.table("no*ne".into(), Caller::default()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(tables[0].schema.field(2).data_type().to_string(), "Timestamp(ns)");
    assert!(!tables[0].schema.field(0).is_nullable() && tables[1].bytes > Some(0));
    let described = one(&sut.read("DESCRIBE a").await.unwrap());
    let types: Vec<_> = described.column(1).as_string::<i32>().iter().flatten().collect();
    assert_eq!(types, ["INT64", "SYMBOL", "TIMESTAMP_NS", "FLOAT32"]);
    let shown = one(&sut.read("SHOW TABLES").await.unwrap());
    assert_eq!(shown.schema().field(1).name(), "rows");
    refused(&sut, "DROP TABLE a, nope", ErrorKind::NotFound).await;
    assert_eq!(sut.query.tables(Caller::default()).await.unwrap().len(), 2, "all or none");
    sut.define("DROP TABLE IF EXISTS a, nope").await;
    sut.define("CREATE OR REPLACE TABLE b (n INT64)").await;
    assert_eq!(sut.rows("SELECT * FROM b").await, 0);
    for sql in [
        "CREATE TABLE c (x INT64 PRIMARY KEY)",
        "CREATE TABLE c (x INT64 DEFAULT 5)",
        "CREATE TEMPORARY TABLE c (x INT64)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION '/etc/passwd'",
    ] {
        let error = sut.change(sql).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidQuery), "{sql}: {error}");
    }
    refused(&sut, "CREATE TABLE c (x INT64, x INT64)", ErrorKind::InvalidQuery).await;
    refused(&sut, "CREATE TABLE c (x GEOGRAPHY)", ErrorKind::InvalidQuery).await;
    assert_eq!(sut.query.tables(Caller::default()).await.unwrap().len(), 1);
}

pub async fn rows_are_inserted(sut: Sut) {
    sut.define("CREATE TABLE t (n INT64 NOT NULL, f FLOAT64, s SYMBOL, at TIMESTAMP)").await;
    assert_eq!(
        sut.count("INSERT INTO t VALUES (1, 2, 'x', '2024-01-02T03:04:05.000000006'), (-2, NULL, NULL, NULL)").await,
        2
    );
    assert_eq!(sut.count("INSERT INTO t (s, n) SELECT 'y', n * 10 FROM t").await, 2);
    assert_eq!(values(&sut, "SELECT n FROM t").await, [1, -2, 10, -20].map(Some));
    assert_eq!(sut.rows("SELECT 1 FROM t WHERE at = TIMESTAMP '2024-01-02 03:04:05.000000006'").await, 1);
    let schema = sut.read("SELECT s FROM t").await.unwrap()[0].schema();
    assert!(matches!(schema.field(0).data_type(), DataType::Dictionary(..)));
    for (sql, kind) in [
        ("INSERT INTO t (f) VALUES (1)", ErrorKind::SchemaMismatch),
        ("INSERT INTO t VALUES (1)", ErrorKind::InvalidQuery),
        ("INSERT INTO t (n, n) VALUES (1, 2)", ErrorKind::InvalidQuery),
        ("INSERT INTO t (n, f) VALUES (5, 1), (6, 'no number')", ErrorKind::InvalidQuery),
        ("INSERT INTO t (nope) VALUES (1)", ErrorKind::InvalidQuery),
        ("INSERT INTO nope VALUES (1)", ErrorKind::NotFound),
        ("INSERT INTO t (n) SELECT n FROM t RETURNING n", ErrorKind::Unsupported),
    ] {
        refused(&sut, sql, kind).await;
    }
    assert_eq!(sut.rows("SELECT * FROM t").await, 4, "what was refused left nothing");
}

pub async fn rows_are_deleted_where_true(sut: Sut) {
    sut.put("t", (0..3).map(|at| numbers(at * 10, 10)).collect()).await.unwrap();
    // `name` is null for every fifth row: the predicate is not true there, and the row stays.
    assert_eq!(sut.count("DELETE FROM t WHERE name <> 'row 1'").await, 23);
    assert_eq!(values(&sut, "SELECT n FROM t").await, [0, 1, 5, 10, 15, 20, 25].map(Some));
    assert_eq!(sut.count("DELETE FROM t WHERE false").await, 0);
    assert_eq!(sut.count("DELETE FROM t AS x WHERE x.n IN (SELECT n FROM t WHERE n > 12)").await, 3);
    assert_eq!(values(&sut, "SELECT n FROM t").await, [0, 1, 5, 10].map(Some));
    assert_eq!(sut.count("DELETE FROM t WHERE n NOT IN (SELECT * FROM (SELECT n FROM t WHERE n > 0))").await, 1);
    assert_eq!(sut.count("DELETE FROM T WHERE N = (SELECT max(n) FROM t)").await, 1);
    assert_eq!(sut.count("DELETE FROM t").await, 2);
    assert_eq!(sut.count("TRUNCATE TABLE t").await, 0);
    for (sql, kind) in [
        ("DELETE FROM nope", ErrorKind::NotFound),
        ("DELETE FROM t WHERE nope = 1", ErrorKind::InvalidQuery),
        ("DELETE FROM t USING t AS u WHERE t.n = u.n", ErrorKind::Unsupported),
        ("DELETE FROM t WHERE n = 1 LIMIT 1", ErrorKind::Unsupported),
    ] {
        refused(&sut, sql, kind).await;
    }
    assert_eq!(sut.count("TRUNCATE t").await, 0);
}

pub async fn rows_are_updated(sut: Sut) {
    sut.put("t", (0..3).map(|at| numbers(at * 10, 10)).collect()).await.unwrap();
    assert_eq!(sut.count("UPDATE t SET n = n + 100, half = NULL WHERE n % 10 = 3").await, 3);
    let expected: Vec<_> = (0..30).map(|n| Some(if n % 10 == 3 { n + 100 } else { n })).collect();
    assert_eq!(values(&sut, "SELECT n FROM t").await, expected, "order stays");
    assert_eq!(sut.rows("SELECT 1 FROM t WHERE half IS NULL").await, 3);
    assert_eq!(sut.count("UPDATE t SET n = 0 WHERE false").await, 0);
    assert_eq!(
        sut.count("UPDATE t AS x SET n = (SELECT min(n) FROM t) WHERE x.n IN (SELECT n FROM t WHERE n > 100)").await,
        3
    );
    // Both sides see the values of before.
    assert_eq!(sut.count("UPDATE t SET half = n, n = CAST(half AS INT64) WHERE n = 20").await, 1);
    let swapped = one(&sut.read("SELECT n, half FROM t WHERE half = 20").await.unwrap());
    assert_eq!(swapped.column(0).as_primitive::<Int64Type>().value(0), 10);
    assert_eq!(sut.count("UPDATE t SET name = 'all'").await, 30);
    for (sql, kind) in [
        ("UPDATE t SET n = 'x'", ErrorKind::SchemaMismatch),
        ("UPDATE t SET nope = 1", ErrorKind::InvalidQuery),
        ("UPDATE t SET n = 1, n = 2", ErrorKind::InvalidQuery),
        ("UPDATE nope SET n = 1", ErrorKind::NotFound),
        ("UPDATE t SET n = 1 FROM t AS u", ErrorKind::Unsupported),
    ] {
        refused(&sut, sql, kind).await;
    }
}

pub async fn columns_come_go_and_change_names(sut: Sut) {
    sut.put("t", vec![numbers(0, 3), numbers(3, 3)]).await.unwrap();
    sut.define("ALTER TABLE t ADD COLUMN extra INT64, DROP COLUMN half").await;
    sut.define("ALTER TABLE t RENAME COLUMN n TO Number").await;
    let all = one(&sut.read("SELECT * FROM t").await.unwrap());
    let names: Vec<_> = all.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["Number", "name", "extra"]);
    assert_eq!(all.column(2).null_count(), 6);
    assert_eq!(sut.count("UPDATE t SET extra = number * 2").await, 6);
    assert_eq!(int(&sut.read("SELECT sum(extra) FROM t").await.unwrap()), 30);
    for (sql, kind) in [
        ("ALTER TABLE t ADD COLUMN name INT", ErrorKind::AlreadyExists),
        ("ALTER TABLE t ADD COLUMN must INT NOT NULL", ErrorKind::SchemaMismatch),
        ("ALTER TABLE t DROP COLUMN nope", ErrorKind::InvalidQuery),
        ("ALTER TABLE t RENAME COLUMN name TO extra", ErrorKind::AlreadyExists),
        ("ALTER TABLE t DROP COLUMN number, DROP COLUMN name, DROP COLUMN extra", ErrorKind::InvalidQuery),
        ("ALTER TABLE nope ADD COLUMN a INT", ErrorKind::NotFound),
        ("ALTER TABLE t RENAME TO u", ErrorKind::Unsupported),
    ] {
        refused(&sut, sql, kind).await;
    }
    sut.define("ALTER TABLE t DROP COLUMN IF EXISTS nope, ADD COLUMN IF NOT EXISTS name INT").await;
    assert_eq!(sut.rows("SELECT * FROM t").await, 6);
}

pub async fn definitions_answer_nothing(sut: Sut) {
    let reply = sut.change("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    assert_eq!(reply.kind, StatementKind::Definition);
    assert_eq!(reply.batches.schema().fields().len(), 0);
    assert!(reply.batches.collect().await.unwrap().is_empty());
    // The change runs once, however often its answer is asked for.
    let reply = sut.change("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!((reply.kind, reply.batches.schema().field(0).name().as_str()), (StatementKind::Change, "inserted"));
    drop(reply);
    assert_eq!(sut.rows("SELECT * FROM t").await, 2);
    let read = sut.query.query(Query::change("SELECT * FROM t")).await.unwrap();
    assert_eq!(read.kind, StatementKind::Read);
}

pub async fn subqueries_in_changes_see_one_state(sut: Sut) {
    sut.put("t", vec![numbers(0, 1_000)]).await.unwrap();
    assert_eq!(sut.count("INSERT INTO t SELECT * FROM t").await, 1_000);
    assert_eq!(sut.count("DELETE FROM t WHERE n > (SELECT avg(n) FROM t)").await, 1_000);
    assert_eq!(sut.count("UPDATE t SET n = n + (SELECT count(*) FROM t)").await, 1_000);
    assert_eq!(int(&sut.read("SELECT min(n) FROM t").await.unwrap()), 1_000);
}
