//! Bodies over HTTP: every value is stored as it was written, or the body is refused.

use crate::harness::{connect, memory, serve_flight, serve_http};
use crate::http_wire::wire;
use serde_json::json;
use zepto_flight::ports::Limits;

/// `a`, `1`: two lines, gzipped.
const GZIPPED: [u8; 24] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0xe4, 0x32, 0xe4, 0x02, 0x00, 0x00, 0x24, 0xc1,
    0x89, 0x04, 0x00, 0x00, 0x00,
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_column_cannot_hold_is_refused_in_every_text() {
    let wire = wire().await;
    wire.sut.define("CREATE TABLE t (n INT64, d DECIMAL(10,2), f FLOAT64, day DATE32, s TIMESTAMP_S, l INT64[])").await;
    for (column, value) in [
        ("n", "1.5"),
        ("n", "-9223372036854775809"),
        ("n", "9223372036854775808"),
        ("n", "\"007\""),
        ("n", "true"),
        ("d", "1.005"),
        ("f", "9007199254740993"),
        ("day", "\"2024-01-01T10:00:00\""),
        ("s", "\"2024-01-01T10:00:00.9\""),
        ("l", "[1, 1.5]"),
    ] {
        let row = format!("{{\"{column}\":{value}}}");
        for (form, body) in [("ndjson", row.clone()), ("json", format!("[{row}]"))] {
            let (status, answer) = wire.post(&format!("/insert/{form}?table=t"), body).await;
            assert_eq!(status, 422, "{form} {row}: {answer}");
            assert_eq!(answer["error"]["kind"], "SchemaMismatch", "{row}: {answer}");
        }
        if column != "l" && value != "true" {
            let body = format!("{column}\n{}\n", value.trim_matches('"'));
            let (status, answer) = wire.post("/insert/csv?table=t", body).await;
            assert_eq!(status, 422, "csv {row}: {answer}");
        }
    }
    let (status, answer) =
        wire.post("/insert/msgpack?table=t", vec![0x81, 0xa1, b'n', 0x91, 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(wire.sut.rows("SELECT * FROM t").await, 0);
    let row = r#"{"n":"12","d":1.50,"f":0.1,"day":"2024-01-02","s":"2024-01-01T10:00:00.0","l":[1,2.0]}"#;
    let (status, answer) = wire.post("/insert/ndjson?table=t", row).await;
    assert_eq!((status, &answer["inserted"]), (200, &json!(1)), "{answer}");
    let stored = wire.text("/?format=csv", "SELECT n, d, f, day, s, l[2] AS l FROM t").await;
    assert_eq!(stored.lines().nth(1), Some("12,1.50,0.1,2024-01-02,2024-01-01T10:00:00,2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_is_kept_or_refused() {
    let wire = wire().await;
    // A table made from whole prices takes no fraction: it says so.
    assert_eq!(wire.post("/insert/ndjson?table=px", r#"{"px":1}"#).await.0, 200);
    assert_eq!(wire.post("/insert/ndjson?table=px", r#"{"px":1.5}"#).await.0, 422);
    let mut rows: String = (0..300_000).map(|_| "{\"px\":1}\n").collect();
    rows.push_str("{\"px\":1.75}\n");
    assert_eq!(wire.post("/insert/ndjson?table=late", rows).await.0, 422);
    // Codes stay codes.
    assert_eq!(wire.post("/insert/csv?table=codes", "code,n\n007,10\n12,0\n").await.0, 200);
    assert_eq!(wire.text("/?format=csv", "SELECT * FROM codes ORDER BY n DESC").await, "code,n\n007,10\n12,0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_first_lines_and_packed_bodies_are_read() {
    let wire = wire().await;
    let long = "é".repeat(1_500_000);
    for (form, body) in [("ndjson", format!("{{\"s\":\"{long}\"}}\n")), ("csv", format!("s\n{long}\n"))] {
        let (status, answer) = wire.post(&format!("/insert/{form}?table={form}"), body).await;
        assert_eq!((status, &answer["inserted"]), (200, &json!(1)), "{form}: {answer}");
    }
    let packed = |encoding: &'static str, body: Vec<u8>| {
        let request = wire.http.post(format!("{}/insert/csv?table=packed", wire.url));
        request.header("content-encoding", encoding).body(body).send()
    };
    assert_eq!(packed("gzip", GZIPPED.to_vec()).await.unwrap().status(), 200);
    assert_eq!(packed("rot13", b"a\n1\n".to_vec()).await.unwrap().status(), 415);
    assert_eq!(packed("gzip", b"a\n1\n".to_vec()).await.unwrap().status(), 400);
    assert_eq!(wire.sut.rows("SELECT * FROM packed WHERE a = 1").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_come_in_the_body_or_in_the_address() {
    let wire = wire().await;
    let (status, answer) = wire.post("/?query=SELECT%201%20AS%20n", "").await;
    assert_eq!((status, &answer["data"]), (200, &json!([[1]])), "{answer}");
    assert_eq!(wire.post("/?query=SELECT%201", "SELECT 2").await.0, 400);
    assert_eq!(wire.text("/?format=csv", "\u{feff}SELECT 1 AS n").await, "n\n1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_have_no_key_twice() {
    let wire = wire().await;
    let sql = "SELECT a.i, b.i FROM (SELECT 1 AS i) a, (SELECT 2 AS i) b";
    for format in ["?default_format=JSON", "?format=ndjson", "?default_format=JSONEachRow"] {
        let (status, answer) = wire.post(&format!("/{format}"), sql).await;
        assert_eq!(status, 400, "{format}: {answer}");
    }
    assert_eq!(wire.text("/?format=csv", sql).await, "i,i\n1,2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_held_to_the_same_behind_a_gateway() {
    let flight = serve_flight(memory(), Limits::default()).await;
    let over_flight = serve_http(connect(&flight.url), Limits::default()).await;
    let http = serve_http(memory(), Limits::default()).await;
    let over_http = serve_http(connect(&http.url), Limits::default()).await;
    for gateway in [&over_flight.url, &over_http.url] {
        let post =
            |path: &str, body: &'static str| reqwest::Client::new().post(format!("{gateway}{path}")).body(body).send();
        assert_eq!(post("/insert/ndjson?table=px", "{\"px\":1}\n").await.unwrap().status(), 200, "{gateway}");
        assert_eq!(post("/insert/ndjson?table=px", "{\"px\":1.5}\n").await.unwrap().status(), 422, "{gateway}");
        assert_eq!(post("/insert/csv?table=px", "px\n2\n").await.unwrap().status(), 200, "{gateway}");
        let sums =
            post("/?format=csv", "SELECT sum(px), arrow_typeof(max(px)) FROM px").await.unwrap().text().await.unwrap();
        assert_eq!(sums.lines().nth(1), Some("3,Int64"), "{gateway}");
    }
}
