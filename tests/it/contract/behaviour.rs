//! What queries answer.

use crate::harness::{Sut, int, numbers, one};
use arrow::array::{AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt;
use std::sync::Arc;
use zepto_flight::ports::{BatchStream, Caller, Error, ErrorKind, Part, Query, StatementKind};

pub async fn describe_tells_kind_schema_and_exact_rows(sut: Sut) {
    sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let describe = |sql: &'static str| {
        let sut = sut.clone();
        async move { sut.query.describe(Query::change(sql)).await.unwrap() }
    };
    let all = describe("SELECT * FROM t").await;
    assert_eq!((all.kind, all.rows), (StatementKind::Read, Some(100)));
    assert_eq!(all.schema, numbers(0, 1).schema());
    assert_eq!(describe("SELECT n FROM t LIMIT 7").await.rows, Some(7));
    assert_eq!(describe("SELECT count(*) FROM t").await.rows, Some(1));
    assert_eq!(describe("SELECT n FROM t WHERE n > 5").await.rows, None);
    let change = describe("DELETE FROM t").await;
    assert_eq!((change.kind, change.rows), (StatementKind::Change, Some(1)));
    assert_eq!(change.schema.field(0).name(), "deleted");
    assert_eq!(describe("DROP TABLE t").await.kind, StatementKind::Definition);
    assert_eq!(sut.rows("SELECT * FROM t").await, 100, "describing runs nothing");
}

pub async fn errors_keep_kind_and_message(sut: Sut) {
    sut.define("CREATE TABLE trades (price FLOAT64)").await;
    let cases = [
        ("SELEC 1", ErrorKind::InvalidQuery, "parse"),
        ("SELECT pric FROM trades", ErrorKind::InvalidQuery, "did you mean \"price\""),
        ("SELECT 1; SELECT 2", ErrorKind::InvalidQuery, "one at a time"),
        ("SELECT * FROM trade", ErrorKind::NotFound, "did you mean \"trades\""),
        ("CREATE TABLE trades (a INT)", ErrorKind::AlreadyExists, "trades"),
        ("COPY trades TO '/tmp/x'", ErrorKind::Unsupported, "COPY"),
        ("INSERT INTO trades VALUES ('dear')", ErrorKind::SchemaMismatch, "price"),
        ("", ErrorKind::InvalidQuery, "empty"),
    ];
    for (sql, kind, word) in cases {
        let error = sut.change(sql).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.message().contains(word), "{sql}: {error}");
        assert!(!error.message().ends_with('.'), "{error}");
    }
}

pub async fn empty_results_keep_their_schema(sut: Sut) {
    sut.put("t", vec![numbers(0, 10)]).await.unwrap();
    for sql in ["SELECT * FROM t WHERE false", "SELECT * FROM t WHERE n > 1000", "SELECT * FROM t LIMIT 0"] {
        let reply = sut.query.query(Query::read(sql)).await.unwrap();
        assert_eq!(reply.batches.schema(), numbers(0, 1).schema(), "{sql}");
        assert_eq!(reply.batches.collect().await.unwrap().len(), 0, "{sql}");
    }
}

