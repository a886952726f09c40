//! DoExchange: runs SQL that may read the batches of the call as a table.

use crate::adapters::flight::call::{CallContext, RpcResult, admit};
use crate::adapters::flight::call_stream::CallStream;
use crate::adapters::flight::command::Command;
use crate::adapters::flight::grpc::incoming::{self, Incoming};
use crate::adapters::flight::grpc::outgoing::ReplyMessages;
use crate::adapters::flight::reply_stream::stream_reply;
use crate::adapters::flight::state::State;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::{encoding, status_from_error};
use crate::adapters::serving::AdmittedRequest;
use crate::ports::{Access, Error, Query, Reply, Result};
use arrow::array::RecordBatch;
use arrow_flight::flight_descriptor::DescriptorType;
use std::sync::Arc;
use tonic::body::Body;

/// Answers a DoExchange.
pub async fn do_exchange(state: &Arc<State>, request: http::Request<Body>) -> RpcResult<ReplyMessages> {
    let limits = &state.options.limits;
    let request = incoming::request(request, &state.options);
    let request = request.map_err(|error| status_from_error(&error))?;
    let mut admitted = admit(state, "DoExchange", &request)?;
    let result = async {
        let encoding = encoding(request.metadata(), limits)?;
        let call = CallContext::new(state, &admitted, request.metadata())?;
        let reply = exchange(request.into_inner(), &call, &mut admitted).await?;
        admitted.kind(reply.kind);
        let schema = Arc::new(call.result_options.schema(&reply.batches.schema()));
        Ok((call.result_options.apply(reply.batches, schema), encoding))
    };
    let result = result.await;
    stream_reply(admitted, result)
}

async fn exchange(messages: Incoming, call: &CallContext, admitted: &mut AdmittedRequest) -> Result<Reply> {
    let mut stream = CallStream::new(messages, &call.state.options);
    match read_query(&mut stream, call).await {
        Ok((query, first)) => {
            admitted.statement(&query.sql);
            let (input, given_back) = stream.into_batches(first)?;
            let input = admitted.until_shutdown(input);
            let reply = admitted.or_shutdown(call.state.query.exchange(query, input)).await;
            if reply.is_err()
                && let Ok(stream) = given_back.await
            {
                stream.drain().await;
            }
            reply
        }
        Err(error) => {
            stream.drain().await;
            Err(error)
        }
    }
}

/// Reads the query of the descriptor, and the messages up to the schema.
async fn read_query(stream: &mut CallStream, call: &CallContext) -> Result<(Query, Option<RecordBatch>)> {
    let (descriptor, first) = stream.first().await?;
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
    let first = stream.until_schema(first).await?;
    Ok((call.query(handle, Access::Read), first))
}
