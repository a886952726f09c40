//! PollFlightInfo: runs a long query in the background while its client polls for progress.
//!
//! The query is answered in parts, one after the other: each part that is ready is one more endpoint and so much more
//! progress. A client may read the first parts while the last are computed.

use crate::adapters::flight::call::{CallContext, RpcResult, admit, note_statement, reply};
use crate::adapters::flight::command::{Command, command_of};
use crate::adapters::flight::rpc::flight_info::{Count, describe_part, endpoint, info};
use crate::adapters::flight::state::State;
use crate::adapters::flight::state::polls::PollProgress;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::ipc::encode_schema;
use crate::ports::{Access, Error, ErrorKind, Part, Result, StatementKind};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Request;

/// Parts that a query is answered in.
const PARTS: u32 = 16;

/// How long one call waits for progress.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers a PollFlightInfo.
pub async fn poll_flight_info(state: &Arc<State>, request: Request<FlightDescriptor>) -> RpcResult<PollInfo> {
    let mut admitted = admit(state, "PollFlightInfo", &request)?;
    let result = match CallContext::new(state, &admitted, request.metadata()) {
        Ok(call) => {
            note_statement(&mut admitted, request.get_ref());
            admitted.or_shutdown(poll(request.into_inner(), call)).await
        }
        Err(error) => Err(error),
    };
    reply(&mut admitted, result)
}

/// Starts a query, or waits for the progress of one.
async fn poll(descriptor: FlightDescriptor, call: CallContext) -> Result<PollInfo> {
    let state = call.state.clone();
    let (id, mut progress) = match command_of(&descriptor)? {
        Command::Poll(id) => (id, state.polls.progress(id).ok_or_else(unknown_query)?),
        _ => start(descriptor, call)?,
    };
    let changed = tokio::time::timeout(POLL_TIMEOUT, progress.changed()).await;
    let now = progress.borrow_and_update().clone();
    // The receiver that has seen this version goes back: the next poll waits for a newer one.
    state.polls.mark_reported(id, progress);
    let now = match (changed, now) {
        // The sender is gone, but sent no end: the task panicked.
        (Ok(Err(_)), PollProgress::Running(..)) => {
            PollProgress::Failed(Error::internal("the query stopped without an answer"))
        }
        (_, now) => now,
    };
    let mut poll = PollInfo { expiration_time: state.ticket_expiry(), ..PollInfo::default() };
    let command = Command::encode_poll(id);
    match now {
        PollProgress::Running(mut info, progress) => {
            info.app_metadata = command.clone();
            poll.info = Some(info);
            poll.progress = Some(progress);
            poll.flight_descriptor = Some(FlightDescriptor::new_cmd(command));
        }
        PollProgress::Done(info) => {
            state.polls.end(id, PollProgress::Done(info.clone()));
            poll.info = Some(info);
            poll.progress = Some(1.0);
        }
        PollProgress::Failed(error) => {
            state.polls.end(id, PollProgress::Failed(error.clone()));
            return Err(error);
        }
    }
    Ok(poll)
}

/// Starts a query in a task of its own.
fn start(descriptor: FlightDescriptor, call: CallContext) -> Result<(u128, watch::Receiver<PollProgress>)> {
    let id = uuid::Uuid::new_v4().as_u128();
    let state = call.state.clone();
    let nothing = FlightInfo::new().with_descriptor(descriptor.clone()).with_ordered(true);
    let nothing = nothing.with_total_records(-1).with_total_bytes(-1);
    let (sender, progress) = watch::channel(PollProgress::Running(nothing, 0.0));
    // The caller's deadline is for this call, not for the query.
    let call = CallContext { deadline: None, ..call };
    let task = tokio::spawn(async move {
        let last = match run_in_parts(descriptor, &call, &sender).await {
            Ok(info) => PollProgress::Done(info),
            Err(error) => PollProgress::Failed(error),
        };
        sender.send_replace(last);
    });
    state.polls.insert(id, progress.clone(), task)?;
    Ok((id, progress))
}

async fn run_in_parts(
    descriptor: FlightDescriptor,
    call: &CallContext,
    sender: &watch::Sender<PollProgress>,
) -> Result<FlightInfo> {
    let query = &call.state.query;
    let handle = match command_of(&descriptor)? {
        Command::Text(sql) => call.for_raw_client(Handle { sql, ..Handle::default() }),
        Command::Handle(handle) => call.for_raw_client(*handle),
        Command::Poll(_) => return Err(Error::invalid("a poll is not a query")),
        Command::Sql(command) => match call.statement(&command)? {
            Some(handle) => {
                let described = query.describe(call.query(handle.clone(), Access::Change)).await?;
                if described.kind != StatementKind::Read {
                    return info(descriptor, call).await;
                }
                handle
            }
            None => return info(descriptor, call).await,
        },
    };
    let snapshot = match handle.snapshot {
        Some(pinned) => Some(pinned),
        None => Some(query.snapshot(call.caller.clone()).await?),
    };
    let query_id = Some(uuid::Uuid::new_v4().as_u128());
    let handle = Handle { snapshot, query_id, may_change: false, ..handle };
    let mut info = FlightInfo::new().with_descriptor(descriptor).with_total_bytes(-1).with_ordered(true);
    let mut total = 0;
    for index in 0..PARTS {
        let part = Some(Part::new(index, PARTS)?);
        let (schema, handle, rows) = describe_part(Handle { part, ..handle.clone() }, call, Count::Exact).await?;
        let rows = rows.unwrap_or(0);
        total += rows;
        info.schema = encode_schema(&schema);
        // Empty parts get no endpoint: a query that cannot be divided has its rows in one. An empty result gets its one
        // endpoint from the last part.
        if rows > 0 || (index + 1 == PARTS && info.endpoint.is_empty()) {
            info = info.with_endpoint(endpoint(&handle, &call.state)?);
        } else if let Some(id) = handle.stored_result {
            // No ticket will ask for it.
            call.state.results.remove(id);
        }
        let progress = f64::from(index + 1) / f64::from(PARTS);
        sender.send_replace(PollProgress::Running(info.clone().with_total_records(-1), progress));
    }
    Ok(info.with_total_records(i64::try_from(total).unwrap_or(-1)))
}

fn unknown_query() -> Error {
    Error::new(ErrorKind::NotFound, "the query is unknown, or was removed because it was not polled; start it again")
}
