//! Flight SQL as drivers speak it: arrow-flight's own Flight SQL client, and JDBC's and ODBC's sequences of calls.

use crate::harness::{Sut, memory, numbers, one, serve_flight};
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::*;
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
    HandshakeRequest, PollInfo, RenewFlightEndpointRequest,
};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use zepto_flight::ports::Limits;

struct Driver {
    sql: FlightSqlServiceClient<Channel>,
    raw: FlightServiceClient<Channel>,
    sut: Sut,
}

async fn driver() -> Driver {
    let backend = memory();
    let served = serve_flight(backend.clone(), Limits::default()).await;
    let channel = Endpoint::from_shared(served.url.replace("grpc:", "http:")).unwrap().connect().await.unwrap();
    Driver {
        sql: FlightSqlServiceClient::new(channel.clone()),
        raw: FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX),
        sut: Sut::of(backend, vec![served.guard]),
    }
}

impl Driver {
    /// All that the endpoints of `info` have.
    async fn fetch(&mut self, info: FlightInfo) -> Vec<RecordBatch> {
        let promised: Schema = info.clone().try_decode_schema().unwrap();
        let mut batches = Vec::new();
        for endpoint in info.endpoint {
            let mut reply = self.sql.do_get(endpoint.ticket.unwrap()).await.unwrap();
            batches.extend(reply.by_ref().try_collect::<Vec<_>>().await.unwrap());
            assert_eq!(**reply.schema().unwrap(), promised, "the schema of FlightInfo and of DoGet");
        }
        batches
    }

    async fn query(&mut self, sql: &str) -> Vec<RecordBatch> {
        let info = self.sql.execute(sql.to_owned(), None).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.fetch(info).await
    }

    async fn info(&mut self, command: impl ProstMessageExt) -> Result<FlightInfo, tonic::Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        self.raw.get_flight_info(descriptor).await.map(tonic::Response::into_inner)
    }

    /// GetSchema of a statement.
    async fn schema(&mut self, sql: &str) -> Schema {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let result = self.raw.get_schema(descriptor).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        Schema::try_from(&result.into_inner()).unwrap()
    }

    async fn act(&mut self, action: Action) -> Result<Vec<bytes::Bytes>, tonic::Status> {
        let results: Vec<_> = self.raw.do_action(action).await?.into_inner().try_collect().await?;
        Ok(results.into_iter().map(|result| result.body).collect())
    }
}