pub async fn names_match_exactly_then_by_case(sut: Sut) {
    sut.define("CREATE TABLE Quotes (Px FLOAT64, size INT64, SIZE INT64)").await;
    assert_eq!(sut.count("INSERT INTO quotes (PX, size) VALUES (1.5, 2)").await, 1);
    for sql in ["SELECT px FROM quotes", "SELECT q.PX FROM QUOTES q WHERE Q.px > 1", "SELECT \"Px\" FROM \"Quotes\""] {
        let batches = sut.read(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(batches[0].schema().field(0).name(), "Px", "{sql}");
    }
    assert_eq!(int(&sut.read("SELECT size FROM quotes").await.unwrap()), 2);
    for (sql, kind) in [
        ("SELECT Size FROM quotes", ErrorKind::InvalidQuery),
        ("SELECT \"px\" FROM quotes", ErrorKind::InvalidQuery),
        ("SELECT 1 FROM \"quotes\"", ErrorKind::NotFound),
    ] {
        assert_eq!(sut.read(sql).await.unwrap_err().kind(), kind, "{sql}");
    }
    for sql in [
        "SELECT max(px) AS px FROM quotes",
        "SELECT px * 2 AS PX FROM quotes WHERE PX > 0 ORDER BY PX",
        "WITH quotes AS (SELECT px AS price FROM Quotes) SELECT price FROM quotes",
    ] {
        assert_eq!(sut.rows(sql).await, 1, "{sql}");
    }
    let with = "WITH Best AS (SELECT max(px) AS Peak FROM quotes) SELECT peak FROM best";
    assert_eq!(sut.read(with).await.unwrap()[0].schema().field(0).name(), "Peak");
}

pub async fn parameters_are_bound(sut: Sut) {
    sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let params = arrow::array::record_batch!(("a", Int64, [41]), ("b", Utf8, ["row 42"])).unwrap();
    for sql in ["SELECT n FROM t WHERE n > ? AND name = ?", "SELECT n FROM t WHERE name = $2 AND n > $1"] {
        let query = Query { params: Some(params.clone()), ..Query::read(sql) };
        let described = sut.query.describe(query.clone()).await.unwrap();
        let reply = sut.query.query(query).await.unwrap();
        assert_eq!(described.schema, reply.batches.schema());
        assert_eq!(int(&reply.batches.collect().await.unwrap()), 42, "{sql}");
    }
    let insert = Query { params: Some(params), ..Query::change("INSERT INTO t (n, name) VALUES (?, ?)") };
    let inserted = sut.query.query(insert).await.unwrap().batches.collect().await.unwrap();
    assert_eq!(int(&inserted), 1);
    assert_eq!(sut.rows("SELECT * FROM t WHERE name = 'row 42'").await, 2);
    assert_eq!(sut.read("SELECT ?").await.unwrap_err().kind(), ErrorKind::InvalidQuery);
}

pub async fn named_parameters_are_bound(sut: Sut) {
    sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let params = arrow::array::record_batch!(("name", Utf8, ["row 42"]), ("from", Int64, [41])).unwrap();
    let sql = "SELECT n FROM t WHERE n > $from AND name = $name AND n < $from + 10";
    let query = Query { params: Some(params.clone()), ..Query::read(sql) };
    assert_eq!(int(&sut.query.query(query).await.unwrap().batches.collect().await.unwrap()), 42);
    let missing = Query { params: Some(params.project(&[0]).unwrap()), ..Query::read(sql) };
    let error = sut.query.query(missing).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidQuery && error.message().contains("$from"), "{error}");
}

