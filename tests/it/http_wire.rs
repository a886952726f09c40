//! HTTP as others speak it: exact statuses, headers and bytes.

use crate::harness::{Sut, memory_with, numbers, one, serve_http};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zepto_flight::ports::{Caller, Limits};

async fn json_of(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default()
}

pub struct Wire {
    pub url: String,
    pub http: reqwest::Client,
    pub sut: Sut,
}

pub async fn wire() -> Wire {
    wire_with(Limits::default()).await
}

async fn wire_with(limits: Limits) -> Wire {
    let backend = memory_with(limits.clone());
    let served = serve_http(backend.clone(), limits).await;
    Wire { url: served.url, http: reqwest::Client::new(), sut: Sut::of(backend, vec![served.guard]) }
}

impl Wire {
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let response = self.http.post(format!("{}{path}", self.url)).body(body).send().await.unwrap();
        (response.status().as_u16(), json_of(response).await)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), json_of(response).await)
    }

    pub async fn text(&self, path: &str, sql: &str) -> String {
        let response = self.http.post(format!("{}{path}", self.url)).body(sql.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{sql}");
        response.text().await.unwrap()
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// What comes back for raw bytes, until the server closes or a moment passes.
    async fn raw(&self, request: &[u8], patience: Duration) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn ipc(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_in_every_format() {
    let wire = wire().await;
    let sql = "SELECT * FROM (VALUES (9223372036854775807, 1.5, 'a,\"b\"'), (NULL, CAST('NaN' AS FLOAT64), NULL)) AS t (n, f, s)";
    let body = wire.text("/", sql).await;
    let head = r#"{"columns":["n","f","s"],"data":[[9223372036854775807,1.5,"a,\"b\""],[null,null,null]],"rows":2,"execution_time_us":"#;
    assert!(body.starts_with(head), "{body}");
    let time = body[head.len()..].trim_end().trim_end_matches('}');
    assert_eq!(time.split_once('.').unwrap().1.len(), 2, "{time}");
    assert!(wire.text("/?nan=string", sql).await.contains("[null,\"NaN\",null]"));
    assert_eq!(
        wire.text("/?format=ndjson", sql).await,
        "{\"n\":9223372036854775807,\"f\":1.5,\"s\":\"a,\\\"b\\\"\"}\n{\"n\":null,\"f\":null,\"s\":null}\n"
    );
    assert_eq!(wire.text("/?format=csv", sql).await, "n,f,s\n9223372036854775807,1.5,\"a,\"\"b\"\"\"\n,NaN,\n");
    assert!(wire.text("/", "SELECT 1 AS a WHERE false").await.starts_with(r#"{"columns":["a"],"data":[],"rows":0,"#));
    wire.sut.put("t", vec![numbers(0, 5_000)]).await.unwrap();
    for (path, accept) in [
        ("/?default_format=Arrow", ""),
        ("/?default_format=ArrowStream", "text/csv"),
        ("/", "application/vnd.apache.arrow.stream"),
    ] {
        let request = wire.http.post(format!("{}{path}", wire.url)).header("accept", accept).body("SELECT * FROM t");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/vnd.apache.arrow.stream");
        assert_eq!(response.headers()["x-zepto-format"], "arrow-stream");
        let body = response.bytes().await.unwrap();
        let batches: Vec<_> = StreamReader::try_new(body.as_ref(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(one(&batches), numbers(0, 5_000));
    }
    for encoding in ["gzip", "zstd"] {
        let request = wire.http.post(&wire.url).header("accept-encoding", encoding).body("SELECT * FROM t");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        assert!(response.bytes().await.unwrap().len() < 80_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_answer_their_count() {
    let wire = wire().await;
    let (status, body) = wire.post("/", "CREATE TABLE t (n INT64)").await;
    assert_eq!((status, &body["columns"], &body["rows"]), (200, &json!([]), &json!(0)));
    for (sql, column, count) in [
        ("INSERT INTO t VALUES (1), (2), (3)", "inserted", 3),
        ("UPDATE t SET n = 0 WHERE n = 1", "updated", 1),
        ("DELETE FROM t WHERE n > 1", "deleted", 2),
    ] {
        let (status, body) = wire.post("/", sql).await;
        assert_eq!((status, &body["columns"], &body["data"]), (200, &json!([column]), &json!([[count]])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_reads_only() {
    let wire = wire().await;
    let (status, body) = wire.get("/?query=SELECT%201%20AS%20a").await;
    assert_eq!((status, &body["data"]), (200, &json!([[1]])));
    for sql in
        ["DROP%20TABLE%20t", "CREATE%20TABLE%20t%20(a%20INT)", "SELECT%201%20AS%20a%20INTO%20t", "COPY%20t%20TO%20'x'"]
    {
        let response = wire.http.get(format!("{}/?query={sql}", wire.url)).send().await.unwrap();
        assert_eq!(response.status(), 405, "{sql}");
        assert_eq!(response.headers()["allow"], "POST");
    }
    assert_eq!(wire.get("/?query=SELEC").await.0, 400);
    let (status, body) = wire.get("/").await;
    assert_eq!((status, body["engine"].as_str()), (200, Some("zepto-flight")));
    assert!(wire.sut.query.tables(Caller::default()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_goes_in() {
    let wire = wire().await;
    let body = ipc(&[numbers(0, 5), numbers(5, 5)]);
    let response =
        wire.http.post(format!("{}/insert/arrow?table=t", wire.url)).body(body.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&response.headers()["x-zepto-batches"], &response.headers()["x-zepto-table-created"]),
        (&"2".parse().unwrap(), &"true".parse().unwrap())
    );
    assert_eq!(json_of(response).await, json!({"inserted": 10, "failed": 0}));
    assert_eq!(one(&wire.sut.read("SELECT * FROM t").await.unwrap()), numbers(0, 10));
    // However the stream is cut off, nothing of it stays.
    for cut in [0, 3, 20, body.len() / 2, body.len() - 9, body.len() - 1] {
        let (status, answer) = wire.post("/insert/arrow?table=t", body[..cut].to_vec()).await;
        assert_eq!((status, answer["error"]["kind"].as_str()), (400, Some("InvalidQuery")), "{cut}: {answer}");
    }
    let trailing = [body.clone(), b"more".to_vec()].concat();
    assert_eq!(wire.post("/insert/arrow?table=t", trailing).await.0, 400);
    let wrong =
        RecordBatch::try_from_iter([("n", std::sync::Arc::new(arrow::array::StringArray::from(vec!["x"])) as _)])
            .unwrap();
    assert_eq!(wire.post("/insert/arrow?table=t", ipc(&[wrong])).await.0, 422);
    let typed = |media_type: &str| {
        wire.http
            .post(format!("{}/insert/arrow?table=t", wire.url))
            .header("content-type", media_type)
            .body(body.clone())
            .send()
    };
    assert_eq!(typed("text/csv").await.unwrap().status(), 415);
    assert_eq!(typed("application/vnd.apache.arrow.stream").await.unwrap().status(), 200);
    assert_eq!(wire.sut.rows("SELECT * FROM t").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_routes() {
    let wire = wire().await;
    wire.sut.put("odd name", vec![numbers(0, 4)]).await.unwrap();
    let (status, body) = wire.get("/tables").await;
    assert_eq!((status, &body["tables"][0]["name"], &body["tables"][0]["rows"]), (200, &json!("odd name"), &json!(4)));
    assert_eq!(body["tables"][0]["columns"][0], json!({"name": "n", "type": "Int64", "nullable": true}));
    assert_eq!(wire.get("/tables/odd%20name").await.1["rows"], json!(4));
    assert_eq!(wire.get("/tables/nope").await.0, 404);
    let (status, body) = wire.post("/describe", "SELECT * FROM \"odd name\"").await;
    assert_eq!((status, &body["kind"], &body["rows"]), (200, &json!("read"), &json!(4)));
    let (status, body) = wire.post("/describe", "DROP TABLE \"odd name\"").await;
    assert_eq!((status, &body["kind"], &body["rows"]), (200, &json!("definition"), &json!(0)));
    assert_eq!(wire.get("/health").await.1["backend"], json!("test:"));
    assert_eq!(wire.get("/ready").await, (200, json!({"status": "ready", "backend": "test:"})));
    assert_eq!(wire.get("/version").await.1["version"], json!("test"));
    assert_eq!(wire.get("/stats").await.1["rows"], json!(4));
    let ping = wire.http.get(format!("{}/ping", wire.url)).send().await.unwrap();
    assert_eq!(ping.text().await.unwrap(), "Ok\n");
    let (status, body) = wire.get("/nowhere").await;
    assert_eq!((status, &body["error"]["kind"]), (404, &json!("NotFound")));
    for (path, allow) in [("/describe", "POST"), ("/insert/arrow", "POST"), ("/snapshot", "POST")] {
        let response = wire.http.get(format!("{}{path}", wire.url)).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &allow.parse().unwrap()),
            "{path}"
        );
    }
    assert_eq!(wire.post("/tables", "").await.0, 405);
    let deleted = wire.http.delete(&wire.url).send().await.unwrap();
    assert_eq!((deleted.status().as_u16(), &deleted.headers()["allow"]), (405, &"GET, POST".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_what_is_wrong_with_them() {
    let wire = wire_with(Limits { sql_bytes_max: 1_000, ..Limits::default() }).await;
    let request = |media_type: &str, accept: &str, body: &str| {
        wire.http
            .post(&wire.url)
            .header("content-type", media_type)
            .header("accept", accept)
            .body(body.to_owned())
            .send()
    };
    assert_eq!(request("application/json", "*/*", "{}").await.unwrap().status(), 415);
    assert_eq!(request("text/plain", "image/png", "SELECT 1").await.unwrap().status(), 406);
    assert_eq!(request("text/plain", "*/*", &"x".repeat(2_000)).await.unwrap().status(), 413);
    assert_eq!(wire.post("/", vec![0xff, 0xfe]).await.0, 400);
    assert_eq!(wire.post("/", "").await.0, 400);
    assert_eq!(wire.post("/?format=xml", "SELECT 1").await.0, 400);
    assert_eq!(wire.post("/?nan=maybe", "SELECT 1").await.0, 400);
    let own = wire.http.post(&wire.url).header("x-request-id", "abc-1").body("SELEC").send().await.unwrap();
    assert_eq!(own.headers()["x-request-id"], "abc-1");
    assert_eq!(json_of(own).await["error"]["request_id"], json!("abc-1"));
    let odd =
        wire.http.post(&wire.url).header("x-request-id", "no spaces please").body("SELECT 1").send().await.unwrap();
    assert_eq!(odd.headers()["x-request-id"].len(), 32);
    let large = wire.http.get(&wire.url).header("x-large", "x".repeat(100_000)).send().await.unwrap();
    assert_eq!(large.status(), 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_shown_the_door() {
    let limits = Limits { header_timeout_ms: 300, body_timeout_ms: 300, ..Limits::default() };
    let wire = wire_with(limits).await;
    let began = Instant::now();
    let patience = Duration::from_secs(10);
    let headers = wire.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", patience).await;
    assert!(!headers.contains(" 200 "), "{headers}");
    let body = wire.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nSELECT", patience).await;
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    let insert = wire
        .raw(b"POST /insert/arrow?table=t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n\xff\xff", patience)
        .await;
    assert!(insert.starts_with("HTTP/1.1 408"), "{insert}");
    let idle = wire.raw(b"", patience).await;
    assert!(!idle.contains(" 200 "));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_hold_nobody_up() {
    let wire = wire().await;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(TcpStream::connect(wire.address()).await.unwrap());
    }
    for _ in 0..10 {
        assert_eq!(wire.post("/", "SELECT 1").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_result_leaves_before_it_is_whole() {
    let wire = wire().await;
    let mut stream = TcpStream::connect(wire.address()).await.unwrap();
    let sql = "SELECT * FROM generate_series(1, 1000000000000)";
    let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{sql}", sql.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = vec![0; 100_000];
    stream.read_exact(&mut first).await.unwrap();
    assert!(String::from_utf8_lossy(&first).contains("[1],[2],[3],"));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_in_every_format() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (n INT64 NOT NULL, s STRING, at TIMESTAMP_MS)").await;
    wire.sut.count("INSERT INTO t VALUES (1, 'a\tb\\', '1970-01-01 00:00:01.5'), (2, NULL, NULL)").await;
    let sql = "SELECT * FROM t";
    assert_eq!(wire.text("/?format=tsv", sql).await, "n\ts\tat\n1\ta\\tb\\\\\t1970-01-01 00:00:01.500\n2\t\\N\t\\N\n");
    assert_eq!(wire.text("/?default_format=CSV", sql).await, "1,a\tb\\,1970-01-01T00:00:01.500\n2,,\n");
    assert_eq!(
        wire.text("/?default_format=CSVWithNames", sql).await,
        "n,s,at\n1,a\tb\\,1970-01-01T00:00:01.500\n2,,\n"
    );
    let rows =
        [json!({"n": 1, "s": "a\tb\\", "at": "1970-01-01 00:00:01.500"}), json!({"n": 2, "s": null, "at": null})];
    let meta = json!([
        {"name": "n", "type": "Int64"},
        {"name": "s", "type": "Nullable(String)"},
        {"name": "at", "type": "Nullable(DateTime64(3))"},
    ]);
    // As Grafana's plugin for ClickHouse asks, by a FORMAT behind the statement, and as ClickHouse's own clients do.
    for (path, sql) in [("/", "SELECT * FROM t FORMAT JSON"), ("/?default_format=JSON", sql)] {
        let (_, answer) = wire.post(path, sql).await;
        assert_eq!(
            (&answer["meta"], &answer["data"], &answer["rows"]),
            (&meta, &json!(rows), &json!(2)),
            "{path} {sql}"
        );
        assert_eq!(answer["statistics"]["rows_read"], json!(2));
        assert!(answer["statistics"]["elapsed"].is_number());
    }
    let (_, compact) = wire.post("/?default_format=JSONCompact", "SELECT n FROM t").await;
    assert_eq!((&compact["data"], &compact["meta"][0]["type"]), (&json!([[1], [2]]), &json!("Int64")));
    assert_eq!(wire.text("/?default_format=JSONEachRow", "SELECT n FROM t").await, "{\"n\":1}\n{\"n\":2}\n");
    let response = wire.http.post(format!("{}/?format=parquet", wire.url)).body(sql).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/vnd.apache.parquet");
    let file = response.bytes().await.unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(one(&read).columns(), one(&wire.sut.read(sql).await.unwrap()).columns());
    let (status, refused) = wire.post("/?format=xml", sql).await;
    assert_eq!(status, 400);
    assert!(refused["error"]["message"].as_str().unwrap().contains("JSONCompact"));
    let (status, unfit) = wire.post("/?format=parquet", "SELECT INTERVAL '1 month 2 days' AS i").await;
    assert_eq!((status, &unfit["error"]["kind"]), (501, &json!("Unsupported")), "before the first byte, not after");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_given_as_headers_ask_for() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (s SYMBOL, at TIMESTAMPTZ)").await;
    wire.sut.count("INSERT INTO t VALUES ('a', to_timestamp(0)), ('b', to_timestamp(1))").await;
    let ask = async |format: &str, headers: &[(&str, &str)]| {
        let request = wire.http.post(format!("{}/?format={format}", wire.url)).body("SELECT * FROM t");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    };
    let asked = [("x-zepto-string-encoding", "plain"), ("x-zepto-timestamp-unit", "ms"), ("x-zepto-batch-rows", "1")];
    let body = ask("arrow", &asked).await.bytes().await.unwrap();
    let reader = StreamReader::try_new(body.as_ref(), None).unwrap();
    let types: Vec<_> = reader.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Utf8", "Timestamp(ms, \"UTC\")"]);
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>(), [1, 1]);
    let json = json_of(ask("json", &[("x-zepto-time-zone", "Asia/Tokyo")]).await).await;
    assert_eq!(json["data"][1], json!(["b", "1970-01-01T09:00:01.000000000+09:00"]));
    let described =
        wire.http.post(format!("{}/describe", wire.url)).header("accept", "text/html").body("SELECT s FROM t");
    let described = json_of(described.header("x-zepto-string-encoding", "plain").send().await.unwrap()).await;
    let (_, plain) = wire.post("/describe", "SELECT 'a' AS s FROM t").await;
    assert_eq!(described["schema"].as_str().unwrap().len(), plain["schema"].as_str().unwrap().len());
    // What cannot be given so is an answer, and not a connection that breaks.
    wire.sut.define("CREATE TABLE far (at TIMESTAMP_S)").await;
    wire.sut.count("INSERT INTO far VALUES ('3000-01-01T00:00:00')").await;
    let far = wire.http.post(&wire.url).header("x-zepto-timestamp-unit", "ns").body("SELECT * FROM far");
    let far = far.send().await.unwrap();
    assert_eq!(far.status(), 400);
    assert!(json_of(far).await["error"]["message"].as_str().unwrap().contains("cannot convert column"));
    let wrong = ask("json", &[("x-zepto-timestamp-unit", "fortnight")]).await;
    assert_eq!(wrong.status(), 400);
    assert!(json_of(wrong).await["error"]["message"].as_str().unwrap().contains("header x-zepto-timestamp-unit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_in_the_address_are_values_and_never_text() {
    let wire = wire().await;
    wire.sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let rows = |answer: (u16, Value)| answer.1["data"].clone();
    assert_eq!(rows(wire.post("/?param_n=42", "SELECT n, name FROM t WHERE n = $n").await), json!([[42, "row 42"]]));
    assert_eq!(
        rows(wire.post("/?param_1=3&param_2=row%203", "SELECT n FROM t WHERE n <= ? AND name = ?").await),
        json!([[3]])
    );
    let sly = "/?param_name=x%27%20OR%20%27a%27%3D%27a";
    assert_eq!(rows(wire.post(sly, "SELECT count(*) FROM t WHERE name = $name").await), json!([[0]]));
    assert_eq!(
        rows(wire.post("/?param_x=%5CN", "SELECT count(*) FROM t WHERE name IS NOT DISTINCT FROM $x").await),
        json!([[20]])
    );
    for (path, word) in [("/?param_n=many", "many"), ("/?param_m=1", "$m"), ("/?param_n=1&param_o=2", "$o")] {
        let (status, answer) = wire.post(path, "SELECT n FROM t WHERE n = $n").await;
        assert_eq!(status, 400);
        assert!(answer["error"]["message"].as_str().unwrap().contains(word), "{answer}");
    }
    let (status, inserted) = wire.post("/?param_a=7&param_b=seven", "INSERT INTO t (n, name) VALUES ($a, $b)").await;
    assert_eq!((status, &inserted["data"]), (200, &json!([[1]])));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_inserted_from_every_format() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (n INT64, s STRING, at TIMESTAMP_MS, d DECIMAL(5,2))").await;
    let packed = rmp_serde::to_vec(&json!({"n": [4], "s": ["p"], "at": ["1970-01-01T00:00:04"], "d": [4.5]})).unwrap();
    let bodies: [(&str, Vec<u8>); 5] = [
        ("csv", b"n,s,at,d\n1,\"a,b\",1970-01-01T00:00:01,1.5\n2,,,\n".to_vec()),
        ("csv", b"s,n\nx,3\n".to_vec()),
        ("ndjson", b"{\"n\":5,\"s\":\"j\"}\n\n{\"n\":6}\n".to_vec()),
        ("json", b"[{\"n\":7,\"at\":\"1970-01-01T00:00:07\"},{\"n\":8,\"d\":1.25}]".to_vec()),
        ("msgpack", packed),
    ];
    for (format, body) in bodies {
        let (status, answer) = wire.post(&format!("/insert/{format}?table=t"), body).await;
        assert!(status == 200 && answer["failed"] == 0, "{format}: {answer}");
    }
    let (_, all) = wire.post("/", "SELECT * FROM t ORDER BY n").await;
    let expected = json!([
        [1, "a,b", "1970-01-01T00:00:01.000", 1.5],
        [2, null, null, null],
        [3, "x", null, null],
        [4, "p", "1970-01-01T00:00:04.000", 4.5],
        [5, "j", null, null],
        [6, null, null, null],
        [7, null, "1970-01-01T00:00:07.000", null],
        [8, null, null, 1.25],
    ]);
    assert_eq!(all["data"], expected);
    // What a query answers goes back in, in every form that both sides have.
    for format in ["json", "ndjson", "csv", "parquet", "arrow"] {
        let response = wire.http.post(format!("{}/?format={format}", wire.url)).body("SELECT n, s FROM t").send().await;
        let body = response.unwrap().bytes().await.unwrap();
        let (status, answer) = wire.post(&format!("/insert/{format}?table=from_{format}"), body).await;
        assert!(status == 200 && answer["inserted"] == 8, "{format}: {answer}");
        assert_eq!(wire.sut.rows(&format!("SELECT * FROM from_{format} WHERE n > 4")).await, 4, "{format}");
    }
    let before = wire.sut.rows("SELECT * FROM t").await;
    for (format, body, status) in [
        ("csv", "n,s\n1,a\nnot a number,b\n", 422),
        ("ndjson", "{\"n\":1}\n{\"n\":", 400),
        ("json", "42", 400),
        ("msgpack", "nonsense", 400),
        ("parquet", "PAR1 nonsense", 400),
        ("csv", "n,unknown\n1,2\n", 422),
        ("xml", "<n>1</n>", 404),
        ("csv", "", 400),
        ("csv", "n,s\n1,\"a\n2,b\n3,c\n", 400),
    ] {
        let (answered, answer) = wire.post(&format!("/insert/{format}?table=t"), body).await;
        assert_eq!(answered, status, "{format}: {answer}");
    }
    assert_eq!(wire.sut.rows("SELECT * FROM t").await, before, "all of a body or nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_goes_in_with_every_digit_and_every_row() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (u UINT64, d DECIMAL(38, 20), f FLOAT64)").await;
    let digits = "[\n {\"u\": 18446744073709551615,\n  \"d\": -0.12345678901234567891 },\n {\"f\": 0.1}\n]\n";
    let (status, answer) = wire.post("/insert/json?table=t", digits).await;
    assert_eq!((status, &answer["inserted"]), (200, &json!(2)), "{answer}");
    let answered = "{\"columns\":[\"d\",\"u\"],\"data\":[[1.00000000000000000001, 7]],\"rows\":1}";
    assert_eq!(wire.post("/insert/json?table=t", answered).await.1["inserted"], 1);
    let text = wire.text("/?format=csv", "SELECT * FROM t ORDER BY u DESC NULLS LAST").await;
    let lines = ["u,d,f", "18446744073709551615,-0.12345678901234567891,", "7,1.00000000000000000001,", ",,0.1"];
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    let rows: Vec<_> = (0..40_000).map(|n| json!({"n": n, "s": format!("row {n}")})).collect();
    assert_eq!(wire.post("/insert/json?table=many", serde_json::to_vec(&rows).unwrap()).await.1["inserted"], 40_000);
    let (_, sums) = wire.post("/", "SELECT count(*), sum(n), count(DISTINCT s) FROM many").await;
    assert_eq!(sums["data"], json!([[40_000, 799_980_000, 40_000]]));
    for wrong in ["", "1", "[1]", "[null]", "[{\"u\":1},", "{\"data\":[1]}", "{\"columns\":[\"u\"],\"data\":[[1,2]]}"] {
        assert_eq!(wire.post("/insert/json?table=t", wrong).await.0, 400, "{wrong}");
    }
}

/// A few bytes may stand for a great many values.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_take_no_more_memory_than_there_is() {
    let wire = wire_with(Limits { memory_bytes_max: 32 << 20, ..Limits::default() }).await;
    let members = |count: usize| (0..count).map(|at| format!("\"c{at}\":1")).collect::<Vec<_>>().join(",");
    let sparse = format!("[{{{}}}{}]", members(100), ",{}".repeat(100_000));
    let (status, answer) = wire.post("/insert/json?table=t", sparse.clone()).await;
    assert!(status != 200 && answer["error"]["kind"] == "LimitExceeded", "{answer}");
    let lines = sparse[1..sparse.len() - 1].replace("},{", "}\n{");
    assert_eq!(wire.post("/insert/ndjson?table=t", lines).await.1["error"]["kind"], "LimitExceeded");
    let wide = format!("{{\"a\":{{{}}}}}", members(100_000));
    for format in ["json", "ndjson"] {
        let body = if format == "json" { format!("[{wide}]") } else { wide.clone() };
        assert_eq!(wire.post(&format!("/insert/{format}?table=w"), body).await.1["inserted"], 1, "{format}");
    }
    let dense = format!("[{{\"a\":[{{{}}}{}]}}]", members(10_000), ",{}".repeat(100_000));
    for (format, body) in [("ndjson", &dense[1..dense.len() - 1]), ("json", &dense)] {
        let (_, answer) = wire.post(&format!("/insert/{format}?table=d"), body.to_owned()).await;
        assert!(answer["error"]["message"].as_str().unwrap().contains("send them as Arrow"), "{answer}");
    }
    let (head, nulls) = (format!("{{\"a\":[{{{}}}]}}\n", members(10_000)), ",null".repeat(250_000));
    let (_, answer) = wire.post("/insert/ndjson?table=d", format!("{head}{{\"a\":[null{nulls}]}}\n")).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("send them as Arrow"), "{answer}");
    let deep = format!("{{\"a\":1}}\n{{\"a\":{}{}}}\n", "[".repeat(2 << 20), "]".repeat(2 << 20));
    assert!(wire.post("/insert/ndjson?table=deep", deep).await.1.to_string().contains("nests deeper"));
    let long = format!("[{{\"a\":[1,[{}1]]}}]", "1,".repeat(100_000));
    assert!(wire.post("/insert/json?table=l", long).await.1.to_string().len() < 2_000);
    assert_eq!(wire.get("/health").await.0, 200);
}

/// Rows that are far longer than the beginning let expect, with line ends of all kinds within quotes and without.
#[tokio::test(flavor = "multi_thread")]
async fn long_rows_go_in_by_smaller_batches() {
    let wire = wire().await;
    for (format, end) in [("csv", "\n"), ("csv", "\r\n"), ("ndjson", "\n")] {
        let text = format!("{}{end}", "x,\"\"y".repeat(10)).repeat(40);
        let row = |n: usize| match format {
            "csv" => format!("{n},\"{text}\",{n}{end}"),
            _ => format!("{}{end}", json!({"n": n, "text": text, "m": n})),
        };
        let mut body = if format == "csv" { format!("n,text,m{end}") } else { String::new() };
        (0..9_000).for_each(|n| body.push_str(&row(n)));
        let (_, answer) = wire.post(&format!("/insert/{format}?table=long&if_exists=replace"), body).await;
        assert_eq!(answer["inserted"], 9_000, "{format} {end:?}: {answer}");
        let (_, sums) = wire.post("/", "SELECT count(DISTINCT n), sum(n - m), count(DISTINCT text) FROM long").await;
        assert_eq!(sums["data"], json!([[9_000, 0, 1]]), "{format} {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_long_body_is_passed_over() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (n INT64, note STRING)").await;
    // A column that comes late, in a body whose beginning is longer than what types are guessed from.
    let mut lines: String = (0..200_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    lines.push_str("{\"n\":-1,\"note\":\"late\"}\n");
    let (status, answer) = wire.post("/insert/ndjson?table=t", lines.clone()).await;
    assert_eq!((status, &answer["inserted"]), (200, &json!(200_001)), "{answer}");
    assert_eq!(wire.sut.rows("SELECT * FROM t WHERE note = 'late'").await, 1);
    let (status, answer) = wire.post("/insert/ndjson?table=made", lines).await;
    assert_eq!(status, 400, "a new table cannot know the column: {answer}");
    assert_eq!(wire.sut.query.tables(Caller::default()).await.unwrap().len(), 1);
    // Records that lie across the pieces in which a body comes.
    let csv: String = std::iter::once("n,note\n".to_owned())
        .chain((0..50_000).map(|n| format!("{n},\"a note, number {n}\"\n")))
        .collect();
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        csv.as_bytes().chunks(1_001).map(|piece| Ok(piece.to_vec())).collect();
    for table in ["t", "from_csv"] {
        let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(piece.as_ref().unwrap().clone()));
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces.collect::<Vec<_>>()));
        let (status, answer) = wire.post(&format!("/insert/csv?table={table}"), body).await;
        assert_eq!((status, &answer["inserted"]), (200, &json!(50_000)), "{answer}");
        let found = wire.sut.rows(&format!("SELECT * FROM {table} WHERE note = 'a note, number 49999'")).await;
        assert_eq!(found, 1, "{table}");
    }
    // Many columns are few rows at a time, and deep bodies are none.
    let wide: String = (0..9_000).map(|at| format!("c{at},")).collect();
    let (status, _) = wire.post("/insert/csv?table=wide", format!("{wide}z\n{}1\n", ",".repeat(9_000))).await;
    assert_eq!(status, 200);
    let (status, _) = wire.post("/insert/msgpack?table=t", [vec![0x91; 2_000], vec![0xc0]].concat()).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_asked_for_is_the_one_that_comes() {
    let wire = wire().await;
    let arrow = |sql: &'static str| {
        let request = wire.http.post(&wire.url).header("accept", "application/vnd.apache.arrow.stream").body(sql);
        async move { request.send().await.unwrap().headers()["content-type"].to_str().unwrap().to_owned() }
    };
    assert_eq!(arrow("SELECT 1 -- as in FORMAT JSON").await, "application/vnd.apache.arrow.stream");
    let (_, answer) = wire.post("/?format=json", "SELECT 1 AS a -- FORMAT CSV").await;
    assert_eq!(answer["data"], json!([[1]]));
    // What Parquet has no type for is refused before the first byte.
    wire.sut.put("t", vec![numbers(0, 1)]).await.unwrap();
    let union = arrow::array::UnionArray::try_new(
        [(0_i8, Arc::new(arrow::datatypes::Field::new("i", arrow::datatypes::DataType::Int32, true)))]
            .into_iter()
            .collect(),
        vec![0_i8].into(),
        None,
        vec![Arc::new(arrow::array::Int32Array::from(vec![1]))],
    )
    .unwrap();
    let batch = RecordBatch::try_from_iter([("u", Arc::new(union) as arrow::array::ArrayRef)]).unwrap();
    wire.sut.put("unions", vec![batch]).await.unwrap();
    let (status, answer) = wire.post("/?format=parquet", "SELECT * FROM unions").await;
    assert_eq!((status, &answer["error"]["kind"]), (501, &json!("Unsupported")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zeptodbs_columns_are_renamed_and_scaled() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (symbol INT64, price INT64, volume INT64, timestamp TIMESTAMP_NS)").await;
    let packed = rmp_serde::to_vec(&json!({"sym": [1, 2], "px": [1.01, 2.5], "size": [10, 20]})).unwrap();
    let path = "/insert/msgpack?table=t&sym_col=sym&price_col=px&vol_col=size&price_scale=100";
    let (status, answer) = wire.post(path, packed.clone()).await;
    assert_eq!((status, &answer["inserted"]), (200, &json!(2)), "{answer}");
    let (_, read) = wire.post("/", "SELECT symbol, price, volume FROM t").await;
    assert_eq!(read["data"], json!([[1, 101, 10], [2, 250, 20]]));
    let crossed = rmp_serde::to_vec(&json!({"symbol": [3], "price": [30], "volume": [5]})).unwrap();
    let (status, _) = wire.post("/insert/msgpack?table=t&price_col=volume&vol_col=price", crossed).await;
    assert_eq!(status, 200);
    let (_, read) = wire.post("/", "SELECT price, volume FROM t WHERE symbol = 3").await;
    assert_eq!(read["data"], json!([[5, 30]]));
    // A renamed column is read as what it will be: text and plain numbers alike are times. A scaled one is read unscaled.
    for (path, body) in [
        ("csv", "s,p,at\n4,1.25,1970-01-01T00:00:00.000000007\n"),
        ("csv", "s,p,at\n5,1.25,1970-01-01 00:00:00.000000007\n"),
        ("ndjson", "{\"s\": 6, \"p\": 1.25, \"at\": 7}\n"),
        ("json", r#"[{"s": 7, "p": 1.25, "at": 7}]"#),
    ] {
        let path = format!("/insert/{path}?table=t&sym_col=s&price_col=p&ts_col=at&price_scale=100");
        let (status, answer) = wire.post(&path, body).await;
        assert_eq!((status, &answer["inserted"]), (200, &json!(1)), "{body}: {answer}");
    }
    let (_, read) = wire.post("/", "SELECT DISTINCT price, CAST(timestamp AS BIGINT) FROM t WHERE symbol > 3").await;
    assert_eq!(read["data"], json!([[125, 7]]));
    let (status, answer) = wire.post("/insert/ndjson?table=t&price_col=prcie", "{\"symbol\": 8, \"price\": 1}\n").await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("prcie"), "{answer}");
    let text = rmp_serde::to_vec(&json!({"symbol": [4], "price": ["much"]})).unwrap();
    assert_eq!(wire.post("/insert/msgpack?table=t&price_scale=10", text).await.0, 400);
    let (status, answer) = wire.post("/insert/msgpack?table=t&sym_col=nope", packed).await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("nope"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_say_what_to_do_about_their_table_and_bodies_are_joined() {
    let wire = wire().await;
    let (status, _) = wire.post("/insert/csv?table=t&if_missing=fail", "n\n1\n").await;
    assert_eq!(status, 404);
    for (query, rows) in [("if_exists=fail", 1), ("if_exists=append", 2), ("if_exists=replace", 1)] {
        let (status, answer) = wire.post(&format!("/insert/csv?table=t&{query}"), "n\n1\n").await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(wire.sut.rows("SELECT * FROM t").await, rows, "{query}");
    }
    assert_eq!(wire.post("/insert/csv?table=t&if_exists=fail", "n\n1\n").await.0, 409);
    assert_eq!(wire.post("/insert/csv?table=t&if_exists=perhaps", "n\n1\n").await.0, 400);
    let mut body = Vec::new();
    let mut writer = StreamWriter::try_new(&mut body, &numbers(0, 1).schema()).unwrap();
    writer.write(&numbers(0, 3)).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let (status, answer) =
        wire.post("/exchange?query=SELECT%20sum(i.n)%20FROM%20input%20i%20JOIN%20t%20ON%20i.n%20%3D%20t.n", body).await;
    assert_eq!((status, &answer["data"]), (200, &json!([[1]])), "{answer}");
}

/// A time in the address is compared as it is written, as it is in a statement.
#[tokio::test(flavor = "multi_thread")]
async fn times_in_the_address_keep_their_digits() {
    let wire = wire().await;
    wire.post("/", "CREATE TABLE z (id BIGINT, z TIMESTAMP_S, ns TIMESTAMP)").await;
    let rows_in = "INSERT INTO z VALUES (1, '2024-01-01', '2024-01-01'), (2, '1969-12-31 23:59:59', '2024-01-02'), (4, '1970-01-01', '2024-01-03')";
    wire.post("/", rows_in).await;
    for (condition, value, ids) in [
        ("z < ?", "1970-01-01+00:00:00.5", json!([[2], [4]])),
        ("z = ?", "1969-12-31+23:59:59.5", json!([])),
        ("z = ?", "1969-12-31+23:59:59", json!([[2]])),
        ("z >= ?", "1969-12-31+23:59:59.5", json!([[1], [4]])),
        ("z <= ?", "-500000000", json!([[2]])),
        ("ns <= ?", "9999-12-31", json!([[1], [2], [4]])),
        ("ns = ?", "2024-01-01", json!([[1]])),
        ("z < ?", "9999-12-31+00:00:00.5", json!([[1], [2], [4]])),
        ("CAST(z AS DATE) = ?", "9999-12-31+12:00:00", json!([])),
        ("CAST(z AS DATE) < ?", "9999-12-31+12:00:00", json!([[1], [2], [4]])),
    ] {
        let answered =
            wire.post(&format!("/?param_1={value}"), format!("SELECT id FROM z WHERE {condition} ORDER BY id")).await;
        assert_eq!(answered.1["data"], ids, "{condition} {value}: {}", answered.1);
    }
}
