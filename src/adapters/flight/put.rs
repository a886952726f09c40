//! DoPut: batches in, whole or not at all; changes and parameters in Flight SQL's form; and DoExchange.

use crate::adapters::flight::command::{Command, PutTarget, put_target};
use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::incoming::{FlightData, Incoming as Messages};
use crate::adapters::flight::info::Call;
use crate::adapters::flight::service::Service;
use crate::adapters::gate::Request as Admitted;
use crate::adapters::ipc::{DecodeLimits, Decoder, undescribed};
use crate::ports::{
    Access, Append, BatchSource, BatchStream, Error, IngestSummary, Query, Reply, Result, StatementKind,
};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{DoPutPreparedStatementResult, DoPutUpdateResult};
use arrow_flight::{FlightDescriptor, PutResult};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the rest of a refused stream is read, so that its client gets to see why.
const DRAIN: Duration = Duration::from_secs(5);

/// How an ingestion answers.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// With all of its summary.
    Summary,
    /// With its rows, as Flight SQL wants it.
    Rows,
}

/// Answers one DoPut.
pub async fn put(service: &Service, messages: Messages, admitted: &mut Admitted, call: &Call) -> Result<PutResult> {
    let mut incoming = Incoming::new(service, messages);
    match dispatch(service, &mut incoming, admitted, call).await {
        Ok(Step::Done(app_metadata)) => Ok(PutResult { app_metadata }),
        Ok(Step::Append { append: request, first, answer }) => {
            append(service, incoming, request, first, answer, admitted).await
        }
        Err(error) => {
            drain(incoming).await;
            Err(error)
        }
    }
}

/// What the first messages of a DoPut come to.
enum Step {
    Done(Bytes),
    Append { append: Append, first: Option<RecordBatch>, answer: Answer },
}

async fn dispatch(service: &Service, incoming: &mut Incoming, admitted: &mut Admitted, call: &Call) -> Result<Step> {
    let (descriptor, first) = incoming.first().await?;
    let (append, answer) = match put_target(&descriptor)? {
        PutTarget::Update(handle) => return update(service, *handle, admitted, call).await.map(Step::Done),
        PutTarget::Prepared(handle) => {
            let handle = service.bound.recall(incoming.bound(*handle, first).await?);
            return update(service, handle, admitted, call).await.map(Step::Done);
        }
        PutTarget::Bind(handle) => {
            let handle = incoming.bound(*handle, first).await?;
            let encoded = handle.encode()?;
            service.bound.remember(&handle, &encoded)?;
            let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(encoded) };
            return Ok(Step::Done(result.encode_to_vec().into()));
        }
        PutTarget::Table(append) => (append, Answer::Summary),
        PutTarget::Ingest(append) => (append, Answer::Rows),
    };
    let caller = crate::ports::Caller { request_id: call.request_id.clone() };
    let first = incoming.until_schema(first).await?;
    Ok(Step::Append { append: Append { caller, ..append }, first, answer })
}

async fn update(service: &Service, handle: Handle, admitted: &mut Admitted, call: &Call) -> Result<Bytes> {
    admitted.statement(&handle.sql);
    let reply = service.query.query(call.query(handle, Access::Change)).await?;
    admitted.kind(reply.kind);
    if reply.kind == StatementKind::Read {
        return Err(Error::invalid("this is a read, and DoPut takes changes; send it as a ticket"));
    }
    let record_count = count_of(reply).await?;
    Ok(DoPutUpdateResult { record_count }.encode_to_vec().into())
}

/// The count that a change answers; a definition has none to count.
pub(super) async fn count_of(reply: Reply) -> Result<i64> {
    let batches = reply.batches.collect().await?;
    Ok(match (reply.kind, batches.first()) {
        (StatementKind::Change, Some(count)) => {
            count.column(0).as_primitive_opt::<Int64Type>().map_or(-1, |count| count.value(0))
        }
        _ => 0,
    })
}

async fn append(
    service: &Service,
    incoming: Incoming,
    request: Append,
    first: Option<RecordBatch>,
    answer: Answer,
    admitted: &mut Admitted,
) -> Result<PutResult> {
    let (batches, given_back) = incoming.into_batches(first)?;
    match service.ingest.append(request, admitted.until_cut(batches)).await {
        Ok(summary) => {
            admitted.sent(summary.rows, summary.bytes);
            let record_count = i64::try_from(summary.rows).unwrap_or(-1);
            Ok(PutResult {
                app_metadata: match answer {
                    Answer::Summary => summary_json(&summary).into(),
                    Answer::Rows => DoPutUpdateResult { record_count }.encode_to_vec().into(),
                },
            })
        }
        Err(error) => {
            if let Ok(incoming) = given_back.await {
                drain(incoming).await;
            }
            Err(error)
        }
    }
}

/// Answers one DoExchange: SQL that may read what follows as a table.
pub async fn exchange(service: &Service, messages: Messages, admitted: &mut Admitted, call: &Call) -> Result<Reply> {
    let mut incoming = Incoming::new(service, messages);
    match exchange_query(&mut incoming, call).await {
        Ok((query, first)) => {
            admitted.statement(&query.sql);
            let (input, given_back) = incoming.into_batches(first)?;
            let reply = admitted.unless_cut(service.query.exchange(query, admitted.until_cut(input))).await;
            if reply.is_err()
                && let Ok(incoming) = given_back.await
            {
                drain(incoming).await;
            }
            reply
        }
        Err(error) => {
            drain(incoming).await;
            Err(error)
        }
    }
}