pub async fn open_parameters_are_described(sut: Sut) {
    sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let described = |sql: &'static str| {
        let query = sut.query.clone();
        async move {
            let described = query.describe(Query::change(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            let params = described.params.fields().iter();
            let params: Vec<_> = params.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
            (described.kind, params)
        }
    };
    let param = |name: &str, data_type: &str| (name.to_owned(), data_type.to_owned());
    for (sql, kind, expected) in [
        ("SELECT n FROM t WHERE n > ? AND name = ?", StatementKind::Read, [param("$1", "Int64"), param("$2", "Utf8")]),
        (
            "SELECT n FROM t WHERE half < $b AND n > $a",
            StatementKind::Read,
            [param("$b", "Float64"), param("$a", "Int64")],
        ),
        (
            "INSERT INTO t (half, name) VALUES (?, ?)",
            StatementKind::Change,
            [param("$1", "Float64"), param("$2", "Utf8")],
        ),
        ("UPDATE t SET half = ? WHERE n = ?", StatementKind::Change, [param("$1", "Float64"), param("$2", "Int64")]),
        ("DELETE FROM t WHERE n = ? OR name = ?", StatementKind::Change, [param("$1", "Int64"), param("$2", "Utf8")]),
    ] {
        assert_eq!(described(sql).await, (kind, expected.to_vec()), "{sql}");
    }
    assert_eq!(described("SELECT 1").await, (StatementKind::Read, Vec::new()));
    assert_eq!(sut.rows("SELECT * FROM t").await, 100);
}

pub async fn rows_of_parameters_make_rows(sut: Sut) {
    sut.put("t", vec![numbers(0, 3)]).await.unwrap();
    let params = arrow::array::record_batch!(("a", Int64, [10, 20, 30]), ("b", Utf8, ["x", "y", "z"])).unwrap();
    let count = |sql: &str, params: RecordBatch| {
        let query = Query { params: Some(params), ..Query::change(sql) };
        let port = sut.query.clone();
        async move { Ok::<_, Error>(int(&port.query(query).await?.batches.collect().await?)) }
    };
    let insert = "INSERT INTO t (n, name, half) VALUES ($1 + 1, upper($2), 0.5)";
    assert_eq!(count(insert, params.clone()).await.unwrap(), 3);
    let made = one(&sut.read("SELECT n, name FROM t WHERE n > 5").await.unwrap());
    assert_eq!(made.column(0).as_primitive::<Int64Type>().values(), &[11, 21, 31]);
    assert_eq!(made.column(1).as_string::<i32>().value(2), "Z");
    assert_eq!(count("UPDATE t SET half = 9 WHERE n = ? + 1 OR name = ?", params.clone()).await.unwrap(), 3);
    assert_eq!(count("DELETE FROM t WHERE n = $1 + 1", params.project(&[0]).unwrap()).await.unwrap(), 3);
    let refused = count("INSERT INTO t (n) SELECT ?", params.project(&[0]).unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidQuery);
    // All rows or none, of changes too: the second of these does not fit its column, which the first made by then.
    let numbers_as_text = arrow::array::record_batch!(("to", Utf8, ["5.5", "none"]), ("n", Int64, [0, 1])).unwrap();
    count("UPDATE t SET half = ? WHERE n = ?", numbers_as_text).await.unwrap_err();
    assert_eq!(sut.rows("SELECT * FROM t WHERE half = 5.5").await, 0);
    // Each row sees what the one before it made.
    let steps = arrow::array::record_batch!(("to", Int64, [100, 200]), ("from", Int64, [2, 100])).unwrap();
    assert_eq!(count("UPDATE t SET n = ? WHERE n = ?", steps).await.unwrap(), 2);
    assert_eq!(sut.rows("SELECT * FROM t WHERE n = 200").await, 1);
    let none = arrow::array::record_batch!(("a", Int64, [1])).unwrap().slice(0, 0);
    assert_eq!(count("INSERT INTO t (n) VALUES (?)", none.clone()).await.unwrap(), 0);
    assert_eq!(count("DELETE FROM t WHERE n = ?", none).await.unwrap(), 0);
    let bad = arrow::array::record_batch!(("a", Utf8, ["1", "not a number"])).unwrap();
    count("INSERT INTO t (n) VALUES (?)", bad).await.unwrap_err();
    assert_eq!(sut.rows("SELECT * FROM t").await, 3);
}

pub async fn a_callers_stream_is_a_table_of_one_query(sut: Sut) {
    sut.put("t", vec![numbers(0, 1_000)]).await.unwrap();
    let input = arrow::array::record_batch!(("n", Int64, [7, 8, 5000]), ("note", Utf8, ["a", "b", "c"])).unwrap();
    let exchange = |sql: &str| {
        let input = BatchStream::from_batches(input.schema(), vec![input.clone(), input.slice(0, 1)]);
        let (port, query) = (sut.query.clone(), Query::read(sql));
        async move { port.exchange(query, input).await?.batches.collect().await }
    };
    let joined = one(&exchange("SELECT i.*, t.name FROM input i JOIN t ON i.n = t.n ORDER BY i.n").await.unwrap());
    assert_eq!(joined.column(0).as_primitive::<Int64Type>().values(), &[7, 7, 8]);
    assert_eq!(joined.column(2).as_string::<i32>().value(0), "row 7");
    assert_eq!(
        exchange("SELECT * FROM input WHERE n > 10000").await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(),
        0
    );
    for (sql, kind) in [
        ("INSERT INTO t SELECT n, 0, note FROM input", ErrorKind::InvalidQuery),
        ("SELECT * FROM nowhere", ErrorKind::NotFound),
    ] {
        assert_eq!(exchange(sql).await.unwrap_err().kind(), kind, "{sql}");
    }
    assert_eq!(sut.read("SELECT * FROM input").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sut.query.tables(Caller::default()).await.unwrap().len(), 1);
}

pub async fn rows_come_back_in_ingestion_order(sut: Sut) {
    let batches: Vec<_> = (0..40).map(|at| numbers(at * 5_000, 5_000)).collect();
    sut.put("t", batches).await.unwrap();
    for sql in [
        "SELECT n FROM t",
        "SELECT n FROM t WHERE half >= 0 AND n % 2 = 0",
        "SELECT n + 1 AS m FROM (SELECT * FROM t WHERE n > 100) WHERE name IS NOT NULL",
        "SELECT n FROM t WHERE n > 7 LIMIT 70000",
        "SELECT n FROM t WHERE n < 50000 UNION ALL SELECT n + 1000000 FROM t WHERE n < 60000",
        "SELECT n FROM t WHERE n < 50000 UNION ALL SELECT n + 1000000 FROM t WHERE n < 60000 LIMIT 70000 OFFSET 5000",
    ] {
        let all = one(&sut.read(sql).await.unwrap());
        let values = all.column(0).as_primitive::<Int64Type>().values();
        assert!(values.len() > 60_000 && values.is_sorted(), "{sql}");
    }
}

pub async fn snapshots_stay_as_they_were(sut: Sut) {
    sut.put("t", vec![numbers(0, 10)]).await.unwrap();
    let snapshot = sut.query.snapshot(Caller::default()).await.unwrap();
    sut.put("t", vec![numbers(10, 10)]).await.unwrap();
    sut.count("DELETE FROM t WHERE n < 5").await;
    let then = |sql: &str| Query { snapshot: Some(snapshot), ..Query::read(sql) };
    let reply = sut.query.query(then("SELECT count(*) FROM t")).await.unwrap();
    assert_eq!(int(&reply.batches.collect().await.unwrap()), 10);
    sut.define("DROP TABLE t").await;
    let reply = sut.query.query(then("SELECT sum(n) FROM t")).await.unwrap();
    assert_eq!(int(&reply.batches.collect().await.unwrap()), 45);
    assert_eq!(sut.read("SELECT 1 FROM t").await.unwrap_err().kind(), ErrorKind::NotFound);
    let unknown = zepto_flight::ports::SnapshotId(snapshot.0 + 1_000);
    let query = Query { snapshot: Some(unknown), ..Query::read("SELECT 1") };
    assert_eq!(sut.query.query(query).await.unwrap_err().kind(), ErrorKind::NotFound);
}

pub async fn view_types_do_not_leak(sut: Sut) {
    let views = StringViewArray::from(vec![Some("a value long enough to need a buffer"), None]);
    let batch = RecordBatch::try_from_iter([("v", Arc::new(views) as _)]).unwrap();
    sut.put("t", vec![batch.clone()]).await.unwrap();
    let schema_of = |sql: &'static str| {
        let sut = sut.clone();
        async move { sut.query.query(Query::read(sql)).await.unwrap().batches.schema() }
    };
    assert_eq!(one(&sut.read("SELECT * FROM t").await.unwrap()), batch);
    for (sql, data_type) in [
        ("SELECT v AS w FROM (SELECT v FROM t ORDER BY v LIMIT 1)", DataType::Utf8View),
        ("SELECT v, count(*) FROM t GROUP BY v", DataType::Utf8View),
        ("SELECT upper(v) FROM t", DataType::Utf8),
        ("SELECT concat(v, 'x') FROM t", DataType::Utf8),
        ("SELECT CASE WHEN v IS NULL THEN v ELSE substr(v, 2) END FROM t", DataType::Utf8),
        ("SELECT 'literal'", DataType::Utf8),
    ] {
        let schema = schema_of(sql).await;
        assert_eq!(schema.field(0).data_type(), &data_type, "{sql}");
        sut.read(sql).await.unwrap();
    }
}