fn strings(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let column = |batch: &RecordBatch| batch.column_by_name(column).unwrap().as_string::<i32>().clone();
    batches
        .iter()
        .flat_map(|batch| column(batch).iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_run_once_and_say_what_they_did() {
    let mut driver = driver().await;
    driver.sut.put("t", vec![numbers(0, 1_000)]).await.unwrap();
    let info = driver.sql.execute("SELECT * FROM t".into(), None).await.unwrap();
    assert_eq!((info.total_records, info.endpoint.len(), info.endpoint[0].location.len()), (1_000, 1, 0));
    assert!(info.endpoint[0].expiration_time.is_some());
    assert_eq!(one(&driver.fetch(info).await).num_rows(), 1_000);
    let unknown = driver.sql.execute("SELECT n FROM t WHERE n > 5".into(), None).await.unwrap();
    assert_eq!(unknown.total_records, -1, "drivers do not wait for a count");
    // A change that a driver sends as a query happens in GetFlightInfo, and there alone.
    let info = driver.sql.execute("INSERT INTO t VALUES (5000, 1, 'x')".into(), None).await.unwrap();
    assert_eq!(info.total_records, 1);
    assert_eq!(info.clone().try_decode_schema().unwrap(), Schema::empty());
    assert!(driver.fetch(info).await.is_empty());
    assert_eq!(driver.sut.rows("SELECT * FROM t WHERE n = 5000").await, 1);
    assert_eq!(driver.sql.execute_update("DELETE FROM t WHERE n >= 500".into(), None).await.unwrap(), 501);
    assert_eq!(driver.sql.execute_update("CREATE TABLE u (a INT64)".into(), None).await.unwrap(), 0);
    assert_eq!(driver.schema("SELECT n, name FROM t").await.fields().len(), 2);
    let refused = driver.sql.execute("SELECT nope FROM t".into(), None).await.unwrap_err();
    assert!(refused.to_string().contains("nope"), "{refused}");
    let part_of_one = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: Some("x".into()) };
    assert_eq!(driver.info(part_of_one).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_bind_run_and_close() {
    let mut driver = driver().await;
    driver.sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let mut prepared = driver.sql.prepare("SELECT n FROM t WHERE n > ? AND name = ?".into(), None).await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap().field(0).name(), "n");
    let params = prepared.parameter_schema().unwrap();
    let types: Vec<_> = params.fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int64, DataType::Utf8]);
    for (from, name, rows) in [(1, "row 42", 1), (90, "row 42", 0)] {
        let values = arrow::array::record_batch!(("a", Int64, [from]), ("b", Utf8, [name])).unwrap();
        prepared.set_parameters(values).unwrap();
        let info = prepared.execute().await.unwrap();
        assert_eq!(driver.fetch(info).await.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
    }
    let surplus = arrow::array::record_batch!(("a", Int64, [1]), ("b", Utf8, ["x"]), ("c", Int64, [2])).unwrap();
    prepared.set_parameters(surplus).unwrap();
    let refused = prepared.execute().await.unwrap_err().to_string();
    assert!(refused.contains("3 values came for a statement with 2 parameters"), "{refused}");
    prepared.close().await.unwrap();
    let mut insert = driver.sql.prepare("INSERT INTO t (n, name) VALUES (?, ?)".into(), None).await.unwrap();
    assert_eq!(insert.dataset_schema().unwrap().fields().len(), 0);
    let rows = arrow::array::record_batch!(("a", Int64, [1_000, 1_001, 1_002]), ("b", Utf8, ["x", "y", "z"])).unwrap();
    insert.set_parameters(rows).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);
    assert_eq!(driver.sut.rows("SELECT * FROM t WHERE n >= 1000").await, 3);
    // What JDBC decides its path by.
    let request = |query: &str| ActionCreatePreparedStatementRequest { query: query.into(), transaction_id: None };
    for (sql, is_update) in [("SELECT 1", 0_u8), ("DELETE FROM t", 1)] {
        let action = Action::new("CreatePreparedStatement", request(sql).as_any().encode_to_vec());
        let answer = Any::decode(driver.act(action).await.unwrap().pop().unwrap()).unwrap();
        let field_4 = [4 << 3, is_update];
        assert!(answer.value.ends_with(&field_4), "{sql}: is_update is {is_update}");
    }
    assert_eq!(driver.sut.rows("SELECT * FROM t").await, 103, "preparing runs nothing");
}

