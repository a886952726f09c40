//! Clients that connect and then say nothing, half of something, or nothing more.

use crate::harness::{Served, Sut, memory, memory_with, numbers, serve_flight, serve_http};
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use zepto_flight::ports::{Caller, ErrorKind, Limits};

/// The preface of HTTP/2 and an empty SETTINGS frame (RFC 9113).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Far more than any of the times that are set here.
const SOON: Duration = Duration::from_secs(30);

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.url.split_once("://").unwrap().1).await.unwrap()
}

async fn is_closed(mut connection: TcpStream) -> bool {
    let mut received = Vec::new();
    timeout(SOON, connection.read_to_end(&mut received)).await.is_ok()
}

fn short() -> Limits {
    Limits { header_timeout_ms: 200, body_timeout_ms: 300, idle_timeout_ms: 300, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_bring_nothing_are_closed() {
    let flight = serve_flight(memory(), short()).await;
    let silent = connect(&flight).await;
    let mut half = connect(&flight).await;
    half.write_all(&PREFACE[..20]).await.unwrap();
    let mut idle = connect(&flight).await;
    idle.write_all(PREFACE).await.unwrap();
    let (silent, half, idle) = tokio::join!(is_closed(silent), is_closed(half), is_closed(idle));
    assert_eq!((silent, half, idle), (true, true, true));
    let http = serve_http(memory(), short()).await;
    let mut half = connect(&http).await;
    half.write_all(b"GET /ping HTTP/1.1\r\nHost: loc").await.unwrap();
    assert!(is_closed(half).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_call_is_not_idle() {
    let limits = Limits { idle_timeout_ms: 200, ..Limits::default() };
    let backend = memory_with(limits.clone());
    let sut = Sut::of(backend.clone(), Vec::new());
    sut.put("t", (0..60).map(|at| numbers(at * 60_000, 60_000)).collect()).await.unwrap();
    let served = serve_flight(backend, limits).await;
    let client = Sut::of(crate::harness::connect(&served.url), Vec::new());
    let mut batches = client.query.query(zepto_flight::ports::Query::read("SELECT * FROM t")).await.unwrap().batches;
    batches.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    while let Some(batch) = batches.next().await {
        batch.unwrap();
    }
}

async fn encoded(batch: RecordBatch) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_schema(batch.schema())
        .build(stream::iter([Ok(batch)]));
    encoder.map(Result::unwrap).collect().await
}

async fn client(served: &Served) -> FlightServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(served.url.replace("grpc:", "http:")).unwrap();
    FlightServiceClient::new(endpoint.connect().await.unwrap())
}

/// Messages for a table, after which the client says nothing more and does not end the call either.
fn and_silence(mut messages: Vec<FlightData>, table: &str) -> impl futures::Stream<Item = FlightData> + Send + 'static {
    messages[0].flight_descriptor = Some(FlightDescriptor::new_path(vec![table.to_owned()]));
    stream::iter(messages).chain(stream::pending())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stops_is_not_waited_for() {
    let backend = memory();
    let served = serve_flight(backend.clone(), short()).await;
    let messages = and_silence(encoded(numbers(0, 10)).await, "t");
    let status = timeout(SOON, client(&served).await.do_put(Request::new(messages))).await.unwrap();
    let status = match status {
        Err(status) => status,
        Ok(reply) => reply.into_inner().message().await.unwrap_err(),
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("body_timeout_ms"), "{status}");
    assert!(backend.query.tables(Caller::default()).await.unwrap().is_empty());
    // A call of one message, which does not come either.
    let mut handshaking = client(&served).await;
    let refused = timeout(SOON, handshaking.handshake(Request::new(stream::pending()))).await.unwrap();
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn dictionaries_of_open_streams_are_counted() {
    let limits = Limits { memory_bytes_max: 12_000_000, ..Limits::default() };
    let backend = memory_with(limits.clone());
    let served = serve_flight(backend.clone(), limits).await;
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..2_000).map(|n| format!("{n:01000}"))));
    let keys = Int32Array::from(vec![0; 10]);
    let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values).unwrap());
    // Ten rows, and a dictionary of two megabytes.
    let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
    let messages = encoded(batch).await;
    let mut open = Vec::new();
    for table in ["a", "b", "c", "d", "e", "f"] {
        let (mut client, messages) = (client(&served).await, and_silence(messages.clone(), table));
        open.push(tokio::spawn(async move {
            match client.do_put(Request::new(messages)).await {
                Err(status) => status,
                Ok(reply) => reply.into_inner().message().await.unwrap_err(),
            }
        }));
    }
    let first = timeout(SOON, futures::future::select_all(&mut open)).await.expect("not all of them fit").0.unwrap();
    assert_eq!(first.code(), Code::ResourceExhausted, "{first}");
    assert!(backend.memory.used() <= backend.memory.bytes_max());
    open.iter().for_each(tokio::task::JoinHandle::abort);
    drop(open);
    let given_back = async {
        while backend.memory.used() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, given_back).await.expect("what closed streams held is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_refuses_everything_else() {
    let backend = memory();
    let owner = Sut::of(backend.clone(), Vec::new());
    owner.put("t", vec![numbers(0, 10)]).await.unwrap();
    let sut = Sut::of(backend.read_only(), Vec::new());
    assert_eq!(sut.rows("SELECT * FROM t").await, 10);
    let read = sut.change("SELECT n FROM t").await.unwrap().batches.collect().await.unwrap();
    assert_eq!(read[0].num_rows(), 10);
    for sql in ["DELETE FROM t", "INSERT INTO t SELECT * FROM t", "CREATE TABLE u (n INT64)", "DROP TABLE t"] {
        let error = sut.change(sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}: {error}");
        assert!(error.message().contains("read-only"), "{sql}: {error}");
    }
    assert_eq!(sut.change("SELEC 1").await.unwrap_err().kind(), ErrorKind::InvalidQuery);
    assert_eq!(sut.change("SELECT * FROM no").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sut.put("u", vec![numbers(0, 1)]).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(owner.query.tables(Caller::default()).await.unwrap().len(), 1);
}
