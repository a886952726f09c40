//! Time-series SQL against answers that other systems computed: DuckDB, pandas, Polars and ClickHouse, as each case says.
//!
//! Every case runs over every path, and with its rows cut into segments of 1, 2 and 3 rows; those whose answer does not depend on
//! the order in which rows arrived also with their rows shuffled.

mod both_ways;
mod exact;

use crate::harness::{Sut, int};
use crate::timeseries::both_ways::{plan_of, same};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use serde_json::Value;
use std::sync::Arc;

/// Cases in which rows of equal time are told apart by which came first.
const BY_ARRIVAL: &[&str] = &[
    "asof-ties-strict-last-arrival",
    "asof-ties-forward-first-arrival",
    "asof-late-arrival-corrects",
    "latest-on",
    "latest-on-then-filter",
    "lt-join-equal-times",
];

struct Case {
    id: String,
    tables: Vec<(String, RecordBatch)>,
    sql: String,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

fn cases() -> Vec<Case> {
    include_str!("cases.jsonl").lines().map(case).collect()
}

fn case(line: &str) -> Case {
    let case: Value = serde_json::from_str(line).unwrap();
    // Columns in the order in which they are written, which the parsed form does not keep.
    let place = |table: &str, column: &str| {
        let from = line.find(&format!("\"table\": \"{table}\"")).unwrap();
        line[from..].find(&format!("\"{column}\": {{\"type\"")).unwrap()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tables = case["setup"].as_array().unwrap().iter().map(|table| {
        let name = text(&table["table"]);
        let mut columns: Vec<_> = table["columns"].as_object().unwrap().iter().collect();
        columns.sort_by_key(|(column, _)| place(&name, column));
        let columns = columns.into_iter().map(|(name, column)| (name.as_str(), column_of(column), true));
        (name, RecordBatch::try_from_iter_with_nullable(columns).unwrap())
    });
    Case {
        id: text(&case["id"]),
        tables: tables.collect(),
        sql: text(&case["sql"]),
        columns: case["expected"]["columns"].as_array().unwrap().iter().map(text).collect(),
        rows: case["expected"]["rows"].as_array().unwrap().iter().map(|row| row.as_array().unwrap().clone()).collect(),
    }
}

fn column_of(column: &Value) -> ArrayRef {
    let values = column["values"].as_array().unwrap();
    let texts = || values.iter().map(Value::as_str);
    let nanoseconds = || texts().map(|text| text.map(|text| string_to_timestamp_nanos(text).unwrap()));
    match column["type"].as_str().unwrap() {
        "INT64" => Arc::new(values.iter().map(Value::as_i64).collect::<Int64Array>()),
        "FLOAT64" => Arc::new(values.iter().map(Value::as_f64).collect::<Float64Array>()),
        "STRING" => Arc::new(texts().collect::<StringArray>()),
        "SYMBOL" => {
            let symbols = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            cast(&texts().collect::<StringArray>(), &symbols).unwrap()
        }
        "TIMESTAMP_NS" => Arc::new(nanoseconds().collect::<TimestampNanosecondArray>()),
        "TIMESTAMP_US" => {
            let microseconds = nanoseconds().map(|ns| ns.map(|ns| ns.div_euclid(1_000)));
            Arc::new(microseconds.collect::<TimestampMicrosecondArray>())
        }
        "TIMESTAMPTZ" => Arc::new(nanoseconds().collect::<TimestampNanosecondArray>().with_timezone("UTC")),
        other => panic!("{other}"),
    }
}

/// How the rows of a case arrive.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    Whole,
    Cut(usize),
    Shuffled,
}

async fn run(sut: &Sut, case: &Case, arrival: Arrival) -> Result<(), String> {
    for (name, batch) in &case.tables {
        let rows = batch.num_rows();
        let pieces = match arrival {
            Arrival::Whole => vec![batch.clone()],
            Arrival::Cut(size) => {
                (0..rows.max(1)).step_by(size).map(|from| batch.slice(from, size.min(rows - from))).collect()
            }
            Arrival::Shuffled => {
                let mut order: Vec<u64> = (0..rows as u64).collect();
                order.sort_by_key(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
                vec![take_record_batch(batch, &UInt64Array::from(order)).unwrap()]
            }
        };
        // Each stream is a segment of its own.
        for piece in pieces {
            sut.put(name, vec![piece]).await.unwrap();
        }
    }
    let answer = sut.read(&case.sql).await;
    let checked = match answer {
        Ok(batches) => check(case, &batches, &format!("{} {arrival:?}", case.id)),
        Err(error) => Err(format!("{} {arrival:?}: {error}\n {}", case.id, case.sql)),
    };
    for (name, _) in &case.tables {
        sut.define(&format!("DROP TABLE {name}")).await;
    }
    checked
}

fn check(case: &Case, batches: &[RecordBatch], what: &str) -> Result<(), String> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for batch in batches {
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        if names != case.columns {
            return Err(format!("{what}: columns {names:?}, expected {:?}", case.columns));
        }
        rows.extend((0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect()));
    }
    let mut expected: Vec<Vec<Value>> = case.rows.iter().map(|row| row.iter().map(normal).collect()).collect();
    if !case.sql.contains("ORDER BY") {
        for rows in [&mut rows, &mut expected] {
            rows.sort_by_key(|row| format!("{row:?}"));
        }
    }
    let same = rows.len() == expected.len()
        && rows.iter().zip(&expected).all(|(row, expected)| row.iter().zip(expected).all(|(a, b)| equal(a, b)));
    if same { Ok(()) } else { Err(format!("{what}: {}\n answered {rows:?}\n expected {expected:?}", case.sql)) }
}

fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Timestamp(_, zone) => {
            let ns = cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())).unwrap();
            Value::from(ns.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Duration(_) => {
            Value::from(cast(column, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(row))
        }
        known if known.is_integer() => {
            Value::from(cast(column, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(row))
        }
        known if known.is_numeric() => {
            Value::from(cast(column, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(row))
        }
        _ => Value::from(cast(column, &DataType::Utf8).unwrap().as_string::<i32>().value(row)),
    }
}

/// Makes times of a case their nanoseconds.
fn normal(value: &Value) -> Value {
    match value.as_str().filter(|text| text.len() >= 29).and_then(|text| string_to_timestamp_nanos(text).ok()) {
        Some(ns) => Value::from(ns),
        None => value.clone(),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_i64(), b.as_i64(), a.as_f64(), b.as_f64()) {
        (Some(a), Some(b), ..) => a == b,
        (_, _, Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-300),
        _ => a == b,
    }
}

async fn run_all(sut: Sut, arrivals: &[Arrival]) {
    let mut failed = Vec::new();
    for case in cases() {
        for arrival in arrivals {
            let by_arrival = BY_ARRIVAL.contains(&case.id.as_str());
            if !(by_arrival && matches!(arrival, Arrival::Shuffled)) {
                failed.extend(run(&sut, &case, *arrival).await.err());
            }
        }
    }
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_answers_in_process_however_rows_arrive() {
    let arrivals = [Arrival::Whole, Arrival::Cut(1), Arrival::Cut(2), Arrival::Cut(3), Arrival::Shuffled];
    run_all(Sut::in_process().await, &arrivals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_answers_in_several_parts() {
    for partitions in [2, 8] {
        run_all(Sut::in_parts(partitions).await, &[Arrival::Cut(1), Arrival::Cut(3), Arrival::Shuffled]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_answers_over_flight() {
    run_all(Sut::flight().await, &[Arrival::Whole]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_answers_over_http() {
    run_all(Sut::http().await, &[Arrival::Whole]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_answers_through_a_gateway() {
    run_all(Sut::gateway().await, &[Arrival::Whole]).await;
}

/// Every example of docs/sql.md.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_documentation_run() {
    let sut = Sut::in_process().await;
    sut.define(
        "CREATE TABLE trades AS SELECT CASE WHEN value % 2 = 0 THEN 'A' ELSE 'B' END AS symbol, \
         to_timestamp_nanos(1704187800000000000 + value * 180000000000) AS timestamp, 10.0 + value AS price, value AS volume, value AS id \
         FROM generate_series(1, 30)",
    )
    .await;
    sut.define("CREATE TABLE quotes AS SELECT symbol, timestamp - INTERVAL '1 second' AS timestamp, price - 0.1 AS bid, price + 0.1 AS ask FROM trades").await;
    let text = include_str!("../../../docs/sql.md");
    let examples = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sql\n"));
    let mut count = 0;
    for sql in examples.flat_map(|block| block.split(';')).filter(|sql| !sql.trim().is_empty()) {
        let answer = sut.read(sql).await;
        assert!(answer.is_ok_and(|batches| batches.iter().any(|batch| batch.num_rows() > 0)), "{sql}");
        count += 1;
    }
    assert!(count > 40, "{count} examples");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbol_column_may_hold_nothing_but_nulls() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE t (k SYMBOL, ts TIMESTAMP, v DOUBLE)").await;
    sut.change("INSERT INTO t VALUES (NULL, '2026-01-01', 1), (NULL, '2026-01-02', 2)").await.unwrap();
    for (sql, answer) in [
        ("SELECT k, sum(v) AS v FROM t GROUP BY k", 3.0),
        ("SELECT sum(v) FROM (SELECT * FROM t LATEST ON ts PARTITION BY k)", 2.0),
        ("SELECT count(b.v) + 0.0 FROM t a ASOF JOIN t b ON (k)", 0.0),
        ("SELECT max(e) FROM (SELECT ema(v, 1.0) OVER (PARTITION BY k ORDER BY ts) AS e FROM t)", 2.0),
    ] {
        let batches = sut.read(sql).await.unwrap();
        let column = batches[0].columns().last().unwrap().as_primitive::<Float64Type>();
        assert_eq!(column.value(0), answer, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clause_cannot_say_is_refused_by_name() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE t (k VARCHAR, ts TIMESTAMP, v DOUBLE)").await;
    for (sql, text) in [
        ("SELECT ema(v, 20) FROM t", "ema is a window function"),
        ("SELECT vwap(v) FROM t", "vwap takes two numbers"),
        ("SELECT date_bin_gapfill(INTERVAL '1 s', ts) FROM t", "date_bin_gapfill fills gaps only where GROUP BY"),
        ("SELECT a.v FROM t a ASOF JOIN t b MATCH_CONDITION (a.ts = b.ts) ON a.k = b.k", "takes one inequality"),
        ("SELECT a.v FROM t a SPLICE JOIN t b ON a.k = b.k AND a.ts > b.ts", "a SPLICE JOIN joins by"),
        ("SELECT v FROM t ORDER BY v WITH FILL INTERPOLATE", "INTERPOLATE"),
        ("SELECT v FROM t ORDER BY v WITH FILL STEP 0", "above 0"),
        ("SELECT v FROM t ORDER BY v DESC WITH FILL STEP 1", "below 0"),
        ("SELECT v FROM t ORDER BY v WITH FILL, k", "the last of ORDER BY"),
        ("SELECT v FROM t ORDER BY v + 1 WITH FILL", "give v + 1 a name"),
        ("SELECT k FROM t ORDER BY k WITH FILL", "not Utf8"),
        (
            "SELECT ts, count() AS n FROM t SAMPLE BY 1h FILL(NULL) ALIGN TO FIRST OBSERVATION",
            "takes no FROM, TO or FILL",
        ),
        ("SELECT ts, count() AS n FROM t SAMPLE BY 1M ALIGN TO FIRST OBSERVATION", "months have no fixed length"),
    ] {
        let error = sut.read(sql).await.map(|_| ()).expect_err(sql);
        assert!(error.message().contains(text), "{sql}: {}", error.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_rows_come_in_their_order_whatever_the_batches() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE t (k VARCHAR, n BIGINT, d DATE, v DOUBLE)").await;
    sut.change("INSERT INTO t VALUES ('a', 1, '2024-01-31', 0.5), ('a', 30000, '2024-03-31', NULL), ('b', NULL, NULL, 2), ('b', 7, '2024-01-31', 1)")
        .await
        .unwrap();
    for (sql, answer) in [
        // Batches have 8,192 rows; the gap is longer.
        ("SELECT count(*) FROM (SELECT n FROM t WHERE k = 'a' ORDER BY n WITH FILL)", 30_000),
        ("SELECT sum(n) FROM (SELECT n FROM t WHERE k = 'a' ORDER BY n WITH FILL)", 450_015_000),
        ("SELECT count(*) FROM (SELECT k, n FROM t ORDER BY k, n WITH FILL FROM 5 TO 9)", 11),
        ("SELECT count(*) FROM (SELECT n FROM t WHERE k = 'a' ORDER BY n DESC WITH FILL TO -2 STEP -3)", 10_002),
        ("SELECT count(*) FROM (SELECT d FROM t WHERE k = 'a' ORDER BY d WITH FILL STEP INTERVAL '1 month')", 4),
        ("SELECT count(*) FROM (SELECT v FROM t ORDER BY v WITH FILL FROM 0 TO 2 STEP 0.1)", 22),
        ("SELECT count(*) FROM (SELECT n AS x, v FROM t ORDER BY x WITH FILL LIMIT 10)", 10),
    ] {
        assert_eq!(int(&sut.read(sql).await.unwrap()), answer, "{sql}");
    }
    let batches = sut.read("SELECT k, n FROM t WHERE k = 'b' ORDER BY k, n WITH FILL FROM 6 TO 9").await.unwrap();
    let numbers: Vec<_> =
        batches.iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect();
    assert_eq!(numbers, [Some(6), Some(7), Some(8), None], "NULL is the largest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_both_sides_finds_what_a_search_finds() {
    let sut = Sut::in_process().await;
    let rows =
        "SELECT value AS id, arrow_cast(1700000000000000000 + value * 1000 + value % 7 * 90, 'Timestamp(ns)') AS t,
        CASE value % 11 WHEN 0 THEN NULL ELSE 'S' || (value * 7919 % 101) END AS k, value * 0.5 AS v";
    sut.define(&format!("CREATE TABLE b AS {rows} FROM generate_series(1, 150000) WHERE value % 3 > 0")).await;
    sut.define(&format!("CREATE TABLE a AS {rows} FROM generate_series(1, 150000)")).await;
    // The same rows, in another order: nothing can be walked over.
    sut.define("CREATE TABLE c AS SELECT * FROM a ORDER BY id % 1000, id").await;
    sut.define("CREATE TABLE d AS SELECT * FROM b ORDER BY id % 1000, id").await;
    for condition in [
        "ON x.k = y.k AND x.t >= y.t",
        "ON x.k = y.k AND x.t > y.t",
        "ON x.t > y.t",
        "ON x.k = y.k AND x.t >= y.t AND y.t >= x.t - 100000",
        "ON x.k = y.k AND x.t >= y.t AND x.v > 100 AND y.v > 50",
        "ON x.k IS NOT DISTINCT FROM y.k AND x.t >= y.t",
    ] {
        for kind in ["ASOF JOIN", "ASOF LEFT JOIN"] {
            let sum = |left: &str, right: &str| {
                let sums =
                    "count(*) AS n, count(y.id) AS m, sum(x.id) AS l, sum(y.id) AS r, sum(x.id % 997 * y.id) AS both";
                format!("SELECT {sums} FROM {left} x {kind} {right} y {condition}")
            };
            for (left, right) in [("c", "d"), ("a", "d"), ("c", "b")] {
                same(&sut, &sum("a", "b"), &sum(left, right)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_rows_of_segments_answer_for_all_of_them() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE t (k VARCHAR, t TIMESTAMP, n BIGINT)").await;
    let insert = async |from: i64, order: &str| {
        let rows = format!(
            "SELECT CASE value % 6 WHEN 5 THEN NULL ELSE 'S' || (value % 6) END, arrow_cast(value, 'Timestamp(ns)'), value
             FROM generate_series({from}, {}) {order}",
            from + 99
        );
        sut.change(&format!("INSERT INTO t {rows}")).await.unwrap();
    };
    insert(1_000, "").await;
    insert(5_000, "ORDER BY value DESC").await;
    insert(3_000, "").await;
    let latest = "SELECT k, n FROM t LATEST ON t PARTITION BY k";
    let by_hand = "SELECT k, n FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY t DESC) = 1";
    let check = async || {
        same(&sut, &format!("{latest} ORDER BY k"), &format!("{by_hand} ORDER BY k")).await;
        same(&sut, "SELECT DISTINCT k FROM t ORDER BY k", "SELECT k FROM t GROUP BY k HAVING count(*) > 0 ORDER BY k")
            .await;
        same(&sut, "SELECT DISTINCT k, 7 AS n FROM t ORDER BY k", "SELECT k, min(7) AS n FROM t GROUP BY k ORDER BY k")
            .await;
    };
    check().await;
    let plan = plan_of(&sut, &format!("EXPLAIN {latest}")).await;
    let symbols = plan_of(&sut, "EXPLAIN SELECT DISTINCT k, 7 AS n FROM t").await;
    assert!(symbols.contains("rows=6"), "one row of each symbol: {symbols}");
    assert!(plan.contains("rows=112"), "6 rows of two segments and 100 of the one out of order: {plan}");
    sut.change("CREATE TABLE ordered AS SELECT k, t, n FROM t WHERE n < 2000").await.unwrap();
    sut.change("INSERT INTO ordered SELECT k, t, n FROM t WHERE n >= 3000 AND n < 4000 AND (k <> 'S2' OR k IS NULL)")
        .await
        .unwrap();
    let latest_in_order = latest.replace("FROM t", "FROM ordered");
    same(
        &sut,
        &format!("{latest_in_order} ORDER BY k"),
        &format!("{} ORDER BY k", by_hand.replace("FROM t", "FROM ordered")),
    )
    .await;
    let plan = plan_of(&sut, &format!("EXPLAIN {latest_in_order}")).await;
    assert!(plan.contains("segments=2, rows=6"), "of a table in order the last segment that has a symbol: {plan}");
    let between = "t > '1970-01-01T00:00:00.000001050' AND t < '1970-01-01T00:00:00.000001051'";
    assert_eq!(sut.rows(&format!("SELECT ema(n, 3) OVER (PARTITION BY k ORDER BY t) FROM t WHERE {between}")).await, 0);
    sut.change("DELETE FROM t WHERE n >= 5095 OR k = 'S1'").await.unwrap();
    check().await;
    // Rows between two times, where a segment is in their order.
    for bounds in [
        "t >= '1970-01-01T00:00:00.000001010' AND t < '1970-01-01T00:00:00.000003020'",
        "t > arrow_cast(3050, 'Timestamp(ns)')",
    ] {
        same(
            &sut,
            &format!("SELECT count(*), sum(n) FROM t WHERE {bounds}"),
            &format!("SELECT count(*), sum(n) FROM t WHERE ({bounds}) IS TRUE"),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_by_time_stand_wherever_a_relation_may() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE t (id BIGINT, k VARCHAR, ts TIMESTAMP, v DOUBLE)").await;
    sut.define("CREATE TABLE q (k VARCHAR, ts TIMESTAMP, w DOUBLE)").await;
    sut.change("INSERT INTO t VALUES (1,'a','2026-01-01T00:00:01',1), (2,'b','2026-01-01T00:00:02',2), (3,'a','2026-01-01T00:00:03',3), (4,'b','2026-01-01T00:00:04',4)").await.unwrap();
    sut.change("INSERT INTO q VALUES ('a','2026-01-01T00:00:00',10), ('b','2026-01-01T00:00:01',20), ('a','2026-01-01T00:00:02',30)").await.unwrap();
    let asof = "t ASOF JOIN q ON t.k = q.k AND t.ts >= q.ts";
    let window = "t WINDOW JOIN q ON t.k = q.k AND q.ts BETWEEN t.ts - INTERVAL '2 s' AND t.ts";
    for (sql, answer) in [
        (format!("SELECT sum(r) FROM (SELECT rank() OVER (PARTITION BY t.k ORDER BY t.ts) AS r FROM {asof})"), 6),
        (format!("SELECT count(*) FROM (SELECT ema(q.w, 3) OVER (ORDER BY t.ts) AS e FROM {asof} ORDER BY t.ts)"), 4),
        (format!("SELECT sum(s)::BIGINT FROM (SELECT sum(n) OVER (ORDER BY id) AS s FROM (SELECT t.id, count(q.w) AS n FROM {window}))"), 9),
        ("SELECT count(*) FROM (SELECT * FROM t SPLICE JOIN q ON (k) ORDER BY t.id, q.w)".to_owned(), 7),
        (format!("SELECT count(*) FROM (SELECT t.id, q.w FROM {asof} UNION ALL SELECT id, v FROM t ORDER BY 1, 2)"), 8),
        (format!("SELECT count(*) FILTER (WHERE first > 0) FROM (SELECT t.k, first_value(q.w ORDER BY t.ts) AS first FROM {asof} GROUP BY t.k)"), 2),
        ("SELECT sum(n) FROM (SELECT t.id, count(*) FILTER (WHERE q.w > 15) AS n FROM t WINDOW JOIN q ON (k) RANGE BETWEEN 2s PRECEDING AND 5s FOLLOWING)".to_owned(), 4),
        ("SELECT count(q.w) FROM t ASOF JOIN q ON t.k IS NOT DISTINCT FROM q.k AND t.ts >= q.ts TOLERANCE 1s".to_owned(), 3),
        ("SELECT count(*) FROM (SELECT t.id FROM t ASOF JOIN q ON (k) TOLERANCE 1 ORDER BY 1)".to_owned(), 4),
        ("SELECT sum(n) FROM (SELECT count(q.w) AS n FROM t WINDOW JOIN q ON (k) RANGE BETWEEN 5000000000 PRECEDING AND 0 FOLLOWING)".to_owned(), 5),
        ("SELECT count(*) FROM t ASOF JOIN q ON (k) LT JOIN q AS r ON (k)".to_owned(), 4),
        ("SELECT sum(n) FROM (SELECT t.ts, count() AS n FROM t ASOF JOIN q ON (k) SAMPLE BY 2s)".to_owned(), 4),
        ("SELECT count(w) FROM t ASOF LEFT JOIN q USING (ts)".to_owned(), 4),
        ("SELECT count(*) FROM (SELECT ts, count() AS n FROM t SAMPLE BY 2s FROM '2026-01-01T00:00:02' ORDER BY 1 LIMIT 5)".to_owned(), 2),
        ("SELECT sum(v)::BIGINT FROM (SELECT ts, sum(v) / count(v) AS v FROM t SAMPLE BY 1s FILL(PREV))".to_owned(), 10),
        ("SELECT sum(s)::BIGINT FROM (SELECT sum(v) OVER (ORDER BY ts RANGE BETWEEN 1000000000 PRECEDING AND CURRENT ROW) AS s FROM t)".to_owned(), 16),
        ("SELECT vwap(v, v ORDER BY id)::BIGINT FROM t".to_owned(), 3),
        ("SELECT sum(a)::BIGINT FROM (SELECT k, avg(v ORDER BY id) AS a FROM t GROUP BY k)".to_owned(), 5),
    ] {
        let batches = sut.read(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let column = arrow::compute::cast(batches.iter().find(|b| b.num_rows() > 0).unwrap().column(0), &DataType::Int64).unwrap();
        assert_eq!(column.as_primitive::<Int64Type>().value(0), answer, "{sql}");
    }
    for (sql, text) in [
        (
            "SELECT count(*) FROM t HORIZON JOIN q ON (k) RANGE FROM -9223372036854775807 TO 9223372036854775807 STEP 9000000000000000000 AS h",
            "offsets",
        ),
        ("SELECT ts, count() AS n FROM t SAMPLE BY 9223372036854775807M", ""),
        ("SELECT t.id FROM t ASOF JOIN q ON (k, ts)", "would have to be equal"),
        ("SELECT t.id FROM t UNION JOIN q ON t.k = q.k", "has no ON"),
        ("SELECT t.id FROM t WINDOW JOIN q MATCH_CONDITION (t.ts > q.ts) ON (k)", "MATCH_CONDITION is for"),
        ("SELECT ts, sum(v) AS s, count() AS n FROM t SAMPLE BY 1s FILL(NONE, LINEAR)", "for all aggregates"),
        ("SELECT first(v ORDER BY id) FROM t", "first_value(x ORDER BY"),
        ("SELECT vwap(DISTINCT v, v) FROM t", "vwap(DISTINCT"),
        ("SELECT twap(v, ts) OVER (ORDER BY ts ROWS 1 PRECEDING) FROM t", "twap is not supported over a window"),
    ] {
        let answer = sut.read(sql).await;
        match answer {
            Err(error) => {
                assert!(error.message().contains(text), "{sql}: {error}");
                assert_ne!(error.kind(), zepto_flight::ports::ErrorKind::Internal, "{sql}");
            }
            Ok(_) => assert!(text.is_empty(), "{sql}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_windows_answer_what_short_ones_do() {
    let sut = Sut::in_process().await;
    sut.define(
        "CREATE TABLE q AS SELECT arrow_cast(value * 1000, 'Timestamp(ns)') AS ts,
        CASE value % 5 WHEN 0 THEN NULL ELSE (value * 7919 % 1009) * 0.25 END AS w FROM generate_series(1, 3000)",
    )
    .await;
    sut.define("CREATE TABLE t AS SELECT ts, arrow_cast(arrow_cast(ts, 'Int64') / 1000, 'Int64') AS id FROM q").await;
    for width in [10_000, 150_000, 1_000_000] {
        let joined = format!(
            "SELECT t.id, sum(q.w) AS s, avg(q.w) AS a, count(q.w) AS n, min(q.w) AS l, max(q.w) AS g
            FROM t WINDOW JOIN q ON q.ts BETWEEN t.ts - {width} AND t.ts ORDER BY t.id"
        );
        let by_hand = format!(
            "SELECT t.id, sum(q.w) AS s, avg(q.w) AS a, count(q.w) AS n, min(q.w) AS l, max(q.w) AS g
            FROM t JOIN q ON q.ts BETWEEN t.ts - {width} AND t.ts GROUP BY t.id ORDER BY t.id"
        );
        same(&sut, &joined, &by_hand).await;
    }
}