pub async fn an_error_after_the_first_batch_is_an_error(sut: Sut) {
    let batches: Vec<_> = (0..50).map(|at| numbers(at * 40_000, 40_000)).collect();
    sut.put("t", batches).await.unwrap();
    let sql = "SELECT n, name, 1 / (1999999 - n) AS boom FROM t";
    let mut batches = sut.query.query(Query::read(sql)).await.unwrap().batches;
    let mut rows = 0;
    let error = loop {
        match batches.next().await {
            Some(Ok(batch)) => rows += batch.num_rows(),
            Some(Err(error)) => break error,
            None => panic!("the stream ended well after {rows} rows"),
        }
    };
    assert!(rows > 0 && rows < 2_000_000, "{rows}");
    // HTTP can only break the connection by then.
    assert!(matches!(error.kind(), ErrorKind::InvalidQuery | ErrorKind::Unavailable), "{error:?}");
    assert!(batches.next().await.is_none());
}

pub async fn exact_counts_are_exact(sut: Sut) {
    sut.put("t", (0..4).map(|at| numbers(at * 1_000, 1_000)).collect()).await.unwrap();
    sut.put("u", vec![numbers(500, 100)]).await.unwrap();
    for sql in [
        "SELECT * FROM t",
        "SELECT * FROM t LIMIT 10",
        "SELECT * FROM t LIMIT 10 OFFSET 3995",
        "SELECT * FROM t ORDER BY half DESC LIMIT 5",
        "SELECT count(*), max(n) FROM t WHERE n > 10",
        "SELECT name, count(*) FROM t GROUP BY name",
        "SELECT DISTINCT n % 7 FROM t",
        "SELECT * FROM t UNION ALL SELECT * FROM u",
        "SELECT * FROM t JOIN u USING (n)",
        "SELECT * FROM t LEFT JOIN u ON t.n = u.n",
        "SELECT * FROM t, u WHERE t.n = u.n AND t.n < 550",
        "SELECT * FROM t WHERE n IN (SELECT n FROM u)",
        "SELECT unnest([1, 2, 3]) FROM u",
        "SELECT sum(n) OVER (ORDER BY n ROWS 2 PRECEDING) FROM u",
        "VALUES (1), (2), (3)",
        "SELECT * FROM generate_series(1, 10)",
        "SELECT 1 WHERE false",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
        "DESCRIBE t",
    ] {
        let described = sut.query.describe(Query::read(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let reply = sut.query.query(Query::read(sql)).await.unwrap();
        assert_eq!(reply.batches.schema(), described.schema, "{sql}");
        let rows: usize = reply.batches.collect().await.unwrap().iter().map(RecordBatch::num_rows).sum();
        if let Some(exact) = described.rows {
            assert_eq!(exact, rows as u64, "{sql}");
        }
    }
}

pub async fn a_deadline_is_kept(sut: Sut) {
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) a WHERE a.value % 7 = 8";
    let query = Query::read(endless).within_ms(Some(300));
    let began = std::time::Instant::now();
    let error = match sut.query.query(query).await {
        Ok(reply) => reply.batches.collect().await.unwrap_err(),
        Err(error) => error,
    };
    // HTTP has begun its answer by then.
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Cancelled), "{error:?}");
    assert!(began.elapsed().as_secs() < 20);
}

