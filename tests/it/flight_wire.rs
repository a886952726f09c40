//! Flight as others speak it: arrow-flight's own client and raw gRPC messages against our server.

use crate::harness::{Sut, memory, memory_with, numbers, one, serve_flight};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{
    Action, Criteria, Empty, FlightClient, FlightData, FlightDescriptor, FlightInfo, PutResult, Ticket,
};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use zepto_flight::app::Backend;
use zepto_flight::ports::{Caller, Limits};

struct Wire {
    raw: FlightServiceClient<Channel>,
    stock: FlightClient,
    sut: Sut,
}

async fn wire() -> Wire {
    wire_of(memory(), Limits::default()).await
}

async fn wire_of(backend: Backend, limits: Limits) -> Wire {
    let served = serve_flight(backend.clone(), limits).await;
    let channel = Endpoint::from_shared(served.url.replace("grpc:", "http:")).unwrap().connect().await.unwrap();
    Wire {
        raw: FlightServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
        stock: FlightClient::new(channel),
        sut: Sut::of(backend, vec![served.guard]),
    }
}

impl Wire {
    async fn get(&mut self, ticket: impl Into<bytes::Bytes>) -> Result<Vec<RecordBatch>, FlightError> {
        self.stock.do_get(Ticket::new(ticket)).await?.try_collect().await
    }

    async fn put(
        &mut self,
        descriptor: Option<FlightDescriptor>,
        messages: Vec<FlightData>,
    ) -> Result<Vec<PutResult>, tonic::Status> {
        let mut messages = messages;
        if let (Some(first), Some(descriptor)) = (messages.first_mut(), descriptor) {
            first.flight_descriptor = Some(descriptor);
        }
        self.raw.do_put(Request::new(stream::iter(messages))).await?.into_inner().try_collect().await
    }
}

async fn encoded(batches: Vec<RecordBatch>) -> Vec<FlightData> {
    let schema = batches[0].schema();
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).build(stream::iter(batches.into_iter().map(Ok)));
    encoder.try_collect().await.unwrap()
}

fn path(table: &str) -> Option<FlightDescriptor> {
    Some(FlightDescriptor::new_path(vec![table.to_owned()]))
}

