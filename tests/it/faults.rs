//! Faults on demand: every kind of error through each server, and what must not reach a port.

use crate::harness::{connect, numbers, server_options};
use crate::mocks::{MockIngest, MockQuery};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zepto_flight::adapters::{flight, http};
use zepto_flight::app::Backend;
use zepto_flight::ports::{Append, BatchStream, Caller, Error, ErrorKind, Limits, Query, Reply, StatementKind};

/// Serves mocks over both protocols: URLs of Flight and HTTP, and what stops the servers.
async fn serve(
    query: impl Fn() -> MockQuery,
    ingest: impl Fn() -> MockIngest,
    limits: Limits,
) -> ([String; 2], CancellationToken) {
    let stop = CancellationToken::new();
    let flight_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = [
        format!("grpc://{}", flight_listener.local_addr().unwrap()),
        format!("http://{}", http_listener.local_addr().unwrap()),
    ];
    let server = flight::Server::new(Arc::new(query()), Arc::new(ingest()), server_options(limits.clone()));
    tokio::spawn(server.serve(flight_listener, stop.clone().cancelled_owned()));
    let server = http::Server::new(Arc::new(query()), Arc::new(ingest()), server_options(limits));
    tokio::spawn(server.serve(http_listener, stop.clone().cancelled_owned()));
    (urls, stop)
}

fn clients(urls: &[String]) -> Vec<Backend> {
    urls.iter().map(|url| connect(url)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_error_crosses_both_wires() {
    for kind in ErrorKind::ALL {
        let error = move || Error::new(kind, format!("because of {kind}"));
        let query = move || {
            let mut mock = MockQuery::new();
            mock.expect_query().returning(move |_| Err(error()));
            mock.expect_describe().returning(move |_| Err(error()));
            mock.expect_tables().returning(move |_| Err(error()));
            mock.expect_snapshot().returning(move |_| Err(error()));
            mock
        };
        let ingest = move || {
            let mut mock = MockIngest::new();
            mock.expect_append().returning(move |_, _| Err(error()));
            mock
        };
        let (urls, _stop) = serve(query, ingest, Limits::default()).await;
        for client in clients(&urls) {
            let request = Append { table: "t".into(), ..Append::default() };
            let batches = BatchStream::from_batches(numbers(0, 1).schema(), vec![numbers(0, 3)]);
            let errors = [
                client.query.query(Query::read("SELECT 1")).await.err(),
                client.query.describe(Query::read("SELECT 1")).await.err(),
                client.query.tables(Caller::default()).await.err(),
                client.query.snapshot(Caller::default()).await.err(),
                client.ingest.append(request, batches).await.err(),
            ];
            for error in errors {
                let error = error.unwrap();
                assert_eq!(
                    (error.kind(), error.message()),
                    (kind, format!("because of {kind}").as_str()),
                    "{client:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_mid_stream_is_never_a_clean_end() {
    for kind in ErrorKind::ALL {
        let query = move || {
            let mut mock = MockQuery::new();
            mock.expect_query().returning(move |_| {
                let items = vec![Ok(numbers(0, 10)), Err(Error::new(kind, "half way"))];
                let batches = BatchStream::new(numbers(0, 1).schema(), futures::stream::iter(items));
                Ok(Reply { kind: StatementKind::Read, batches })
            });
            mock
        };
        let (urls, _stop) = serve(query, MockIngest::new, Limits::default()).await;
        for client in clients(&urls) {
            let read = async { client.query.query(Query::read("SELECT 1")).await?.batches.collect().await };
            let error = read.await.unwrap_err();
            let exact = error.kind() == kind && error.message() == "half way";
            // HTTP has sent its status by then: it can only break off.
            assert!(
                exact || (format!("{client:?}").contains("http:") && error.kind() == ErrorKind::Unavailable),
                "{kind}: {error:?}"
            );
        }
        for format in ["json", "ndjson", "csv"] {
            let response =
                reqwest::Client::new().post(format!("{}/?format={format}", urls[1])).body("SELECT 1").send().await;
            let body = match response {
                Ok(response) => response.bytes().await,
                Err(error) => Err(error),
            };
            assert!(body.is_err(), "{format} of a result that broke off came to a good end: {body:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_never_reaches_the_ingest_port() {
    let ingest = || {
        let mut mock = MockIngest::new();
        mock.expect_append().never();
        mock
    };
    let (urls, _stop) = serve(MockQuery::new, ingest, Limits::default()).await;
    let http = reqwest::Client::new();
    let post = |path: &str, body: &'static [u8]| http.post(format!("{}{path}", urls[1])).body(body).send();
    for (path, body) in [
        ("/insert/arrow?table=t", b"".as_slice()),
        ("/insert/arrow?table=t", b"\x08\x00\x00\x00not arrow at all"),
        ("/insert/arrow?table=t", b"\xff\xff\xff\xff\x08\x00\x00\x00garbage!"),
        ("/insert/arrow", b"whatever"),
    ] {
        let response = post(path, body).await.unwrap();
        assert_eq!(response.status(), 400, "{path} {body:?}");
    }
    let huge = post("/insert/arrow?table=t", b"\xff\xff\xff\xff\xff\xff\xff\x7f").await.unwrap();
    assert_eq!(huge.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_the_query() {
    for protocol in 0..2 {
        let dropped = CancellationToken::new();
        let guard = dropped.clone();
        let query = move || {
            let guard = guard.clone();
            let mut mock = MockQuery::new();
            mock.expect_query().returning(move |_| {
                let alive = guard.clone().drop_guard();
                let batches = futures::stream::repeat_with(move || {
                    let _ = &alive;
                    Ok(numbers(0, 50_000))
                });
                Ok(Reply { kind: StatementKind::Read, batches: BatchStream::new(numbers(0, 1).schema(), batches) })
            });
            mock
        };
        let (urls, _stop) = serve(query, MockIngest::new, Limits::default()).await;
        let client = connect(&urls[protocol]);
        let mut batches = client.query.query(Query::read("SELECT 1")).await.unwrap().batches;
        batches.next().await.unwrap().unwrap();
        assert!(!dropped.is_cancelled());
        drop(batches);
        drop(client);
        tokio::time::timeout(Duration::from_secs(20), dropped.cancelled())
            .await
            .expect("the query goes on without its client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_finish_then_cuts_them_off() {
    let query = || {
        let mut mock = MockQuery::new();
        mock.expect_query().returning(|_| {
            let schema = numbers(0, 1).schema();
            let batches = futures::stream::iter([Ok(numbers(0, 1))]).chain(futures::stream::pending());
            Ok(Reply { kind: StatementKind::Read, batches: BatchStream::new(schema, batches) })
        });
        mock
    };
    let limits = Limits { shutdown_grace_ms: 700, ..Limits::default() };
    let (urls, stop) = serve(query, MockIngest::new, limits).await;
    let mut running = Vec::new();
    for client in clients(&urls) {
        let mut batches = client.query.query(Query::read("SELECT 1")).await.unwrap().batches;
        batches.next().await.unwrap().unwrap();
        running.push((client, batches));
    }
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = std::time::Instant::now();
    for (client, batches) in &mut running {
        let refused = client.query.query(Query::read("SELECT 1")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{client:?}: {refused:?}");
        let cut =
            tokio::time::timeout(Duration::from_secs(10), batches.next()).await.expect("a stream outlives its server");
        assert_eq!(cut.unwrap().unwrap_err().kind(), ErrorKind::Unavailable, "{client:?}");
    }
    assert!(began.elapsed() > Duration::from_millis(300), "running streams had no time to finish");
}
