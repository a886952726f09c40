//! The client: both ports, implemented by a remote Flight server.
//!
//! It has no pool, no retries and no cache. Reads are sent as tickets, changes as Flight SQL updates, streams as DoPut.

use crate::adapters::flight::command::Command;
use crate::adapters::flight::rpc::list_flights::is_plain;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::{
    DESCRIBE, HEALTHCHECK, SNAPSHOT, WRITER, error_from_status, flight_data, summary_from_json, time_column_from_json,
};
use crate::adapters::ipc::{DecodeLimits, Decoder, Encoder, Encoding, decode_description, decode_schema};
use crate::adapters::serving::numbered_put::writer_from_json;
use crate::ports::{
    Access, Append, BatchSource, BatchStream, Caller, Description, Error, ErrorKind, IngestPort, IngestSummary, Limits,
    Query, QueryPort, Reply, Result, SnapshotId, StatementKind, TableInfo, WriterState,
};
use arrow::array::{Int64Array, RecordBatch};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::DoPutUpdateResult;
use arrow_flight::{Action, Criteria, FlightData, FlightDescriptor, FlightInfo, PutResult, Ticket};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

/// A connection to a Flight server.
#[derive(Clone)]
pub struct Client {
    url: String,
    service: FlightServiceClient<Channel>,
    limits: DecodeLimits,
    message_bytes_target: u64,
}

impl Client {
    /// Creates a client of the server at `url`, such as `grpc://127.0.0.1:8815`. It connects on first use.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an invalid `url`.
    pub fn new(url: &str, limits: &Limits) -> Result<Self> {
        let address = url.replacen("grpc://", "http://", 1);
        let endpoint = Endpoint::from_shared(address)
            .map_err(|error| Error::invalid(format!("{url:?} is not the address of a Flight server: {error}")))?
            .initial_stream_window_size(16 << 20)
            .initial_connection_window_size(64 << 20)
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true);
        // No limit on replies: a single value may be larger than any message that we would send.
        let service = FlightServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let limits_received = DecodeLimits { message_bytes_max: u64::MAX, ..DecodeLimits::from(limits) };
        Ok(Self {
            url: url.to_owned(),
            service,
            limits: limits_received,
            message_bytes_target: limits.message_bytes_target,
        })
    }

    /// Requests the server's health, as JSON.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it does not answer.
    pub async fn health(&self) -> Result<String> {
        let body = self.act(HEALTHCHECK, Bytes::new(), &Query::default()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, query: &Query) -> Result<BatchStream> {
        let ticket = Ticket::new(Handle::of(query).encode()?);
        let reply = self.service.clone().do_get(request(ticket, query)).await;
        let messages = reply.map_err(|status| error_from_status(&status))?.into_inner();
        ReplyReader { messages, decoder: Decoder::new(self.limits.clone()) }.into_batches().await
    }

    async fn update(&self, query: &Query) -> Result<i64> {
        let command = match query.params {
            None => Command::encode_update(&query.sql),
            Some(_) => Handle::of(query).encode()?,
        };
        let descriptor = FlightDescriptor::new_cmd(command);
        let first = FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() };
        let result = self.put(request(stream::iter([first]), query)).await?;
        DoPutUpdateResult::decode(result.app_metadata)
            .map(|result| result.record_count)
            .map_err(|error| Error::internal("the server's answer to an update does not decode").with_source(error))
    }

    async fn put<S>(&self, request: Request<S>) -> Result<PutResult>
    where
        S: futures::Stream<Item = FlightData> + Send + 'static,
    {
        let reply = self.service.clone().do_put(request).await;
        let mut results = reply.map_err(|status| error_from_status(&status))?.into_inner();
        let result = results.message().await.map_err(|status| error_from_status(&status))?;
        result.ok_or_else(|| Error::unavailable("the server ended DoPut without an answer"))
    }

    async fn act(&self, action: &str, body: Bytes, query: &Query) -> Result<Bytes> {
        let reply = self.service.clone().do_action(request(Action::new(action, body), query)).await;
        let mut results = reply.map_err(|status| error_from_status(&status))?.into_inner();
        let result = results.message().await.map_err(|status| error_from_status(&status))?;
        result
            .map(|result| result.body)
            .ok_or_else(|| Error::unavailable("the server ended an action without an answer"))
    }
}

