//! Statements and what they answer: where DataFusion alone would say something else than SQL, or than was written.
//!
//! Each comes from a public report against a server or library; docs/design.md names them. The right answers are those of
//! PostgreSQL and DuckDB. What is refused is refused as `Unsupported`, never answered wrongly.

use crate::harness::{Sut, memory};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Float64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;
use zepto_flight::ports::ErrorKind;

/// The rows of an answer: values parted by commas, rows by bars.
async fn answer(sut: &Sut, sql: &str) -> String {
    let batches = sut.read(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            let values: Vec<_> = columns.iter().map(|column| column.value(row).to_string()).collect();
            values.join(",")
        }));
    }
    rows.join("|")
}

async fn tables() -> Sut {
    let sut = Sut::of(memory(), Vec::new());
    for sql in [
        "CREATE TABLE t (a INT64, ts TIMESTAMP_NS)",
        "INSERT INTO t VALUES (5, '2024-01-01T00:00:00'), (3, '2024-01-01T01:00:00'), (9, '2024-01-03T00:00:00'), \
         (1, '2024-01-03T00:00:01'), (7, '2024-01-04T00:00:02'), (2, '2024-01-04T00:00:03')",
        "CREATE TABLE nulls (id INT64)",
        "INSERT INTO nulls VALUES (1), (NULL)",
        "CREATE TABLE few (id INT64)",
        "INSERT INTO few VALUES (1), (2), (3)",
        "CREATE TABLE d (d DECIMAL(12,4), n INT64)",
        "INSERT INTO d VALUES ('1.2345', 1), ('2.0000', NULL), ('0.5000', 3)",
        "CREATE TABLE far (s TIMESTAMP_S, ms TIMESTAMP_MS)",
        "INSERT INTO far VALUES ('9999-12-31T00:00:00', '9999-12-31T00:00:00'), ('2024-01-01T00:00:01', '2024-01-01T00:00:01')",
    ] {
        sut.define(sql).await;
    }
    sut
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_and_units_of_time_lose_nothing() {
    let sut = tables().await;
    for (sql, right) in [
        // A column that a filter makes constant, by which a window is parted.
        ("SELECT avg(a) OVER (PARTITION BY a ROWS 2 PRECEDING) AS m FROM t WHERE a = 5", "5.0"),
        ("SELECT sum(n) OVER (PARTITION BY n ORDER BY d ROWS 2 PRECEDING) AS m FROM d WHERE n = 3 AND d > 0", "3"),
        // Spans that are finer than the unit of the time that they are added to.
        (
            "SELECT CAST(s + INTERVAL '1 millisecond' AS VARCHAR) FROM far WHERE ms < '2025-01-01'",
            "2024-01-01T00:00:01.001",
        ),
        (
            "SELECT CAST(ms - INTERVAL '1 nanosecond' AS VARCHAR) FROM far WHERE ms < '2025-01-01'",
            "2024-01-01T00:00:00.999999999",
        ),
        (
            "SELECT CAST(INTERVAL '1500 milliseconds' + s AS VARCHAR) FROM far WHERE ms > '2025-01-01'",
            "9999-12-31T00:00:01.500",
        ),
        ("SELECT CAST(s + INTERVAL '2 seconds' AS VARCHAR) FROM far WHERE ms < '2025-01-01'", "2024-01-01T00:00:03"),
        // ZeptoDB's LIKE: over the digits of a number, and the nanoseconds of a time.
        ("SELECT n FROM d WHERE n LIKE '_' AND n NOT LIKE '1%'", "3"),
        ("SELECT a FROM t WHERE ts LIKE '1704067200%'", "5"),
        // Windows that move past a NaN, an infinity and a number that drowns the others.
        (
            "SELECT max(s) FROM (SELECT id, sum(v) OVER (ORDER BY id ROWS 1 PRECEDING) AS s FROM (VALUES (1, 1e17), (2, 1.0), (3, 1.0), \
             (4, 'NaN'::DOUBLE), (5, 1.0), (6, 1.0), (7, 'Infinity'::DOUBLE), (8, 1.0), (9, 2.0)) t(id, v)) WHERE id IN (3, 6)",
            "2.0",
        ),
        (
            "SELECT avg(v) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM (VALUES (1, '-Infinity'::DOUBLE), \
             (2, 3.0), (3, 5.0)) t(id, v) ORDER BY id DESC LIMIT 1",
            "4.0",
        ),
        // Times that nanoseconds do not reach, beside columns that hold them.
        ("SELECT count(*) FROM far WHERE s < '9999-12-31'", "1"),
        ("SELECT count(*) FROM far WHERE ms >= TIMESTAMP '9999-12-31 00:00:00'", "1"),
        ("SELECT count(*) FROM far WHERE '9999-12-31' >= s", "2"),
        ("SELECT count(*) FROM far WHERE s BETWEEN '0001-01-01' AND '9999-12-31'", "2"),
        ("SELECT count(*) FROM far WHERE s BETWEEN '2024-01-01T00:00:00.5' AND '2024-01-01T00:00:01.5'", "1"),
        ("SELECT count(*) FROM far WHERE ms = '2024-01-01T00:00:01'", "1"),
        ("SELECT count(*) FROM far WHERE s < '2024-01-01T00:00:01.5' AND s > '2024-01-01T00:00:00.5'", "1"),
        (
            "SELECT count(*) FROM far WHERE ms > '2024-01-01T00:00:01.0005' AND ms < TIMESTAMP '9999-12-30 00:00:00'",
            "0",
        ),
        ("SELECT count(*) FROM far WHERE s = '2024-01-01T00:00:01.5'", "0"),
        ("SELECT count(*) FROM far WHERE s IN ('2024-01-01T00:00:01.5', '2024-01-01T00:00:02')", "0"),
        ("SELECT count(*) FROM (SELECT DATE '2024-01-01' AS d) WHERE d < TIMESTAMP '2024-01-01 12:00:00'", "1"),
        (
            "SELECT count(*) FROM (SELECT d FROM (VALUES (DATE '2024-01-01')) v(d)) WHERE d = TIMESTAMP '2024-01-01 12:00:00'",
            "0",
        ),
    ] {
        assert_eq!(answer(&sut, sql).await, right, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_sql() {
    let sut = tables().await;
    for (sql, right) in [
        // sqlparser 2436, datafusion 23692: IS DISTINCT FROM binds like IS.
        ("SELECT true IS DISTINCT FROM true AND false", "false"),
        ("SELECT count(*) FROM t WHERE a IS DISTINCT FROM 3 AND a < 5", "2"),
        // datafusion 25135: a year that nanoseconds cannot hold.
        ("SELECT count(*) FROM t WHERE extract(year FROM ts) < 9999", "6"),
        ("SELECT count(*) FROM t WHERE date_part('year', ts) <> 9999", "6"),
        ("SELECT count(*) FROM t WHERE extract(year FROM ts) BETWEEN 1 AND 9999", "6"),
        ("SELECT count(*) FROM t WHERE extract(year FROM ts) = 2024", "6"),
        // datafusion 25414: a field read beside a computation.
        (
            "SELECT a, s['b'] FROM (SELECT -a AS a, s FROM (SELECT 1 AS a, named_struct('b','x') AS s) LIMIT 10) q",
            "-1,x",
        ),
        // datafusion 24958, 25378: a limit under an order.
        ("SELECT * FROM (SELECT a FROM t LIMIT 4 OFFSET 1) ORDER BY a", "1|3|7|9"),
        ("SELECT * FROM (SELECT a FROM t LIMIT 3) ORDER BY a", "3|5|9"),
        ("SELECT a, row_number() OVER (ORDER BY a) FROM (SELECT a FROM t LIMIT 3 OFFSET 2) ORDER BY a", "1,1|7,2|9,3"),
        ("SELECT * FROM (SELECT a FROM t ORDER BY a DESC LIMIT 2) ORDER BY a", "7|9"),
        // datafusion 8468: spans of time compare by their length.
        (
            "SELECT count(*) FROM (SELECT ts - lag(ts) OVER (ORDER BY ts) AS gap FROM t) WHERE gap > INTERVAL '1 day'",
            "2",
        ),
        (
            "SELECT count(*) FROM (SELECT ts - lag(ts) OVER (ORDER BY ts) AS gap FROM t) WHERE gap < INTERVAL '1 day'",
            "3",
        ),
        ("SELECT INTERVAL '24 hours' = INTERVAL '1 day', INTERVAL '1 day' < INTERVAL '25 hours'", "true,true"),
        // datafusion 24915: windows over spans of time.
        ("SELECT row_number() OVER (ORDER BY x) FROM (VALUES (interval '1 day'), (interval '2 days')) t(x)", "1|2"),
        // datafusion 25340: NOT IN and NULL, where it is answered.
        ("SELECT count(*) FROM few WHERE id NOT IN (SELECT id FROM nulls)", "0"),
        ("SELECT count(*) FROM few WHERE NOT (id IN (SELECT id FROM nulls))", "0"),
        ("SELECT count(*) FROM few WHERE id NOT IN (SELECT id FROM nulls WHERE id IS NOT NULL)", "2"),
        // datafusion 23095: a cast that loses something, compared with a constant.
        ("SELECT count(*) FROM d WHERE CAST(d AS INT) = 1", "1"),
        ("SELECT count(*) FROM d WHERE CAST(d AS BIGINT) IN (1, 2)", "2"),
        ("SELECT count(*) FROM d WHERE CAST(d AS DECIMAL(12,2)) = 1.23", "1"),
        // datafusion 24246: two lists and NULL.
        ("SELECT count(*) FROM d WHERE n NOT IN (1, 2) OR n NOT IN (3, 4)", "2"),
        // NaN is one value, above all numbers.
        ("SELECT CAST(0.0 AS DOUBLE) / CAST(0.0 AS DOUBLE) > 1, CAST('NaN' AS DOUBLE) > 1", "true,true"),
        (
            "SELECT count(DISTINCT x) FROM (VALUES (CAST(0.0 AS DOUBLE) / CAST(0.0 AS DOUBLE)), (CAST('NaN' AS DOUBLE))) t(x)",
            "1",
        ),
        // Sums of decimals are wide until they are handed out.
        ("SELECT sum(x) FROM (VALUES (CAST(1.5 AS DECIMAL(10,2))), (CAST(2.25 AS DECIMAL(10,2)))) t(x)", "3.75"),
        ("SELECT sum(a), sum(DISTINCT a), sum(a) OVER () FROM t GROUP BY a ORDER BY 1 LIMIT 1", "1,1,27"),
        // Names are looked for where they are in scope.
        ("SELECT A FROM (SELECT a AS a FROM few, t WHERE id = 1 AND a = 9)", "9"),
        ("SELECT 7 AS a FROM few ORDER BY a LIMIT 1", "7"),
        // Digits are kept as they were written.
        ("SELECT 1234567890123456789012345.678", "1234567890123456789012345.678"),
    ] {
        assert_eq!(answer(&sut, sql).await, right, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_overflows_is_an_error() {
    let sut = tables().await;
    for sql in [
        "SELECT 9223372036854775807 + a FROM t",
        "SELECT -9223372036854775807 - a FROM t",
        "SELECT 9223372036854775807 * a FROM t",
        "SELECT sum(x) FROM (VALUES (9223372036854775807), (1)) t(x)",
        "SELECT sum(x) OVER () FROM (VALUES (9223372036854775807), (1)) t(x)",
        "SELECT sum(a * f) FROM (SELECT CAST(9007199254740991 AS DECIMAL(38,10)) AS a, CAST(0.99 AS DECIMAL(38,10)) AS f \
         FROM generate_series(1, 200)) t",
        "SELECT CAST(99999999999999999999999999999999999999 AS DECIMAL(38,0)) + n FROM d",
    ] {
        let error = sut.read(sql).await.map(|rows| panic!("{sql}: {rows:?}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_answered_wrongly_is_refused() {
    let sut = tables().await;
    for sql in [
        "SELECT * FROM few WHERE 3 NOT IN (SELECT id FROM nulls)",
        "SELECT * FROM few WHERE id = 99 OR id NOT IN (SELECT id FROM nulls)",
        "SELECT * FROM few WHERE EXISTS (SELECT max(a) FROM t WHERE t.a = few.id)",
        "SELECT * FROM few WHERE 0 IN (SELECT count(*) FROM t WHERE t.a = few.id)",
        "SELECT id FROM few FULL JOIN nulls USING (id)",
        "SELECT id FROM few RIGHT JOIN nulls USING (id)",
        "SELECT id FROM few EXCEPT ALL SELECT id FROM nulls",
        "SELECT * FROM t FINAL",
        "SELECT * FROM t TABLESAMPLE SYSTEM (10)",
        "SELECT a FROM t FOR UPDATE",
    ] {
        let error = sut.read(sql).await.map(|rows| panic!("{sql}: {rows:?}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_keep_every_digit_or_refuse() {
    let sut = tables().await;
    sut.define("CREATE TABLE exact (n INT64, d DECIMAL(10,2), f FLOAT64)").await;
    for values in ["1.5, NULL, NULL", "NULL, 1.005, NULL", "NULL, NULL, 9007199254740993", "NULL, '1.005', NULL"] {
        let sql = format!("INSERT INTO exact VALUES ({values})");
        assert!(sut.change(&sql).await.is_err(), "{sql}");
    }
    assert_eq!(sut.count("INSERT INTO exact VALUES (2.0, 1.00, 9007199254740992)").await, 1);
    assert!(sut.change("UPDATE exact SET n = 2.7").await.is_err());
    assert_eq!(answer(&sut, "SELECT * FROM exact").await, "2,1.00,9007199254740992.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_without_a_place_are_refused() {
    use zepto_flight::ports::Query;
    let sut = tables().await;
    let one = crate::harness::numbers(1, 1);
    for (sql, columns, fits) in
        [("SELECT $1", vec![0], true), ("SELECT $1", vec![0, 1], false), ("SELECT 1", vec![0], false)]
    {
        let query = Query { params: Some(one.project(&columns).unwrap()), ..Query::read(sql) };
        assert_eq!(sut.query.query(query).await.is_ok(), fits, "{sql} with {columns:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_guards_those_after_it() {
    let sut = tables().await;
    for (sql, rows) in [
        ("SELECT x FROM (VALUES (1, 1), (4, 0)) t(x, y) WHERE y <> 0 AND x / y >= 1", 1),
        ("SELECT x FROM (VALUES (1, 1), (4, 0)) t(x, y) WHERE y <> 0 AND x % y = 0 AND x > 0", 1),
        (
            "SELECT x FROM (VALUES (4, 1, 0), (4, 0, 1), (4, 1, 1)) t(x, y, z) WHERE y <> 0 AND x / y > 1 AND z <> 0 AND x / z > 1",
            1,
        ),
        ("SELECT x FROM (VALUES ('1', true), ('x', false)) t(x, y) WHERE y AND CAST(x AS INT64) = 1", 1),
        ("SELECT y FROM (VALUES (9223372036854775807, 1), (4, 0)) t(x, y) WHERE x < 10 AND x + 9 > 1 LIMIT 5", 1),
    ] {
        assert_eq!(sut.rows(sql).await, rows, "{sql}");
    }
    // However many there are.
    let guards: Vec<_> = (1..=12).map(|n| format!("y <> {} AND x / (y - {}) < 100", n - 1, n - 1)).collect();
    let many = format!("SELECT x FROM (VALUES (1, 20), (2, 0), (3, 11)) t(x, y) WHERE {}", guards.join(" AND "));
    assert_eq!(sut.rows(&many).await, 1);
    // Nothing stands before this one.
    let unguarded = "SELECT x FROM (VALUES (1, 1), (4, 0)) t(x, y) WHERE x / y >= 1 AND y <> 0";
    assert_eq!(sut.read(unguarded).await.unwrap_err().kind(), ErrorKind::InvalidQuery);
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_nans_are_one_value_and_infinity_is_an_extreme() {
    let sut = Sut::of(memory(), Vec::new());
    let values = vec![-f64::NAN, f64::INFINITY, f64::NAN, 1.0, -f64::NAN, f64::NEG_INFINITY];
    let groups: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 0, 2, 2, 3]));
    let stored: ArrayRef = Arc::new(Float64Array::from(values.clone()));
    let batch = RecordBatch::try_from_iter([("g", groups), ("f", stored)]).unwrap();
    sut.put("t", vec![batch]).await.unwrap();
    let bits = |batches: &[RecordBatch], column: usize| {
        let bits = |batch: &RecordBatch| {
            batch.column(column).as_primitive::<Float64Type>().values().iter().map(|f| f.to_bits()).collect::<Vec<_>>()
        };
        batches.iter().flat_map(bits).collect::<Vec<_>>()
    };
    let stored = bits(&sut.read("SELECT f FROM t").await.unwrap(), 0);
    assert_eq!(stored, values.iter().map(|f| f.to_bits()).collect::<Vec<_>>(), "what is stored keeps its bits");
    for (sql, rows) in [
        ("SELECT DISTINCT f FROM t", 4),
        ("SELECT f FROM t WHERE f > 100", 4),
        ("SELECT f FROM t WHERE f < 0", 1),
        ("SELECT a.f FROM t a JOIN t b ON a.f = b.f", 9 + 3),
        ("SELECT f, count(*) FROM t GROUP BY f", 4),
    ] {
        assert_eq!(sut.rows(sql).await, rows, "{sql}");
    }
    let sorted = bits(&sut.read("SELECT f FROM t ORDER BY f").await.unwrap(), 0);
    assert_eq!(sorted[..3], [f64::NEG_INFINITY, 1.0, f64::INFINITY].map(f64::to_bits));
    let extremes = sut.read("SELECT min(f), max(f) FROM t GROUP BY g ORDER BY g").await.unwrap();
    assert_eq!(bits(&extremes, 0), [f64::NAN, f64::INFINITY, 1.0, f64::NEG_INFINITY].map(f64::to_bits));
    assert_eq!(bits(&extremes, 1), [f64::NAN, f64::INFINITY, f64::NAN, f64::NEG_INFINITY].map(f64::to_bits));
    let all = sut.read("SELECT min(f), max(f) FROM t").await.unwrap();
    assert_eq!((bits(&all, 0), bits(&all, 1)), (vec![f64::NEG_INFINITY.to_bits()], vec![f64::NAN.to_bits()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_with_a_point_are_compared_with_decimals_as_they_were_written() {
    let sut = Sut::of(memory(), Vec::new());
    sut.define("CREATE TABLE d (p DECIMAL(18,4), q DECIMAL(38,20))").await;
    sut.count("INSERT INTO d VALUES ('1234567.89', '123456.789'), ('98765.4321', '0.1')").await;
    for sql in [
        "SELECT p FROM d WHERE p = 1234567.89",
        "SELECT p FROM d WHERE p IN (98765.4321, 5.5)",
        "SELECT p FROM d WHERE p BETWEEN 98765.4321 AND 98765.4321",
        "SELECT p FROM d WHERE q = 123456.789",
        "SELECT p FROM d WHERE CAST(123456.789 AS DECIMAL(38,20)) = q",
    ] {
        assert_eq!(sut.rows(sql).await, 1, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_to_be_wrong_is_refused_by_name() {
    let sut = Sut::of(memory(), Vec::new());
    sut.define("CREATE TABLE t AS SELECT value AS i FROM generate_series(1, 4)").await;
    for sql in [
        "SELECT i FROM t WHERE i >= ALL (SELECT i FROM t)",
        "SELECT i FROM t WHERE i = ANY (SELECT i FROM t)",
        "SELECT i FROM t WHERE (i IN (SELECT i FROM t)) IS NULL",
        "SELECT i FROM t WHERE coalesce(i IN (SELECT i FROM t), true)",
        "SELECT 'abc' SIMILAR TO 'b'",
        "SELECT * FROM t z LEFT JOIN t a USING (i)",
        "SELECT * FROM (t z LEFT JOIN t a USING (i))",
        "SELECT * FROM (t b JOIN t c USING (i)) LEFT JOIN t a USING (i)",
        "SELECT count(*) FROM t WHERE random() BETWEEN 0.6 AND 0.5",
        "VALUES ((SELECT 1))",
        "SELECT sum(1) OVER (ORDER BY k RANGE INTERVAL '1 day' PRECEDING) FROM (SELECT INTERVAL '1 day' AS k)",
    ] {
        let error = sut.read(sql).await.map(|_| panic!("{sql}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}: {error}");
    }
    assert_eq!(sut.rows("SELECT * FROM t a LEFT JOIN t b USING (i)").await, 4);
    assert_eq!(sut.rows("SELECT i FROM t z LEFT JOIN t a USING (i)").await, 4);
    assert_eq!(sut.rows("SELECT i FROM t WHERE i IN (SELECT i FROM t WHERE i > 2) OR i = 1").await, 3);
    assert_eq!(sut.rows("SELECT x FROM (SELECT CAST('NaN' AS FLOAT64) AS x) WHERE -x > 0 AND -x = x").await, 1);
}
