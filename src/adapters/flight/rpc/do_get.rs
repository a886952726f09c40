//! DoGet: redeems a ticket, and streams the batches that it stands for.
//!
//! A ticket only reads. It is SQL text, a handle of this server, or a message of Flight SQL.

use crate::adapters::flight::call::{CallContext, RpcResult, admit};
use crate::adapters::flight::command::Command;
use crate::adapters::flight::grpc::incoming;
use crate::adapters::flight::grpc::outgoing::ReplyMessages;
use crate::adapters::flight::reply_stream::stream_reply;
use crate::adapters::flight::sql::catalog;
use crate::adapters::flight::state::State;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::{encoding, status_from_error};
use crate::adapters::serving::AdmittedRequest;
use crate::ports::{Access, BatchStream, Error, Result, StatementKind};
use arrow::datatypes::Schema;
use arrow_flight::Ticket;
use arrow_flight::sql::Command as SqlCommand;
use std::sync::Arc;
use tonic::body::Body;

/// Answers a DoGet.
pub async fn do_get(state: &Arc<State>, request: http::Request<Body>) -> RpcResult<ReplyMessages> {
    let limits = &state.options.limits;
    let request = incoming::request(request, limits.message_bytes_max);
    let mut request = request.map_err(|error| status_from_error(&error))?;
    let mut admitted = admit(state, "DoGet", &request)?;
    admitted.kind(StatementKind::Read);
    let result = async {
        let encoding = encoding(request.metadata(), limits)?;
        let call = CallContext::new(state, &admitted, request.metadata())?;
        let ticket = request.get_mut().single::<Ticket>().await?;
        Ok((redeem(&ticket.ticket, &call, &mut admitted).await?, encoding))
    };
    let result = result.await;
    stream_reply(admitted, result)
}

/// Returns the batches that a ticket stands for.
async fn redeem(ticket: &[u8], call: &CallContext, admitted: &mut AdmittedRequest) -> Result<BatchStream> {
    let handle = match Command::decode(ticket)? {
        Command::Text(sql) => Handle { sql, ..Handle::default() },
        Command::Handle(handle) => *handle,
        Command::Poll(_) => return Err(Error::invalid("this is not a ticket; send it to PollFlightInfo")),
        Command::Sql(command) => match *command {
            SqlCommand::CommandStatementUpdate(_) | SqlCommand::CommandStatementIngest(_) => {
                return Err(Error::invalid("a ticket reads only; send changes to DoPut"));
            }
            command => match call.statement(&command)? {
                Some(handle) => handle,
                None => {
                    let answer = catalog::batch(&command, call).await?;
                    return Ok(BatchStream::from_batches(answer.schema(), vec![answer]));
                }
            },
        },
    };
    read(handle, call, admitted).await
}

/// Runs the query of a handle, or takes its stored result.
async fn read(handle: Handle, call: &CallContext, admitted: &mut AdmittedRequest) -> Result<BatchStream> {
    if handle.executed {
        return Ok(BatchStream::empty(Arc::new(Schema::empty())));
    }
    admitted.statement(&handle.sql);
    let options = handle.result_options.clone().unwrap_or_else(|| call.result_options.clone());
    let handle = Handle { result_options: Some(options.clone()), ..handle };
    // Registered before the query begins, so that a cancellation in between stops it.
    let cancellable = handle.query_id.map(|id| call.state.cancellations.register(id));
    let batches = async {
        match handle.stored_result {
            Some(id) => call.state.results.get(id),
            None => Ok(call.state.query.query(call.query(handle.clone(), Access::Read)).await?.batches),
        }
    };
    let batches = match cancellable {
        Some(cancellable) => {
            let batches = admitted.or_shutdown(cancellable.or_cancelled(batches)).await?;
            cancellable.until_cancelled(batches)
        }
        None => admitted.or_shutdown(batches).await?,
    };
    let schema = handle.result_schema(&batches.schema());
    Ok(options.apply(batches, schema))
}