pub async fn all_parts_together_are_the_answer(sut: Sut) {
    sut.put("t", (0..5).map(|at| numbers(at * 1_000, 1_000)).collect()).await.unwrap();
    sut.put("t", vec![numbers(5_000, 77)]).await.unwrap();
    let snapshot = sut.query.snapshot(Caller::default()).await.unwrap();
    sut.put("t", vec![numbers(9_000, 9)]).await.unwrap();
    for sql in [
        "SELECT * FROM t",
        "SELECT n + 1 AS m FROM t AS s WHERE n % 3 = 1",
        "SELECT count(*) AS n FROM t",
        "SELECT n FROM t LIMIT 10 OFFSET 3",
        "SELECT n FROM t UNION ALL SELECT n FROM t",
        "SELECT n FROM t WHERE n IN (SELECT max(n) FROM t)",
        "SHOW TABLES",
    ] {
        let whole = Query { snapshot: Some(snapshot), ..Query::read(sql) };
        let expected = one(&sut.query.query(whole.clone()).await.unwrap().batches.collect().await.unwrap());
        for count in [1, 3, 7] {
            let mut found = Vec::new();
            for index in 0..count {
                let query = Query { part: Some(Part::new(index, count).unwrap()), ..whole.clone() };
                let described = sut.query.describe(query.clone()).await.unwrap();
                let batches = sut.query.query(query).await.unwrap().batches.collect().await.unwrap();
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                assert!(described.rows.is_none_or(|known| known == rows as u64), "{sql}");
                found.extend(batches);
            }
            assert_eq!(one(&found), expected, "{sql} in {count} parts");
        }
    }
}

