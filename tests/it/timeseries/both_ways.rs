//! Statements that go by codes, by order of time or by what segments know, beside the same ones written so that nothing of that helps.

use crate::harness::Sut;
use crate::timeseries::{cell, equal};

/// Answers by codes, and by what cannot use them, over random rows in several segments, in order and not, with rows deleted.
#[tokio::test(flavor = "multi_thread")]
async fn with_codes_and_without_them_the_answer_is_the_same() {
    for in_order in [true, false] {
        let sut = Sut::in_process().await;
        let time = if in_order { "value" } else { "(value * 7919) % 1009" };
        let rows = |from: i64| {
            format!(
                "SELECT value AS id, CASE WHEN value % 11 = 0 THEN NULL ELSE chr(65 + CAST(value * value % 7 AS INT)) END AS s, \
                 to_timestamp_nanos(1704187800000000000 + {time} * 1000000000) AS ts, \
                 CASE WHEN value % 13 = 0 THEN NULL ELSE (value * 31 % 101) / 4.0 END AS p, value % 9 AS v, CASE WHEN value % 17 = 0 THEN NULL ELSE arrow_cast(value % 5, 'Int32') END AS n FROM generate_series({from}, {})",
                from + 299
            )
        };
        sut.define(&format!("CREATE TABLE t AS {}", rows(1))).await;
        for from in [301, 601] {
            sut.count(&format!("INSERT INTO t {}", rows(from))).await;
        }
        let explain = |sql: &str| format!("EXPLAIN {sql}");
        let window = explain("SELECT ema(p, 5) OVER (PARTITION BY s ORDER BY ts) FROM t");
        let plan = plan_of(&sut, &window).await;
        assert!(plan.contains("SeriesWindowExec") && plan.contains("with late rows") != in_order, "{plan}");
        assert!(plan_of(&sut, &explain("SELECT s, sum(p) FROM t GROUP BY s")).await.contains("SeriesAggregateExec"));
        let of_nobody = "SELECT ema(p, 5) OVER (PARTITION BY s ORDER BY ts) FROM t WHERE s = 'AB'";
        assert_eq!(sut.rows(of_nobody).await, 0);
        assert!(plan_of(&sut, &explain("SELECT n, sum(p) FROM t GROUP BY n")).await.contains("SeriesAggregateExec"));
        for deleted in [false, true] {
            if deleted {
                sut.count("DELETE FROM t WHERE id % 5 = 0").await;
            }
            compare_with_and_without_codes(&sut).await;
            compare_filters(&sut).await;
        }
    }
}

/// Asks everything in two ways of a table `t`.
async fn compare_with_and_without_codes(sut: &Sut) {
    let windows = [
        "ema(p, 5)",
        "ema(p, 0.3)",
        "avg(p, 'second', 7)",
        "delta(p)",
        "ratio(p)",
        "sum(p)",
        "sum(p) FILTER (WHERE v > 3)",
    ];
    let frames = ["", "", "", "", "", "ROWS 3 PRECEDING", "ROWS BETWEEN 3 PRECEDING AND CURRENT ROW"];
    let aggregates = "count(*) AS a, count(p) AS b, sum(p) AS c, avg(p) AS d, min(p) AS e, max(v) AS f, sum(v) AS g, vwap(p, v) AS h, \
                      first(p) AS i, last(p) AS j, min(v) AS l";
    for (function, frame) in windows.iter().zip(frames) {
        let of = |key: &str| {
            format!("SELECT id, {function} OVER (PARTITION BY {key} ORDER BY ts {frame}) AS w FROM t ORDER BY id")
        };
        same(sut, &of("s"), &of("s || ''")).await;
    }
    for bucket in ["xbar(ts, INTERVAL '1 minute')", "time_bucket(INTERVAL '7 minutes', ts, 'Asia/Kolkata')"] {
        let of = |key: &str| {
            format!("SELECT {key} AS k, {bucket} AS bar, {aggregates} FROM t GROUP BY {key}, {bucket} ORDER BY k, bar")
        };
        same(sut, &of("s"), &of("s || ''")).await;
    }
    let of = |key: &str| format!("SELECT {key} AS k, {aggregates} FROM t WHERE v <> 4 GROUP BY {key} ORDER BY k");
    same(sut, &of("s"), &of("s || ''")).await;
    // Whole numbers as symbols.
    let of = |key: &str| {
        format!(
            "SELECT {key} AS k, xbar(ts, 60000000000) AS bar, {aggregates} FROM t GROUP BY {key}, xbar(ts, 60000000000) ORDER BY k, bar"
        )
    };
    same(sut, &of("n"), &of("n + id * 0")).await;
    let of = |key: &str| format!("SELECT id, ema(p, 5) OVER (PARTITION BY {key} ORDER BY ts) AS w FROM t ORDER BY id");
    same(sut, &of("n"), &of("n + id * 0")).await;
    let of = |key: &str| {
        format!("SELECT id FROM (SELECT id, {key} AS k, ts FROM t) x LATEST ON ts PARTITION BY k ORDER BY id")
    };
    same(sut, &of("n"), &of("n + id * 0")).await;
    let of = |key: &str| format!("SELECT DISTINCT {key} AS k FROM t ORDER BY k");
    same(sut, &of("n"), &of("n + id * 0")).await;
    let of = |key: &str| {
        format!("SELECT a.id, b.id AS other FROM t a ASOF LEFT JOIN t b ON {key} AND a.ts > b.ts ORDER BY a.id")
    };
    same(sut, &of("a.n = b.v"), &of("a.n + a.id * 0 = b.v")).await;
    for (order, rows) in [("ts DESC", 10), ("ts", 7), ("ts DESC NULLS LAST, id", 333)] {
        let of =
            |time: &str| format!("SELECT id FROM (SELECT id, {time} AS ts FROM t) x ORDER BY {order}, id LIMIT {rows}");
        same(sut, &of("ts"), &of("ts + INTERVAL '0 seconds'")).await;
    }
    same(
        sut,
        "SELECT min(ts) AS a, max(ts) AS b FROM t",
        "SELECT min(ts + INTERVAL '0 seconds') AS a, max(ts + INTERVAL '0 seconds') AS b FROM t",
    )
    .await;
    let of = |key: &str| {
        format!("SELECT id FROM (SELECT id, {key} AS k, ts FROM t) x LATEST ON ts PARTITION BY k ORDER BY id")
    };
    same(sut, &of("s"), &of("s || ''")).await;
    let of = |key: &str| {
        format!("SELECT a.id, b.id AS other FROM t a ASOF LEFT JOIN t b ON {key} AND a.ts > b.ts ORDER BY a.id")
    };
    same(sut, &of("a.s = b.s"), &of("a.s || '' = b.s || ''")).await;
}

