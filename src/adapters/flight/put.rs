//! DoPut: batches in, whole or not at all; and changes in Flight SQL's form.

use crate::adapters::flight::grpc::{FlightData, Incoming as Messages};
use crate::adapters::flight::service::Service;
use crate::adapters::flight::wire::{Handle, PutTarget, put_target, timeout_ms};
use crate::adapters::gate::Request as Admitted;
use crate::adapters::ipc::{DecodeLimits, Decoder};
use crate::ports::{Access, Append, BatchStream, Caller, Error, IngestSummary, Query, Result, StatementKind};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::PutResult;
use arrow_flight::sql::DoPutUpdateResult;
use futures::stream;
use prost::Message as _;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::Request;

/// How long the rest of a refused stream is read, so that its client gets to see why.
const DRAIN: Duration = Duration::from_secs(5);

/// Answers one DoPut.
pub async fn put(service: &Service, request: Request<Messages>, admitted: &mut Admitted) -> Result<PutResult> {
    let timeout_ms = timeout_ms(request.metadata());
    let mut incoming =
        Incoming { messages: request.into_inner(), decoder: Decoder::new(DecodeLimits::from(&service.options.limits)) };
    let result = dispatch(service, &mut incoming, admitted, timeout_ms).await;
    match result {
        Ok(Step::Done(result)) => Ok(result),
        Ok(Step::Append { table, first }) => append(service, incoming, table, first, admitted).await,
        Err(error) => {
            drain(incoming).await;
            Err(error)
        }
    }
}

/// What the first messages of a DoPut come to.
enum Step {
    Done(PutResult),
    Append { table: String, first: Option<RecordBatch> },
}

async fn dispatch(
    service: &Service,
    incoming: &mut Incoming,
    admitted: &mut Admitted,
    timeout_ms: Option<u64>,
) -> Result<Step> {
    let first = incoming.messages.flight_data().await?.ok_or_else(|| Error::invalid("DoPut came without a message"))?;
    let descriptor = first
        .descriptor
        .as_ref()
        .ok_or_else(|| Error::invalid("the first message of DoPut has no descriptor: send the table's name in it"))?;
    let target = put_target(descriptor)?;
    match target {
        PutTarget::Update(handle) => update(service, handle, admitted, timeout_ms).await.map(Step::Done),
        PutTarget::Table(table) => {
            let mut batch = incoming.decode(first)?;
            while incoming.decoder.schema().is_none() {
                let next = incoming.messages.flight_data().await?;
                let next = next.ok_or_else(|| Error::invalid("DoPut ended before its schema"))?;
                batch = incoming.decode(next)?;
            }
            Ok(Step::Append { table, first: batch })
        }
    }
}

async fn update(
    service: &Service,
    handle: Handle,
    admitted: &mut Admitted,
    timeout_ms: Option<u64>,
) -> Result<PutResult> {
    admitted.statement(&handle.sql);
    let caller = Caller { request_id: admitted.id().to_owned() };
    let query = Query { timeout_ms, caller, ..handle.into_query(Access::Change) };
    let reply = service.query.query(query).await?;
    admitted.kind(reply.kind);
    let kind = reply.kind;
    let batches = reply.batches.collect().await?;
    let record_count = match (kind, batches.first()) {
        (StatementKind::Change, Some(count)) => {
            count.column(0).as_primitive_opt::<Int64Type>().map_or(-1, |count| count.value(0))
        }
        (StatementKind::Read, _) => {
            return Err(Error::invalid("this is a read, and DoPut takes changes; send it as a ticket"));
        }
        _ => 0,
    };
    Ok(PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() })
}

async fn append(
    service: &Service,
    incoming: Incoming,
    table: String,
    first: Option<RecordBatch>,
    admitted: &mut Admitted,
) -> Result<PutResult> {
    let schema = incoming.decoder.schema().ok_or_else(|| Error::internal("a stream was begun without its schema"))?;
    let (give_back, given_back) = oneshot::channel();
    let reading = Some(Reading { incoming: Some(incoming), give_back: Some(give_back) });
    let batches = stream::unfold((reading, first), |(reading, first)| async move {
        let mut reading = reading?;
        if let Some(batch) = first {
            return Some((Ok(batch), (Some(reading), None)));
        }
        let next = reading.incoming.as_mut()?.next_batch().await.transpose()?;
        let rest = next.is_ok().then_some(reading);
        Some((next, (rest, None)))
    });
    let batches = admitted.until_cut(BatchStream::new(schema, batches));
    let request = Append { table, caller: Caller { request_id: admitted.id().to_owned() } };
    match service.ingest.append(request, batches).await {
        Ok(summary) => {
            admitted.sent(summary.rows, summary.bytes);
            Ok(PutResult { app_metadata: summary_json(&summary).into() })
        }
        Err(error) => {
            if let Ok(incoming) = given_back.await {
                drain(incoming).await;
            }
            Err(error)
        }
    }
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

/// The client's half of a DoPut.
struct Incoming {
    messages: Messages,
    decoder: Decoder,
}

impl Incoming {
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