pub async fn a_statement_asked_again_sees_what_changed(sut: Sut) {
    let all = "SELECT * FROM t";
    for (change, rows, columns) in [
        ("CREATE TABLE t (n INT64)", 0, 1),
        ("INSERT INTO t VALUES (1), (2)", 2, 1),
        ("ALTER TABLE t ADD COLUMN x FLOAT64", 2, 2),
        ("DELETE FROM t WHERE n = 1", 1, 2),
        ("DROP TABLE t", 0, 0),
        ("CREATE TABLE T (a STRING, b STRING, c STRING)", 0, 3),
        ("INSERT INTO T VALUES ('a', 'b', 'c')", 1, 3),
        ("CREATE TABLE t (n INT64)", 0, 1),
    ] {
        let reply = sut.change(change).await.unwrap();
        reply.batches.collect().await.unwrap();
        for _ in 0..2 {
            match sut.query.query(Query::read(all)).await {
                Ok(reply) => {
                    assert_eq!(reply.batches.schema().fields().len(), columns, "{change}");
                    let batches = reply.batches.collect().await.unwrap();
                    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows, "{change}");
                }
                Err(error) => assert_eq!((error.kind(), columns), (ErrorKind::NotFound, 0), "{change}: {error}"),
            }
        }
    }
}