/// Filters in two ways: by a symbol, a time or a number as it stands, and by an expression of the same value.
async fn compare_filters(sut: &Sut) {
    let second = |n: i64| format!("TIMESTAMP '2024-01-02 09:30:00' + INTERVAL '{n} seconds'");
    let conditions = [
        "{s} = 'B'".to_owned(),
        "'B' = {s} AND {p} > 7".to_owned(),
        "{s} IN ('A', 'C', 'nobody')".to_owned(),
        "{s} IN ('A', 'B', 'C', 'D', 'E', 'F') AND {v} <> 4".to_owned(),
        "({s} = 'A' OR {s} = 'B') AND {s} <> 'A'".to_owned(),
        format!("{{ts}} >= {} AND {{ts}} < {}", second(100), second(500)),
        format!("{{ts}} BETWEEN {} AND {} AND {{s}} = 'E'", second(301), second(390)),
        format!("{{ts}} > {} AND {{p}} <= 12.25", second(-1)),
        "{p} >= 7.5 AND {p} < 20 AND {v} > 2".to_owned(),
        "NOT ({p} > 7 OR {v} = 3)".to_owned(),
    ];
    let answers = [
        "SELECT id, s, p FROM t WHERE {where} ORDER BY id",
        "SELECT count(*) AS a, min(ts) AS b, max(ts) AS c FROM t WHERE {where}",
        "SELECT s, avg(p) AS a, count(*) AS b, sum(v) AS c, max(p) AS d FROM t WHERE {where} GROUP BY s ORDER BY s",
        "SELECT DISTINCT s FROM t WHERE {where} ORDER BY s",
        "SELECT id FROM t WHERE {where} ORDER BY ts DESC, id LIMIT 4",
        "SELECT id, ts FROM t WHERE {where} LATEST ON ts PARTITION BY s ORDER BY id",
        "SELECT id, avg(p) OVER (PARTITION BY s ORDER BY ts, id ROWS 3 PRECEDING) AS a FROM t WHERE {where} ORDER BY id",
    ];
    for condition in &conditions {
        let fill = |names: [&str; 4]| {
            let [s, ts, p, v] = names;
            condition.replace("{s}", s).replace("{ts}", ts).replace("{p}", p).replace("{v}", v)
        };
        let plain = fill(["s", "ts", "p", "v"]);
        let computed = fill(["(s || '')", "(ts + INTERVAL '0 seconds')", "(p + v * 0)", "(v + id * 0)"]);
        for answer in answers {
            same(sut, &answer.replace("{where}", &plain), &answer.replace("{where}", &computed)).await;
        }
    }
}

/// Returns how a statement is run.
pub async fn plan_of(sut: &Sut, sql: &str) -> String {
    let batches = sut.read(sql).await.unwrap();
    batches
        .iter()
        .map(|batch| arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string())
        .collect()
}

