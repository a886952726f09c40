//! DoPut: ingests batches as a whole or not at all, runs changes, and binds parameters.
//!
//! The first message's descriptor decides which of the three. A refused call is drained, so that its client sees why.

use crate::adapters::flight::call::{CallContext, RpcResult, admit, reply};
use crate::adapters::flight::call_stream::CallStream;
use crate::adapters::flight::command::{PutTarget, put_target};
use crate::adapters::flight::grpc::incoming::{self, Incoming};
use crate::adapters::flight::grpc::outgoing::{self, ReplyMessages};
use crate::adapters::flight::state::State;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::{change_count, put_options, status_from_error, summary_json};
use crate::adapters::serving::AdmittedRequest;
use crate::adapters::serving::numbered_put::with_options;
use crate::ports::{Access, Append, Error, Result, StatementKind};
use arrow::array::RecordBatch;
use arrow_flight::PutResult;
use arrow_flight::sql::{DoPutPreparedStatementResult, DoPutUpdateResult};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use prost::Message as _;
use std::sync::Arc;
use tonic::body::Body;

/// Answers a DoPut.
pub async fn do_put(state: &Arc<State>, request: http::Request<Body>) -> RpcResult<ReplyMessages> {
    let request = incoming::request(request, &state.options);
    let request = request.map_err(|error| status_from_error(&error))?;
    let mut admitted = admit(state, "DoPut", &request)?;
    let options = put_options(request.metadata());
    let result = match CallContext::new(state, &admitted, request.metadata()).and_then(|call| Ok((call, options?))) {
        Ok((call, options)) => put(request.into_inner(), &options, &call, &mut admitted).await,
        Err(error) => Err(error),
    };
    reply(&mut admitted, result.map(|result| stream::iter([Ok(outgoing::proto(&result))]).boxed()))
}

async fn put(
    messages: Incoming,
    options: &[(&'static str, String)],
    call: &CallContext,
    admitted: &mut AdmittedRequest,
) -> Result<PutResult> {
    let mut stream = CallStream::new(messages, &call.state.options);
    match begin(&mut stream, options, call, admitted).await {
        Ok(Begun::Answered(app_metadata)) => Ok(PutResult { app_metadata }),
        Ok(Begun::Ingest { append, first, answer }) => ingest(append, stream, first, answer, call, admitted).await,
        Err(error) => {
            stream.drain().await;
            Err(error)
        }
    }
}

/// The form of the answer to an ingestion.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// The whole summary as JSON.
    Summary,
    /// The number of rows, as Flight SQL wants it.
    Rows,
}

/// A DoPut whose descriptor was read.
enum Begun {
    /// It needs no more messages; this is the answer.
    Answered(Bytes),
    /// Its batches are to be ingested, of which `first` was read already.
    Ingest { append: Append, first: Option<RecordBatch>, answer: Answer },
}

/// Reads the descriptor. Runs a change or binds parameters; reads an ingestion up to its schema.
async fn begin(
    stream: &mut CallStream,
    options: &[(&'static str, String)],
    call: &CallContext,
    admitted: &mut AdmittedRequest,
) -> Result<Begun> {
    let (descriptor, first) = stream.first().await?;
    let bound_parameters = &call.state.bound_parameters;
    let (append, answer) = match put_target(&descriptor)? {
        PutTarget::Update(handle) => return update(*handle, call, admitted).await.map(Begun::Answered),
        PutTarget::Prepared(handle) => {
            let handle = bound_parameters.attach(stream.bind(*handle, first).await?);
            return update(handle, call, admitted).await.map(Begun::Answered);
        }
        PutTarget::Bind(handle) => {
            let handle = stream.bind(*handle, first).await?;
            let encoded = handle.encode()?;
            bound_parameters.store(&handle, &encoded)?;
            let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(encoded) };
            return Ok(Begun::Answered(result.encode_to_vec().into()));
        }
        PutTarget::Table(append) => (append, Answer::Summary),
        PutTarget::Ingest(append) => (append, Answer::Rows),
    };
    let option = |name| options.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let append = with_options(append, option)?;
    let caller = call.caller.clone();
    let first = stream.until_schema(first).await?;
    Ok(Begun::Ingest { append: Append { caller, ..append }, first, answer })
}

async fn update(handle: Handle, call: &CallContext, admitted: &mut AdmittedRequest) -> Result<Bytes> {
    admitted.statement(&handle.sql);
    let reply = admitted.or_shutdown(call.state.query.query(call.query(handle, Access::Change))).await?;
    admitted.kind(reply.kind);
    if reply.kind == StatementKind::Read {
        return Err(Error::invalid("this is a read, and DoPut takes changes; send it as a ticket"));
    }
    let record_count = change_count(reply).await?;
    Ok(DoPutUpdateResult { record_count }.encode_to_vec().into())
}

async fn ingest(
    append: Append,
    stream: CallStream,
    first: Option<RecordBatch>,
    answer: Answer,
    call: &CallContext,
    admitted: &mut AdmittedRequest,
) -> Result<PutResult> {
    let (batches, given_back) = stream.into_batches(first)?;
    match call.state.ingest.append(append, admitted.until_shutdown(batches)).await {
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
            if let Ok(stream) = given_back.await {
                stream.drain().await;
            }
            Err(error)
        }
    }
}