pub async fn a_table_says_which_column_is_its_time(sut: Sut) {
    for definition in [
        "CREATE TABLE a (k VARCHAR, ts TIMESTAMP, traded TIMESTAMP, v BIGINT) TIMESTAMP(traded)",
        "CREATE TABLE b (k VARCHAR, ts TIMESTAMP, traded TIMESTAMP, v BIGINT) WITH (time = 'Traded')",
        "CREATE TABLE by_name (other TIMESTAMP, ts TIMESTAMP)",
        "CREATE TABLE first_one (n BIGINT, one TIMESTAMP, two TIMESTAMP)",
        "CREATE TABLE timeless (n BIGINT)",
    ] {
        sut.define(definition).await;
    }
    for table in ["a", "b"] {
        // `ts` and `traded` tell opposite stories.
        sut.change(&format!(
            "INSERT INTO {table} VALUES ('x', '2026-01-01T00:00:09', '2026-01-01T00:00:01', 1),
            ('x', '2026-01-01T00:00:01', '2026-01-01T00:00:09', 2)"
        ))
        .await
        .unwrap();
    }
    sut.define("CREATE TABLE c AS (SELECT * FROM a) TIMESTAMP(traded)").await;
    let time = async |table: &str| sut.query.table(table.to_owned(), Caller::default()).await.unwrap().time_column;
    let expected = [("a", Some("traded")), ("b", Some("traded")), ("c", Some("traded")), ("by_name", Some("ts"))];
    for (table, column) in expected.into_iter().chain([("first_one", Some("one")), ("timeless", None)]) {
        assert_eq!(time(table).await.as_deref(), column, "{table}");
    }
    for (sql, answer) in [
        ("SELECT last(v) FROM a", 2),
        ("SELECT last(x.v) FROM a AS x", 2),
        ("SELECT last(x.v) FROM a AS x(p, q, r, v)", 2),
        ("SELECT first(v) FROM b", 1),
        ("SELECT sum(last) FROM (SELECT last(v) AS last FROM c SAMPLE BY 5s)", 3),
        ("SELECT sum(last) FROM (SELECT last(v) AS last FROM c AS d SAMPLE BY 1h)", 2),
        ("SELECT sum(b.v) FROM a ASOF JOIN b ON (k)", 3),
        ("SELECT sum(b.v) FROM a LT JOIN b ON (k) WHERE a.v = 2", 1),
    ] {
        assert_eq!(int(&sut.read(sql).await.unwrap()), answer, "{sql}");
    }
    sut.define("ALTER TABLE a RENAME COLUMN traded TO happened").await;
    assert_eq!(time("a").await.as_deref(), Some("happened"));
    assert_eq!(int(&sut.read("SELECT last(v) FROM a").await.unwrap()), 2);
    sut.define("ALTER TABLE a DROP COLUMN happened").await;
    assert_eq!(time("a").await.as_deref(), Some("ts"));
    assert_eq!(int(&sut.read("SELECT last(v) FROM a").await.unwrap()), 1);
    assert_eq!(sut.read("SELECT * FROM c").await.unwrap()[0].schema().metadata().len(), 0);
    for (definition, kind, text) in [
        ("CREATE TABLE d (v BIGINT) WITH (time = 'v')", ErrorKind::InvalidQuery, "has type INT64"),
        ("CREATE TABLE d (ts TIMESTAMP) TIMESTAMP(tss)", ErrorKind::InvalidQuery, "did you mean \"ts\""),
        ("CREATE TABLE d (ts TIMESTAMP) WITH (ttl = '1 day')", ErrorKind::Unsupported, "ttl"),
    ] {
        let error = sut.change(definition).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{definition}");
        assert!(error.message().contains(text), "{definition}: {}", error.message());
    }
}

pub async fn system_tables_are_read_like_others(sut: Sut) {
    sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let named = one(&sut.read("SELECT name FROM SYSTEM.Tables WHERE rows = 100 ORDER BY name").await.unwrap());
    assert_eq!(named.column(0).as_string::<i32>().value(0), "t");
    let description = sut.query.describe(Query::read("SELECT name, rows FROM system.tables")).await.unwrap();
    assert_eq!(description.schema.field(1).data_type(), &DataType::Int64);
    assert_eq!(sut.rows("SELECT * FROM system.writers").await, 0);
    sut.rows("SELECT t.name, f.path FROM system.tables t JOIN system.files f ON f.\"table\" = t.name").await;
    sut.rows("SELECT * FROM system.recovery").await;
    // They are made for each statement, and are no tables of anybody.
    sut.put("t", vec![numbers(100, 1)]).await.unwrap();
    assert_eq!(sut.rows("SELECT * FROM system.tables WHERE rows = 101").await, 1);
    assert_eq!(sut.query.tables(Caller::default()).await.unwrap().len(), 1);
    let unknown = sut.read("SELECT * FROM system.nothing").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}