fn trailer(status: &tonic::Status) -> Option<&str> {
    status.metadata().get("x-arrow-status").map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_reads_lists_and_acts() {
    let mut wire = wire().await;
    wire.sut.put("trades", vec![numbers(0, 1_000)]).await.unwrap();
    wire.sut.put("quotes", vec![numbers(0, 3)]).await.unwrap();
    assert_eq!(one(&wire.get("SELECT * FROM trades LIMIT 10").await.unwrap()), numbers(0, 10));
    let flights: Vec<FlightInfo> =
        wire.stock.list_flights(bytes::Bytes::new()).await.unwrap().try_collect().await.unwrap();
    let listed: Vec<_> = flights
        .iter()
        .map(|info| (info.flight_descriptor.clone().unwrap().path[0].clone(), info.total_records, info.total_bytes > 0))
        .collect();
    assert_eq!(listed, [("quotes".to_owned(), 3, true), ("trades".to_owned(), 1_000, true)]);
    assert_eq!(flights[0].clone().try_decode_schema().unwrap(), *numbers(0, 1).schema());
    let endpoint = &flights[1].endpoint[0];
    assert!(endpoint.location.is_empty());
    assert_eq!(one(&wire.get(endpoint.ticket.clone().unwrap().ticket).await.unwrap()).num_rows(), 1_000);
    let some = wire.raw.list_flights(Criteria { expression: "tr*".into() }).await.unwrap().into_inner();
    assert_eq!(some.try_collect::<Vec<_>>().await.unwrap().len(), 1);
    let pong: Vec<_> = wire.stock.do_action(Action::new("ping", "")).await.unwrap().try_collect().await.unwrap();
    assert_eq!(pong, [bytes::Bytes::from("pong")]);
    let health: Vec<bytes::Bytes> =
        wire.stock.do_action(Action::new("healthcheck", "")).await.unwrap().try_collect().await.unwrap();
    let health: serde_json::Value = serde_json::from_slice(&health[0]).unwrap();
    assert_eq!(
        (health["status"].as_str(), health["backend"].as_str(), health["tables"].as_u64()),
        (Some("healthy"), Some("test:"), Some(2))
    );
    let actions = wire.raw.list_actions(Empty {}).await.unwrap().into_inner().try_collect::<Vec<_>>().await.unwrap();
    let names: Vec<_> = actions.iter().map(|action| action.r#type.as_str()).collect();
    assert_eq!(names[..4], ["ping", "healthcheck", "describe", "snapshot"]);
    let unknown = wire.raw.do_action(Action::new("reboot", "")).await.unwrap_err();
    assert_eq!((unknown.code(), trailer(&unknown)), (Code::Unimplemented, Some("10")));
    assert!(unknown.message().contains("healthcheck"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_info_is_exact_and_its_ticket_pins_what_it_counted() {
    let mut wire = wire().await;
    wire.sut.put("t", vec![numbers(0, 1_000)]).await.unwrap();
    for (descriptor, rows) in [
        (FlightDescriptor::new_path(vec!["t".into()]), 1_000),
        (FlightDescriptor::new_cmd("SELECT * FROM t"), 1_000),
        (FlightDescriptor::new_cmd("SELECT n FROM t WHERE n % 10 = 0"), 100),
        (FlightDescriptor::new_cmd("SELECT n FROM t WHERE false"), 0),
    ] {
        let info = wire.stock.get_flight_info(descriptor.clone()).await.unwrap();
        assert_eq!(info.total_records, rows, "{descriptor}");
        assert_eq!((info.endpoint.len(), info.endpoint[0].location.len()), (1, 0));
        let schema = wire.stock.get_schema(descriptor.clone()).await.unwrap();
        assert_eq!(schema, info.clone().try_decode_schema().unwrap());
        wire.sut.put("t", vec![numbers(0, 10)]).await.unwrap();
        for _ in 0..2 {
            let mut reply = wire.stock.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
            let mut counted = 0;
            while let Some(batch) = reply.next().await {
                counted += batch.unwrap().num_rows();
            }
            assert_eq!(counted as i64, rows, "{descriptor}");
            assert_eq!(**reply.schema().unwrap(), schema);
        }
        wire.sut.count("DELETE FROM t WHERE n >= 0").await;
        wire.sut.put("t", vec![numbers(0, 1_000)]).await.unwrap();
    }
    for cmd in ["DROP TABLE t", "SELECT * INTO u FROM t", "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 1, 'x'"] {
        let refused = wire.raw.get_flight_info(FlightDescriptor::new_cmd(cmd)).await.unwrap_err();
        assert_eq!((refused.code(), trailer(&refused)), (Code::InvalidArgument, Some("4")), "{cmd}");
        let refused = wire.raw.do_get(Ticket::new(cmd)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{cmd}");
        assert!(refused.message().contains("POST /"), "{refused}");
    }
    assert_eq!(wire.sut.query.tables(Caller::default()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_results_spool_and_expire() {
    let limits = Limits { held_bytes_max: 100_000, ticket_ttl_ms: 1_500, ..Limits::default() };
    let mut wire = wire_of(memory_with(limits.clone()), limits).await;
    wire.sut.put("t", (0..8).map(|at| numbers(at * 10_000, 10_000)).collect()).await.unwrap();
    let descriptor = FlightDescriptor::new_cmd("SELECT * FROM t WHERE n >= 10");
    let info = wire.stock.get_flight_info(descriptor).await.unwrap();
    assert_eq!(info.total_records, 79_990);
    let ticket = info.endpoint[0].ticket.clone().unwrap().ticket;
    for _ in 0..2 {
        assert_eq!(one(&wire.get(ticket.clone()).await.unwrap()), numbers(10, 79_990));
    }
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let late = wire.raw.do_get(Ticket::new(ticket)).await.unwrap_err();
    assert_eq!((late.code(), trailer(&late)), (Code::NotFound, Some("2")));
    let limits = Limits { held_bytes_max: 100_000, spool_bytes_max: 200_000, ..Limits::default() };
    let mut full = wire_of(memory(), limits).await;
    full.sut.put("t", (0..8).map(|at| numbers(at * 10_000, 10_000)).collect()).await.unwrap();
    let refused =
        full.raw.get_flight_info(FlightDescriptor::new_cmd("SELECT * FROM t WHERE n >= 10")).await.unwrap_err();
    assert_eq!((refused.code(), trailer(&refused)), (Code::ResourceExhausted, Some("6")));
}

#[tokio::test(flavor = "multi_thread")]
async fn put_takes_paths_and_commands_and_answers_its_summary() {
    let mut wire = wire().await;
    let messages = encoded(vec![numbers(0, 5), numbers(5, 5)]).await;
    for descriptor in [path("t"), Some(FlightDescriptor::new_cmd("t"))] {
        let results = wire.put(descriptor, messages.clone()).await.unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&results[0].app_metadata).unwrap();
        assert_eq!((summary["rows"].as_u64(), summary["batches"].as_u64()), (Some(10), Some(2)));
    }
    let all = one(&wire.get("SELECT n FROM t").await.unwrap());
    let expected: Vec<i64> = (0..10).chain(0..10).collect();
    assert_eq!(all.column(0).as_primitive::<Int64Type>().values(), &expected[..]);
    // A descriptor alone, then the schema, then batches, with metadata in between: as others may send it.
    let note = FlightData { app_metadata: "hello".into(), ..FlightData::default() };
    let mut apart = vec![FlightData::default(), note.clone()];
    apart.extend(messages);
    apart.insert(3, note);
    wire.put(path("t"), apart).await.unwrap();
    assert_eq!(wire.sut.rows("SELECT * FROM t").await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn put_refuses_what_is_no_stream_and_keeps_nothing_of_it() {
    let mut wire = wire().await;
    wire.sut.put("t", vec![numbers(0, 1)]).await.unwrap();
    let good = encoded(vec![numbers(0, 5), numbers(5, 5)]).await;
    let no_schema = good[1..].to_vec();
    let mut second_schema = good.clone();
    second_schema.push(good[0].clone());
    let mut corrupt = good.clone();
    corrupt[2].data_body = bytes::Bytes::from_static(b"short");
    let mut garbage = good.clone();
    garbage[1].data_header = bytes::Bytes::from_static(b"no flatbuffer");
    let two = Some(FlightDescriptor::new_path(vec!["a".into(), "b".into()]));
    let cases = [
        (None, good.clone(), "descriptor"),
        (two, good.clone(), "2 parts"),
        (path("t"), no_schema, "before its schema"),
        (path("t"), second_schema, "second schema"),
        (path("t"), corrupt, "corrupt"),
        (path("t"), garbage, "Arrow IPC"),
        (path("t"), Vec::new(), "without a message"),
        (path("t"), vec![FlightData::default()], "schema"),
        (Some(FlightDescriptor::new_cmd(b"\xff\xfe".to_vec())), good.clone(), "UTF-8"),
    ];
    for (descriptor, messages, word) in cases {
        let status = wire.put(descriptor, messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{word}: {status}");
        assert!(status.message().contains(word), "{word}: {status}");
    }
    assert_eq!(wire.sut.rows("SELECT * FROM t").await, 1);
    assert_eq!(wire.sut.query.tables(Caller::default()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_in_mid_stream_leaves_nothing() {
    let mut wire = wire().await;
    wire.sut.put("t", vec![numbers(0, 1)]).await.unwrap();
    for _ in 0..5 {
        let mut messages = encoded(vec![numbers(0, 5_000), numbers(0, 5_000)]).await;
        messages[0].flight_descriptor = path("t");
        // The stream never ends by itself: the call is dropped, which tonic's server alone would take for an end.
        let endless = stream::iter(messages).chain(stream::pending());
        let call = wire.raw.do_put(Request::new(endless));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(300), call).await.is_err());
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(wire.sut.rows("SELECT * FROM t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_as_flight_sql_updates() {
    let wire = wire().await;
    let channel = {
        let served = serve_flight(Backend::clone(&memory()), Limits::default()).await;
        std::mem::forget(served.guard.clone());
        Endpoint::from_shared(served.url.replace("grpc:", "http:")).unwrap().connect().await.unwrap()
    };
    drop(wire);
    let mut client = FlightSqlServiceClient::new(channel);
    assert_eq!(
        client.execute_update("CREATE TABLE t AS SELECT 1 AS n UNION ALL SELECT 2".into(), None).await.unwrap(),
        0
    );
    assert_eq!(client.execute_update("DELETE FROM t WHERE n = 1".into(), None).await.unwrap(), 1);
    let error = client.execute_update("SELECT * FROM t".into(), None).await.unwrap_err();
    assert!(error.to_string().contains("ticket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_stay_under_two_mebibytes_and_the_schema_comes_first() {
    let mut wire = wire().await;
    wire.sut.put("t", vec![numbers(0, 300_000)]).await.unwrap();
    let replies = wire.raw.do_get(Ticket::new("SELECT * FROM t")).await.unwrap().into_inner();
    let messages: Vec<FlightData> = replies.try_collect().await.unwrap();
    assert!(messages[0].data_body.is_empty());
    for message in &messages {
        assert!(message.data_header.len() + message.data_body.len() < 2 << 20);
    }
    assert!(messages.len() < 40, "{} messages", messages.len());
    let batches = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages.into_iter().map(Ok)));
    assert_eq!(one(&batches.try_collect::<Vec<_>>().await.unwrap()), numbers(0, 300_000));
    // One value that is larger than a message goes through whole.
    wire.sut.define("CREATE TABLE large AS SELECT repeat('x', 5000000) AS s").await;
    let replies = wire.raw.do_get(Ticket::new("SELECT * FROM large")).await.unwrap().into_inner();
    assert_eq!(replies.try_collect::<Vec<_>>().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_keeps_its_request_id() {
    let mut wire = wire().await;
    let id = "my-own-id_1";
    let mut request = Request::new(Ticket::new("SELECT 1"));
    request.metadata_mut().insert("x-request-id", id.parse().unwrap());
    assert_eq!(wire.raw.do_get(request).await.unwrap().metadata().get("x-request-id").unwrap(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_tickets_are_refused_kindly() {
    let mut wire = wire().await;
    for ticket in
        [b"".as_slice(), b"\x00", b"\xff\xff", b"\xffzepto\x01\x22\x10aaaaaaaaaaaaaaaa", b"\xffzepto\x01\x22\x01a"]
    {
        let status = wire.raw.do_get(Ticket::new(ticket.to_vec())).await.unwrap_err();
        assert!(matches!(status.code(), Code::InvalidArgument | Code::NotFound), "{ticket:?}: {status}");
    }
    let hostile = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let status = wire.raw.do_get(Ticket::new(hostile)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(wire.get("SELECT 1").await.unwrap()[0].num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_beyond_the_limit_are_refused_by_name() {
    let limits = Limits { message_bytes_max: 100_000, ..Limits::default() };
    let mut wire = wire_of(memory(), limits).await;
    let messages = encoded(vec![numbers(0, 50_000)]).await;
    let status = wire.put(path("t"), messages).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("message_bytes_max"), "{status}");
    assert!(wire.sut.query.tables(Caller::default()).await.unwrap().is_empty());
}

/// A request with one header more.
fn with_header<T>(body: T, name: &'static str, value: &str) -> Request<T> {
    let mut request = Request::new(body);
    request.metadata_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_choose_size_and_compression_of_messages() {
    let mut wire = wire().await;
    let rows = numbers(0, 100_000);
    wire.sut.put("t", vec![rows.clone()]).await.unwrap();
    for (name, value) in [
        ("x-zepto-max-message-bytes", "16384"),
        ("x-zepto-ipc-compression", "lz4"),
        ("x-zepto-ipc-compression", "zstd"),
    ] {
        let request = with_header(Ticket::new("SELECT * FROM t"), name, value);
        let messages: Vec<FlightData> =
            wire.raw.do_get(request).await.unwrap().into_inner().try_collect().await.unwrap();
        let bytes: usize = messages.iter().map(|message| message.data_body.len()).sum();
        match value {
            "16384" => assert!(messages.iter().all(|message| message.data_body.len() < 17_000)),
            _ => assert!(bytes < rows.get_array_memory_size() / 2, "{value}: {bytes}"),
        }
        let decoded = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages.into_iter().map(Ok)));
        assert_eq!(one(&decoded.try_collect::<Vec<_>>().await.unwrap()), rows, "{value}");
    }
    for (name, value) in [
        ("x-zepto-max-message-bytes", "many"),
        ("x-zepto-max-message-bytes", "1"),
        ("x-zepto-ipc-compression", "brotli"),
    ] {
        let status = wire.raw.do_get(with_header(Ticket::new("SELECT 1"), name, value)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(name) && status.message().contains("expected"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_divide_one_state_and_keep_its_count() {
    let mut wire = wire().await;
    wire.sut.put("t", vec![numbers(0, 10_000)]).await.unwrap();
    for (sql, rows) in
        [("SELECT * FROM t", 10_000), ("SELECT * FROM t WHERE n % 10 = 0", 1_000), ("SELECT n FROM t LIMIT 5", 5)]
    {
        let request = with_header(FlightDescriptor::new_cmd(sql), "x-zepto-endpoints", "4");
        let info = wire.raw.get_flight_info(request).await.unwrap().into_inner();
        assert_eq!((info.endpoint.len(), info.total_records, info.ordered), (4, rows, true), "{sql}");
        wire.sut.put("t", vec![numbers(10_000, 10)]).await.unwrap();
        let mut found = Vec::new();
        for endpoint in info.endpoint {
            found.extend(wire.get(endpoint.ticket.unwrap().ticket).await.unwrap());
        }
        let found = one(&found);
        assert_eq!(found.num_rows() as i64, rows, "{sql}");
        assert!(found.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().is_sorted(), "{sql}");
        wire.sut.count("DELETE FROM t WHERE n >= 10000").await;
    }
    for value in ["0", "257", "two"] {
        let request = with_header(FlightDescriptor::new_cmd("SELECT 1"), "x-zepto-endpoints", value);
        assert_eq!(wire.raw.get_flight_info(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