/// Drivers older than `DoPutPreparedStatementResult` go on with the handle that they had.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_bound_holds_for_the_old_handle_too() {
    let mut driver = driver().await;
    driver.sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let request =
        ActionCreatePreparedStatementRequest { query: "SELECT n FROM t WHERE n > ?".into(), transaction_id: None };
    let create = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let mut prepare = async || -> ActionCreatePreparedStatementResult {
        let answer = Any::decode(driver.act(create.clone()).await.unwrap().pop().unwrap()).unwrap();
        answer.unpack().unwrap().unwrap()
    };
    let (one, other) = (prepare().await, prepare().await);
    let command = |prepared: &ActionCreatePreparedStatementResult| CommandPreparedStatementQuery {
        prepared_statement_handle: prepared.prepared_statement_handle.clone(),
    };
    for (prepared, from) in [(&one, 9), (&other, 19), (&one, 89)] {
        let params = arrow::array::record_batch!(("a", Int64, [from])).unwrap();
        let mut messages = batches_to_flight_data(&params.schema(), vec![params]).unwrap();
        messages[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command(prepared).as_any().encode_to_vec()));
        driver.raw.do_put(stream::iter(messages)).await.unwrap();
    }
    for (prepared, rows) in [(&one, 10), (&other, 80), (&one, 10)] {
        let info = driver.info(command(prepared)).await.unwrap();
        assert_eq!(driver.fetch(info).await.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
    }
    let close =
        ActionClosePreparedStatementRequest { prepared_statement_handle: one.prepared_statement_handle.clone() };
    driver.act(Action::new("ClosePreparedStatement", close.as_any().encode_to_vec())).await.unwrap();
    let info = driver.info(command(&one)).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let error = driver.raw.do_get(ticket).await.unwrap_err();
    assert!(error.message().contains("have no value"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_listed_filtered_and_typed() {
    let mut driver = driver().await;
    driver.sut.put("trades", vec![numbers(0, 3)]).await.unwrap();
    driver.sut.put("trade_log", vec![numbers(0, 3)]).await.unwrap();
    let catalogs = driver.sql.get_catalogs().await.unwrap();
    assert_eq!(strings(&driver.fetch(catalogs).await, "catalog_name"), ["zepto"]);
    let mut tables = async |catalog: Option<&str>, schema: Option<&str>, name: Option<&str>, types: &[&str]| {
        let command = CommandGetTables {
            catalog: catalog.map(str::to_owned),
            db_schema_filter_pattern: schema.map(str::to_owned),
            table_name_filter_pattern: name.map(str::to_owned),
            table_types: types.iter().map(|text| (*text).to_owned()).collect(),
            include_schema: true,
        };
        let info = driver.info(command).await.unwrap();
        strings(&driver.fetch(info).await, "table_name")
    };
    assert_eq!(tables(None, None, None, &[]).await, ["trade_log", "trades"]);
    assert_eq!(tables(Some("zepto"), Some("publ%"), Some("trade_"), &["TABLE", "VIEW"]).await, ["trades"]);
    assert!(tables(Some(""), None, None, &[]).await.is_empty(), "every table has a catalogue");
    assert!(tables(None, None, None, &["VIEW"]).await.is_empty());
    let schemas = driver.sql.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(strings(&driver.fetch(schemas).await, "db_schema_name"), ["public"]);
    let types = driver.sql.get_table_types().await.unwrap();
    assert_eq!(strings(&driver.fetch(types).await, "table_type"), ["TABLE"]);
    let keys =
        driver.sql.get_primary_keys(CommandGetPrimaryKeys { table: "trades".into(), ..Default::default() }).await;
    assert!(driver.fetch(keys.unwrap()).await.iter().all(|batch| batch.num_rows() == 0));
    for info in [
        driver.info(CommandGetExportedKeys::default()).await,
        driver.info(CommandGetImportedKeys::default()).await,
        driver.info(CommandGetCrossReference::default()).await,
    ] {
        let info = info.unwrap();
        assert_eq!(info.clone().try_decode_schema().unwrap().fields().len(), 13);
        assert_eq!(info.total_records, 0);
        driver.fetch(info).await;
    }
    let info = driver.sql.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    for name in strings(&driver.fetch(info).await, "type_name") {
        driver.sut.define(&format!("CREATE OR REPLACE TABLE typed (c {name})")).await;
    }
    let about = driver.sql.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerTransaction]).await;
    let about = one(&driver.fetch(about.unwrap()).await);
    assert_eq!(about.num_rows(), 2);
    let values = about.column(1).as_union();
    let transaction = values.value(1);
    assert_eq!(transaction.as_primitive::<arrow::datatypes::Int32Type>().value(0), 0, "there are no transactions");
    let all = driver.sql.get_sql_info(vec![]).await.unwrap();
    assert!(one(&driver.fetch(all).await).num_rows() > 80);
    // Names with catalogue and schema, as BI tools write them.
    assert_eq!(one(&driver.query(r#"SELECT "n" FROM "zepto"."public"."trades" LIMIT 1"#).await).num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_listed_are_there() {
    let mut driver = driver().await;
    let lists = [
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlDatetimeFunctions,
        SqlInfo::SqlSystemFunctions,
    ];
    let info = driver.sql.get_sql_info(lists.to_vec()).await.unwrap();
    let batch = one(&driver.fetch(info).await);
    for row in 0..batch.num_rows() {
        let list = batch.column(1).as_union().value(row);
        let names: StringArray = list.as_list::<i32>().value(0).as_string::<i32>().clone();
        for name in names.iter().flatten() {
            let calls = ["()", "(1)", "('a')", "(1, 1)", "('a', 1)", "('a', 'b')", "('a', 'b', 'c')", "('day', now())"]
                .map(|arguments| format!("SELECT {name}{arguments}"))
                .into_iter()
                .chain([format!("SELECT {name}(INTERVAL '1 hour', now())")]);
            let mut found = false;
            for call in calls {
                found |= driver.sut.read(&call).await.is_ok();
            }
            assert!(found, "function {name} is not there");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingestion_has_every_mode_and_counts() {
    let mut driver = driver().await;
    let ingest = |if_not_exist: TableNotExistOption, if_exists: TableExistsOption| CommandStatementIngest {
        table: "t".into(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: if_not_exist as i32,
            if_exists: if_exists as i32,
        }),
        ..CommandStatementIngest::default()
    };
    use {TableExistsOption as Exists, TableNotExistOption as Missing};
    let rows = |count: i64| stream::iter([Ok::<_, FlightError>(numbers(0, count))]);
    let mut put = async |command, count| driver.sql.execute_ingest(command, rows(count)).await;
    assert!(put(ingest(Missing::Fail, Exists::Append), 5).await.unwrap_err().to_string().contains("not found"));
    assert_eq!(put(ingest(Missing::Create, Exists::Fail), 5).await.unwrap(), 5);
    assert!(put(ingest(Missing::Create, Exists::Fail), 5).await.unwrap_err().to_string().contains("exists"));
    assert_eq!(put(ingest(Missing::Fail, Exists::Append), 7).await.unwrap(), 7);
    let temporary = CommandStatementIngest { temporary: true, ..ingest(Missing::Create, Exists::Append) };
    assert!(put(temporary, 1).await.unwrap_err().to_string().contains("temporary"));
    assert_eq!(put(ingest(Missing::Create, Exists::Replace), 2).await.unwrap(), 2);
    assert_eq!(driver.sut.rows("SELECT * FROM t").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_get_plain_columns_that_say_their_types() {
    let mut driver = driver().await;
    driver.sut.define("CREATE TABLE t (s SYMBOL, v STRING_VIEW, d DECIMAL(10, 2), at TIMESTAMPTZ)").await;
    driver.sut.count("INSERT INTO t VALUES ('a', 'b', 1.5, to_timestamp(0))").await;
    let plain = one(&driver.query("SELECT * FROM t").await);
    let schema = plain.schema();
    assert_eq!(*schema.field(0).data_type(), DataType::Utf8);
    assert_eq!(*schema.field(1).data_type(), DataType::Utf8);
    let said =
        |column: usize, key: &str| schema.field(column).metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned();
    assert_eq!(said(2, "TYPE_NAME").as_deref(), Some("DECIMAL"));
    assert_eq!(said(2, "SCALE").as_deref(), Some("2"));
    // Whoever asks for it keeps them, by header or by session; raw tickets keep them anyway.
    driver.sql.set_header("x-zepto-string-encoding", "keep");
    driver.sql.set_header("x-zepto-time-zone", "Asia/Tokyo");
    driver.sql.set_header("x-zepto-timestamp-unit", "ms");
    let kept = one(&driver.query("SELECT s, at FROM t").await);
    assert!(matches!(kept.schema().field(0).data_type(), DataType::Dictionary(..)));
    assert_eq!(kept.schema().field(1).data_type().to_string(), "Timestamp(ms, \"Asia/Tokyo\")");
    let raw = FlightDescriptor::new_cmd("SELECT s FROM t");
    let info = driver.raw.get_flight_info(raw).await.unwrap().into_inner();
    assert!(matches!(info.try_decode_schema().unwrap().field(0).data_type(), DataType::Dictionary(..)));
    driver.sql.set_header("x-zepto-timestamp-unit", "fortnight");
    assert!(driver.sql.execute("SELECT 1".into(), None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_the_same_wherever_they_are_told() {
    let mut driver = driver().await;
    driver.sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    driver.sut.define("CREATE TABLE s (sym SYMBOL, v STRING_VIEW NOT NULL, at TIMESTAMP_NS)").await;
    for sql in [
        "SELECT * FROM t",
        "SELECT n + 1 AS m, name || 'x' FROM t WHERE n > 3",
        "SELECT count(*), max(name), avg(half), min(n) FROM t",
        "SELECT name, sum(n) OVER (PARTITION BY name ORDER BY n) FROM t",
        "SELECT a.n, b.name FROM t a LEFT JOIN t b ON a.n = b.n + 50",
        "SELECT sym, v, count(*) FROM s GROUP BY sym, v",
        "SELECT upper(v), arrow_typeof(sym) FROM s",
        "SELECT 1 UNION ALL SELECT NULL",
        "SELECT CASE WHEN n > 5 THEN 'a' END, n IN (1, 2) FROM t ORDER BY n DESC LIMIT 3",
        "SELECT make_array(n, 2), named_struct('a', name) FROM t",
        "SHOW TABLES",
        "DESCRIBE t",
        "EXPLAIN SELECT * FROM t",
        "SELECT date_trunc('hour', at), CAST(NULL AS DECIMAL(7,3)) FROM s WHERE false",
    ] {
        let told = driver.schema(sql).await;
        let info = driver.sql.execute(sql.to_owned(), None).await.unwrap();
        assert_eq!(info.clone().try_decode_schema().unwrap(), told, "{sql}");
        driver.fetch(info).await;
        let mut prepared = driver.sql.prepare(sql.to_owned(), None).await.unwrap();
        assert_eq!(*prepared.dataset_schema().unwrap(), told, "{sql}");
        let info = prepared.execute().await.unwrap();
        driver.fetch(info).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_hold_by_their_cookie() {
    let mut driver = driver().await;
    let set = b"\n\x1d\n\x0etimestamp_unit\x12\x0b\n\x02us"; // a map entry whose length is wrong
    assert_eq!(
        driver.act(Action::new("SetSessionOptions", set.to_vec())).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let set = b"\n\x16\n\x0etimestamp_unit\x12\x04\n\x02us".to_vec();
    let response = driver.raw.do_action(Action::new("SetSessionOptions", set)).await.unwrap();
    let cookie = response.metadata().get("set-cookie").unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
    driver.sql.set_header("cookie", cookie);
    let batches = driver.query("SELECT to_timestamp(0)::TIMESTAMP AS at").await;
    assert_eq!(batches[0].schema().field(0).data_type().to_string(), "Timestamp(µs)");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_cancelled_by_their_info() {
    let mut driver = driver().await;
    let endless = "SELECT a.value FROM generate_series(1, 100000000) a CROSS JOIN generate_series(1, 1000) b";
    let info = driver.sql.execute(endless.into(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut reply = driver.sql.do_get(ticket.clone()).await.unwrap();
    reply.next().await.unwrap().unwrap();
    let request = CancelFlightInfoRequest { info: Some(info.clone()) };
    let body = driver.act(Action::new("CancelFlightInfo", request.encode_to_vec())).await.unwrap().pop().unwrap();
    assert_eq!(CancelFlightInfoResult::decode(body).unwrap().status, CancelStatus::Cancelled as i32);
    let ended = reply.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(ended.to_string().contains("cancelled"), "{ended}");
    assert!(driver.sql.do_get(ticket).await.unwrap_err().to_string().contains("cancelled"));
    let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
    let body = driver.act(Action::new("CancelQuery", request.as_any().encode_to_vec())).await.unwrap().pop().unwrap();
    let result: ActionCancelQueryResult = Any::decode(body).unwrap().unpack().unwrap().unwrap();
    assert_eq!(result.result, 1);
    let foreign = CancelFlightInfoRequest { info: Some(FlightInfo::new()) };
    let refused = driver.act(Action::new("CancelFlightInfo", foreign.encode_to_vec())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_renewed_and_transactions_refused() {
    let mut driver = driver().await;
    let info = driver.sql.execute("SELECT 1".into(), None).await.unwrap();
    let request = RenewFlightEndpointRequest { endpoint: Some(info.endpoint[0].clone()) };
    let body = driver.act(Action::new("RenewFlightEndpoint", request.encode_to_vec())).await.unwrap().pop().unwrap();
    let renewed = arrow_flight::FlightEndpoint::decode(body).unwrap();
    assert_eq!(renewed.ticket, info.endpoint[0].ticket);
    assert!(renewed.expiration_time.unwrap().seconds >= info.endpoint[0].expiration_time.unwrap().seconds);
    for action in ["BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"] {
        assert_eq!(driver.act(Action::new(action, "")).await.unwrap_err().code(), Code::Unimplemented, "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_starts_a_query_and_tells_how_it_is_doing() {
    let mut driver = driver().await;
    driver.sut.put("t", (0..20).map(|at| numbers(at * 10_000, 10_000)).collect()).await.unwrap();
    let mut descriptor = FlightDescriptor::new_cmd("SELECT * FROM t WHERE n % 2 = 0");
    let mut polls = 0;
    let done: PollInfo = loop {
        let poll = driver.raw.poll_flight_info(descriptor.clone()).await.unwrap().into_inner();
        polls += 1;
        assert!((0.0..=1.0).contains(&poll.progress.unwrap()) && poll.expiration_time.is_some());
        match poll.flight_descriptor.clone() {
            Some(next) => descriptor = next,
            None => break poll,
        }
        assert!(polls < 1_000);
    };
    let info = done.info.unwrap();
    assert_eq!((info.total_records, info.endpoint.len()), (100_000, 16));
    // An answer that was lost on its way can be asked for again.
    let again = driver.raw.poll_flight_info(descriptor.clone()).await;
    if polls > 1 {
        let again = again.unwrap().into_inner();
        assert_eq!((again.flight_descriptor, again.info.unwrap()), (None, info.clone()));
    }
    let all = one(&driver.fetch(info).await);
    assert!(all.num_rows() == 100_000 && all.column(0).as_primitive::<Int64Type>().values().is_sorted());
    // Of those that have ended the oldest make room for the next.
    for _ in 0..300 {
        let poll = driver.raw.poll_flight_info(FlightDescriptor::new_cmd("SELECT 1")).await.unwrap().into_inner();
        let mut next = poll.flight_descriptor;
        while let Some(descriptor) = next {
            next = driver.raw.poll_flight_info(descriptor).await.unwrap().into_inner().flight_descriptor;
        }
    }
    let failing = FlightDescriptor::new_cmd("SELECT nope FROM t");
    let mut poll = driver.raw.poll_flight_info(failing).await;
    while let Ok(Some(next)) = poll.as_ref().map(|poll| poll.get_ref().flight_descriptor.clone()) {
        poll = driver.raw.poll_flight_info(next).await;
    }
    assert_eq!(poll.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_gives_a_bearer_back_twice() {
    let mut driver = driver().await;
    let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
    // As Go sends it: without padding.
    request.metadata_mut().insert("authorization", "Basic dXNlcjpwYQ".parse().unwrap());
    let response = driver.raw.handshake(request).await.unwrap();
    let header = response.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
    let payload = response.into_inner().next().await.unwrap().unwrap().payload;
    assert_eq!(header, format!("Bearer {}", std::str::from_utf8(&payload).unwrap()));
    let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
    request.metadata_mut().insert("authorization", "Basic !".parse().unwrap());
    assert_eq!(driver.raw.handshake(request).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_joins_the_callers_own_rows() {
    let mut driver = driver().await;
    driver.sut.put("t", vec![numbers(0, 100)]).await.unwrap();
    let input = arrow::array::record_batch!(("n", Int64, [3, 4])).unwrap();
    let sql = "SELECT i.n, t.name FROM input i JOIN t ON i.n = t.n ORDER BY i.n";
    let encoded = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(sql)))
        .build(stream::iter([Ok(input)]));
    let messages: Vec<_> = encoded.try_collect().await.unwrap();
    let reply = driver.raw.do_exchange(stream::iter(messages)).await.unwrap().into_inner();
    let decoded = arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(reply.map_err(FlightError::from));
    let joined = one(&decoded.try_collect::<Vec<_>>().await.unwrap());
    assert_eq!(joined.column(1).as_string::<i32>().value(0), "row 3");
    assert_eq!(joined.column(0).len(), 2);
    let nothing = driver.raw.do_exchange(stream::iter(Vec::new())).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
}