async fn exchange_query(incoming: &mut Incoming, call: &Call) -> Result<(Query, Option<RecordBatch>)> {
    let (descriptor, first) = incoming.first().await?;
    let handle = match descriptor.r#type() {
        DescriptorType::Path if descriptor.path.len() == 1 => {
            Handle { sql: descriptor.path[0].clone(), ..Handle::default() }
        }
        DescriptorType::Cmd => match Command::decode(&descriptor.cmd)? {
            Command::Text(sql) => Handle { sql, ..Handle::default() },
            Command::Handle(handle) => *handle,
            Command::Sql(_) | Command::Poll(_) => {
                return Err(Error::invalid("DoExchange takes SQL text as its command"));
            }
        },
        _ => return Err(Error::invalid("DoExchange takes SQL, as its command or as a path of one part")),
    };
    let first = incoming.until_schema(first).await?;
    Ok((call.query(handle, Access::Read), first))
}

/// The summary as DoPut answers it.
pub fn summary_json(summary: &IngestSummary) -> String {
    serde_json::json!({
        "rows": summary.rows,
        "batches": summary.batches,
        "bytes": summary.bytes,
        "table_created": summary.table_created,
    })
    .to_string()
}

/// The summary of [`summary_json`].
///
/// # Errors
///
/// `Internal` for anything else: it comes from a server of ours.
pub fn summary_from_json(text: &[u8]) -> Result<IngestSummary> {
    let wrong = || Error::internal("the server's summary of a DoPut does not decode");
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| wrong().with_source(error))?;
    let number = |key: &str| value[key].as_u64().ok_or_else(wrong);
    Ok(IngestSummary {
        rows: number("rows")?,
        batches: number("batches")?,
        bytes: number("bytes")?,
        table_created: value["table_created"].as_bool().ok_or_else(wrong)?,
    })
}

/// The client's half of a call.
struct Incoming {
    messages: Messages,
    decoder: Decoder,
    bytes_max: u64,
}

impl Incoming {
    fn new(service: &Service, messages: Messages) -> Self {
        let limits = &service.options.limits;
        Self {
            messages: messages.pumped(),
            decoder: Decoder::new(DecodeLimits::from(limits)),
            bytes_max: limits.message_bytes_max,
        }
    }

    /// The descriptor, and the message that it came with.
    async fn first(&mut self) -> Result<(FlightDescriptor, FlightData)> {
        let mut first =
            self.messages.flight_data().await?.ok_or_else(|| Error::invalid("the call came without a message"))?;
        let descriptor = first.descriptor.take().ok_or_else(|| {
            Error::invalid("the first message has no descriptor: it says which table, or which statement")
        })?;
        Ok((descriptor, first))
    }

    /// Reads up to the schema, which may stand in the first message.
    async fn until_schema(&mut self, first: FlightData) -> Result<Option<RecordBatch>> {
        let mut batch = self.decode(first)?;
        while self.decoder.schema().is_none() {
            let next = self.messages.flight_data().await?;
            batch = self.decode(next.ok_or_else(|| Error::invalid("the call ended before its schema"))?)?;
        }
        Ok(batch)
    }

    /// `handle` with all that follows as its parameters; as it was, where nothing follows.
    async fn bound(&mut self, handle: Handle, first: FlightData) -> Result<Handle> {
        let mut batches: Vec<RecordBatch> = self.decode(first)?.into_iter().collect();
        let mut bytes = 0;
        while let Some(batch) = self.next_batch().await? {
            bytes += batch.get_array_memory_size() as u64;
            if bytes > self.bytes_max {
                return Err(Error::limit(format!(
                    "the parameters take more than {} bytes (message_bytes_max); ingest them instead",
                    self.bytes_max
                )));
            }
            batches.push(batch);
        }
        let Some(schema) = self.decoder.schema().filter(|schema| !schema.fields().is_empty()) else {
            return Ok(handle);
        };
        let params = concat_batches(&schema, &batches)
            .map_err(|error| Error::invalid(format!("the parameters do not fit together: {error}")))?;
        Ok(Handle { params: Some(params), ..handle })
    }

    /// The batches, `first` before all others, and what is left of the call when they are dropped.
    fn into_batches(self, first: Option<RecordBatch>) -> Result<(BatchStream, oneshot::Receiver<Self>)> {
        let schema = self.decoder.schema().ok_or_else(|| Error::internal("a stream was begun without its schema"))?;
        let (give_back, given_back) = oneshot::channel();
        let reading = Reading { incoming: Some(self), give_back: Some(give_back) };
        Ok((undescribed(BatchStream::from_source(schema, first, reading)), given_back))
    }

    fn decode(&mut self, data: FlightData) -> Result<Option<RecordBatch>> {
        // A message may carry metadata alone.
        if data.header.is_empty() {
            return Ok(None);
        }
        self.decoder.decode(&data.header, data.body)
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(data) = self.messages.flight_data().await? {
            if let Some(batch) = self.decode(data)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Lends the client's half to a stream of batches, and gives it back when that is dropped.
struct Reading {
    incoming: Option<Incoming>,
    give_back: Option<oneshot::Sender<Incoming>>,
}

#[async_trait]
impl BatchSource for Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.incoming {
            Some(incoming) => incoming.next_batch().await,
            None => Ok(None),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let (Some(incoming), Some(give_back)) = (self.incoming.take(), self.give_back.take()) {
            // Nobody wants it back where the call itself was dropped.
            let _ = give_back.send(incoming);
        }
    }
}

/// Reads on for a while: a client that is still writing sees the error only once it stops.
async fn drain(mut incoming: Incoming) {
    let _ = tokio::time::timeout(DRAIN, incoming.messages.skip()).await;
}