/// Makes a request with the timeout and the id of a query.
fn request<T>(body: T, query: &Query) -> Request<T> {
    let mut request = Request::new(body);
    if let Some(timeout_ms) = query.timeout_ms() {
        request.set_timeout(Duration::from_millis(timeout_ms));
    }
    if let Ok(id) = query.caller.request_id.parse()
        && !query.caller.request_id.is_empty()
    {
        request.metadata_mut().insert("x-request-id", id);
    }
    request
}

/// The messages of a reply, and their decoder.
struct ReplyReader {
    messages: Streaming<FlightData>,
    decoder: Decoder,
}

impl ReplyReader {
    /// Waits for the schema, and returns the batches.
    async fn into_batches(mut self) -> Result<BatchStream> {
        let first = self.until_schema().await?;
        let schema = self.decoder.schema().ok_or_else(|| Error::unavailable("the reply ended before its schema"))?;
        Ok(BatchStream::from_source(schema, first, self))
    }

    async fn until_schema(&mut self) -> Result<Option<RecordBatch>> {
        while self.decoder.schema().is_none() {
            let Some(data) = self.messages.message().await.map_err(|status| error_from_status(&status))? else { break };
            if let Some(batch) = self.decode(data)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn decode(&mut self, data: FlightData) -> Result<Option<RecordBatch>> {
        if data.data_header.is_empty() {
            return Ok(None);
        }
        self.decoder.decode(&data.data_header, data.data_body.into())
    }
}

#[async_trait]
impl BatchSource for ReplyReader {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(data) = self.messages.message().await.map_err(|status| error_from_status(&status))? {
            if let Some(batch) = self.decode(data)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl Client {
    /// Lists the tables whose names match a pattern; all of them if that is empty.
    async fn list_flights(&self, pattern: &str, caller: Caller) -> Result<Vec<TableInfo>> {
        let criteria = Criteria { expression: Bytes::copy_from_slice(pattern.as_bytes()) };
        let query = Query { caller, ..Query::default() };
        let reply = self.service.clone().list_flights(request(criteria, &query)).await;
        let mut flights = reply.map_err(|status| error_from_status(&status))?.into_inner();
        let mut tables = Vec::new();
        while let Some(info) = flights.message().await.map_err(|status| error_from_status(&status))? {
            tables.push(table_of(info)?);
        }
        Ok(tables)
    }
}

#[async_trait]
impl QueryPort for Client {
    async fn describe(&self, query: Query) -> Result<Description> {
        let body = Handle::of(&query).encode()?;
        decode_description(self.act(DESCRIBE, body, &query).await?)
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        if query.access == Access::Read {
            return Ok(Reply { kind: StatementKind::Read, batches: self.get(&query).await? });
        }
        // Only the server knows whether the statement reads or changes, and the two are sent differently.
        let described = self.describe(query.clone()).await?;
        let batches = match described.kind {
            StatementKind::Read => self.get(&query).await?,
            StatementKind::Definition => {
                self.update(&query).await?;
                BatchStream::empty(described.schema)
            }
            StatementKind::Change => {
                let count = Int64Array::from(vec![self.update(&query).await?]);
                let batch = RecordBatch::try_new(described.schema.clone(), vec![Arc::new(count)])
                    .map_err(|error| Error::internal("a change answers one count").with_source(error))?;
                BatchStream::from_batches(described.schema, vec![batch])
            }
        };
        Ok(Reply { kind: described.kind, batches })
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        let (failed, failure) = oneshot::channel();
        let descriptor = FlightDescriptor::new_cmd(Handle::of(&query).encode()?);
        let messages = put_messages(descriptor, input, self.message_bytes_target, failed);
        let mut service = self.service.clone();
        let reply = tokio::select! {
            Ok(error) = failure => return Err(error),
            reply = service.do_exchange(request(messages, &query)) => reply,
        };
        let messages = reply.map_err(|status| error_from_status(&status))?.into_inner();
        let batches = ReplyReader { messages, decoder: Decoder::new(self.limits.clone()) }.into_batches().await?;
        Ok(Reply { kind: StatementKind::Read, batches })
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        let id = self.act(SNAPSHOT, Bytes::new(), &Query { caller, ..Query::default() }).await?;
        let id = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
        id.map(SnapshotId).ok_or_else(|| Error::internal("the server's snapshot has no number"))
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        self.list_flights("", caller).await
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        // A name with a sign that means something in a pattern is looked for among all of them.
        let pattern = if is_plain(&name) { name.as_str() } else { "" };
        let tables = self.list_flights(pattern, caller).await?;
        let found = tables.into_iter().find(|table| table.name == name);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("table {name:?} not found")))
    }
}

/// Converts a flight of ListFlights to the table that it stands for.
fn table_of(info: FlightInfo) -> Result<TableInfo> {
    let path = info.flight_descriptor.map(|descriptor| descriptor.path).unwrap_or_default();
    let name = path.into_iter().next().ok_or_else(|| Error::internal("the server lists a table without a name"))?;
    // Less than nothing is not known.
    let number = |number: i64| u64::try_from(number).ok();
    Ok(TableInfo {
        name,
        schema: decode_schema(info.schema)?,
        rows: number(info.total_records),
        bytes: number(info.total_bytes),
        time_column: time_column_from_json(&info.app_metadata)?,
    })
}

#[async_trait]
impl IngestPort for Client {
    async fn append(&self, append: Append, batches: BatchStream) -> Result<IngestSummary> {
        let (failed, failure) = oneshot::channel();
        let query = Query { caller: append.caller.clone(), ..Query::default() };
        let descriptor = FlightDescriptor::new_cmd(Command::encode_append(&append));
        let messages = put_messages(descriptor, batches, self.message_bytes_target, failed);
        let result = tokio::select! {
            // Dropping the call makes the server see a stream that was cut off, so it publishes nothing.
            Ok(error) = failure => return Err(error),
            result = self.put(request(messages, &query)) => result?,
        };
        summary_from_json(&result.app_metadata)
    }

    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState> {
        let body = serde_json::json!({"table": table, "writer": writer}).to_string();
        let answer = self.act(WRITER, body.into(), &Query { caller, ..Query::default() }).await?;
        writer_from_json(&serde_json::from_slice(&answer).unwrap_or_default())
    }
}

/// Encodes the messages of a DoPut or DoExchange.
///
/// If `batches` fail, the stream never ends: an end would publish what was sent before. The error goes to `failed`.
fn put_messages(
    descriptor: FlightDescriptor,
    batches: BatchStream,
    bytes_target: u64,
    failed: oneshot::Sender<Error>,
) -> impl futures::Stream<Item = FlightData> + Send + 'static {
    let (mut encoder, schema) = Encoder::new(&batches.schema(), Encoding::plain(bytes_target));
    let mut first = flight_data(&schema);
    first.flight_descriptor = Some(descriptor);
    let mut failed = Some(failed);
    let rest = batches.map(move |batch| batch.and_then(|batch| encoder.encode(&batch))).then(move |messages| {
        let failed = if messages.is_err() { failed.take() } else { None };
        async move {
            match messages {
                Ok(messages) => messages,
                Err(error) => {
                    if let Some(failed) = failed {
                        let _ = failed.send(error);
                    }
                    std::future::pending().await
                }
            }
        }
    });
    stream::iter([first]).chain(rest.flat_map(stream::iter).map(|message| flight_data(&message)))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}