/// Asks for the same thing in two ways, in the same order.
pub async fn same(sut: &Sut, sql: &str, other: &str) {
    let mut answers = Vec::new();
    for sql in [sql, other] {
        let batches = sut.read(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = batches.iter().flat_map(|batch| {
            (0..batch.num_rows())
                .map(|row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        });
        answers.push(rows.collect::<Vec<_>>());
    }
    let is_same = answers[0].len() == answers[1].len()
        && answers[0].iter().zip(&answers[1]).all(|(a, b)| a.iter().zip(b).all(|(a, b)| equal(a, b)));
    let differs = answers[0].iter().zip(&answers[1]).find(|(a, b)| !a.iter().zip(b.iter()).all(|(a, b)| equal(a, b)));
    assert!(
        is_same && !answers[0].is_empty(),
        "{sql}\n{differs:?}, {} and {} rows",
        answers[0].len(),
        answers[1].len()
    );
}

/// The latest row of each symbol, however it is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_rows_written_by_hand_are_those_of_latest_on() {
    let sut = Sut::in_process().await;
    sut.define("CREATE TABLE t (s VARCHAR, ts TIMESTAMP, p DOUBLE, n TIMESTAMP)").await;
    for from in [0, 400, 800] {
        sut.count(&format!(
            "INSERT INTO t SELECT CASE value % 7 WHEN 0 THEN NULL ELSE chr(65 + CAST(value % 7 AS INT)) END, \
             to_timestamp_nanos(1704187800000000000 + value * 7919 % 1201), CASE WHEN value % 5 = 0 THEN NULL ELSE value * 0.5 END, \
             CASE WHEN value % 3 = 0 THEN NULL ELSE to_timestamp_nanos(value) END FROM generate_series({}, {})",
            from + 1,
            from + 400
        ))
        .await;
    }
    let latest = "SELECT s, ts, p FROM t LATEST ON ts PARTITION BY s ORDER BY s";
    for deleted in [false, true] {
        if deleted {
            sut.count("DELETE FROM t WHERE p > 500 AND p < 560").await;
        }
        for by_hand in [
            "SELECT s, ts, p FROM t QUALIFY row_number() OVER (PARTITION BY s ORDER BY ts DESC) = 1 ORDER BY s",
            "SELECT s, ts, p FROM (SELECT *, row_number() OVER (PARTITION BY s ORDER BY ts DESC) AS rn FROM t) WHERE rn = 1 ORDER BY s",
            "SELECT DISTINCT ON (s) s, ts, p FROM t ORDER BY s, ts DESC",
            "SELECT s, last_value(ts ORDER BY ts) AS ts, last_value(p ORDER BY ts) AS p FROM t GROUP BY s ORDER BY s",
            "SELECT s, first_value(ts ORDER BY ts DESC) AS ts, first_value(p ORDER BY ts DESC) AS p FROM t GROUP BY s ORDER BY s",
        ] {
            same(&sut, latest, by_hand).await;
            let plan = plan_of(&sut, &format!("EXPLAIN {by_hand}")).await;
            assert!(plan.contains("LatestExec"), "{by_hand}\n{plan}");
        }
    }
    same(
        &sut,
        "SELECT s, ts, p FROM t LATEST ON ts PARTITION BY s ORDER BY s",
        "SELECT s, ts, p FROM (SELECT *, row_number() OVER (PARTITION BY s ORDER BY ts DESC) AS rn FROM t WHERE p IS NULL OR p >= 0) WHERE rn = 1 ORDER BY s",
    )
    .await;
    for other in [
        "SELECT s, ts, p FROM t QUALIFY row_number() OVER (PARTITION BY s ORDER BY ts) = 1",
        "SELECT s, ts, p FROM t QUALIFY row_number() OVER (PARTITION BY s ORDER BY n DESC) = 1",
        "SELECT s, ts, p FROM t QUALIFY rank() OVER (PARTITION BY s ORDER BY ts DESC) = 1",
        "SELECT s, ts, p FROM t QUALIFY row_number() OVER (PARTITION BY s ORDER BY ts DESC) = 2",
        "SELECT s, last_value(p ORDER BY n) AS p FROM t GROUP BY s",
        "SELECT s, first_value(p ORDER BY ts) AS p FROM t GROUP BY s",
        "SELECT s, last_value(p ORDER BY ts) FILTER (WHERE p > 1) AS p FROM t GROUP BY s",
        "SELECT s, last_value(p ORDER BY ts) AS p, last_value(ts ORDER BY n) AS q FROM t GROUP BY s",
        "SELECT s, last_value(p ORDER BY ts) AS p, count(*) AS q FROM t GROUP BY s",
        "SELECT s, last_value(p) IGNORE NULLS OVER (PARTITION BY s ORDER BY ts) AS p FROM t",
    ] {
        let plan = plan_of(&sut, &format!("EXPLAIN {other}")).await;
        assert!(!plan.contains("LatestExec"), "{other}\n{plan}");
    }
}
