//! GetFlightInfo and GetSchema: describe a result, and make the tickets for it.
//!
//! The count of a raw command is exact: if only running the query tells, it runs here, once. The count for a Flight SQL
//! client is what is known without running, because drivers wait for this answer before they read anything. A change
//! that a driver sends as a query is executed here, once, and its ticket stands for a result without columns.

use crate::adapters::flight::call::{CallContext, RpcResult, admit, note_statement, reply};
use crate::adapters::flight::command::{Command, command_of};
use crate::adapters::flight::sql::catalog;
use crate::adapters::flight::state::State;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::change_count;
use crate::adapters::ipc::encode_schema;
use crate::ports::{Access, Error, Part, Result, StatementKind};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::Command as SqlCommand;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, SchemaResult, Ticket};
use prost::Message as _;
use std::sync::Arc;
use tonic::Request;

/// What to do about a count that only running the query tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Run the query.
    Exact,
    /// Report no count.
    IfKnown,
}

/// Answers a GetFlightInfo.
pub async fn get_flight_info(state: &Arc<State>, request: Request<FlightDescriptor>) -> RpcResult<FlightInfo> {
    let mut admitted = admit(state, "GetFlightInfo", &request)?;
    let result = match CallContext::new(state, &admitted, request.metadata()) {
        Ok(call) => {
            let descriptor = request.into_inner();
            note_statement(&mut admitted, &descriptor);
            admitted.or_shutdown(info(descriptor, &call)).await
        }
        Err(error) => Err(error),
    };
    reply(&mut admitted, result)
}

/// Answers a GetSchema; runs nothing.
pub async fn get_schema(state: &Arc<State>, request: Request<FlightDescriptor>) -> RpcResult<SchemaResult> {
    let mut admitted = admit(state, "GetSchema", &request)?;
    let result = match CallContext::new(state, &admitted, request.metadata()) {
        Ok(call) => {
            note_statement(&mut admitted, request.get_ref());
            admitted.or_shutdown(schema(request.get_ref(), &call)).await
        }
        Err(error) => Err(error),
    };
    reply(&mut admitted, result.map(|schema| SchemaResult { schema: encode_schema(&schema) }))
}

/// Describes the result of a descriptor, and makes its tickets.
///
/// # Errors
///
/// `InvalidQuery` for a descriptor that is not a read, and those of the query port.
pub async fn info(descriptor: FlightDescriptor, call: &CallContext) -> Result<FlightInfo> {
    match command_of(&descriptor)? {
        Command::Text(sql) => {
            let handle = call.for_raw_client(Handle { sql, ..Handle::default() });
            read_info(descriptor, handle, call, Count::Exact).await
        }
        Command::Handle(handle) => read_info(descriptor, call.for_raw_client(*handle), call, Count::Exact).await,
        Command::Poll(_) => Err(Error::invalid("this descriptor is for PollFlightInfo")),
        Command::Sql(command) => match call.statement(&command)? {
            Some(handle) => statement_info(descriptor, handle, call).await,
            None => catalog_info(descriptor, &command, call).await,
        },
    }
}

async fn schema(descriptor: &FlightDescriptor, call: &CallContext) -> Result<SchemaRef> {
    let (handle, access) = match command_of(descriptor)? {
        Command::Text(sql) => (call.for_raw_client(Handle { sql, ..Handle::default() }), Access::Read),
        Command::Handle(handle) => (call.for_raw_client(*handle), Access::Read),
        Command::Poll(_) => return Err(Error::invalid("this descriptor is for PollFlightInfo")),
        Command::Sql(command) => match call.statement(&command)? {
            Some(handle) => (handle, Access::Change),
            None => return catalog::schema(&command),
        },
    };
    let described = call.state.query.describe(call.query(handle.clone(), access)).await?;
    Ok(match described.kind {
        StatementKind::Read => handle.result_schema(&described.schema),
        StatementKind::Change | StatementKind::Definition => Arc::new(Schema::empty()),
    })
}

/// Describes a read, in as many endpoints as its caller wants.
async fn read_info(
    descriptor: FlightDescriptor,
    handle: Handle,
    call: &CallContext,
    count: Count,
) -> Result<FlightInfo> {
    // Pinned before the first endpoint: all of them read one state of the tables.
    let snapshot = match handle.snapshot {
        Some(pinned) => pinned,
        None => call.state.query.snapshot(call.caller.clone()).await?,
    };
    let query_id = Some(uuid::Uuid::new_v4().as_u128());
    let handle = Handle { snapshot: Some(snapshot), query_id, may_change: false, ..handle };
    let mut info = FlightInfo::new().with_descriptor(descriptor).with_total_bytes(-1).with_ordered(true);
    let mut total = Some(0);
    let endpoints = call.endpoints.max(1);
    let bytes = (handle.encode()?.len() as u64).saturating_mul(u64::from(endpoints));
    let bytes_max = call.state.options.limits.message_bytes_max;
    if bytes > bytes_max {
        return Err(Error::limit(format!(
            "{endpoints} tickets would take {bytes} bytes, more than {bytes_max} (message_bytes_max); ask for fewer endpoints",
        )));
    }
    for index in 0..endpoints {
        let part = if endpoints > 1 { Some(Part::new(index, endpoints)?) } else { handle.part };
        let (schema, handle, rows) = describe_part(Handle { part, ..handle.clone() }, call, count).await?;
        info.schema = encode_schema(&schema);
        info = info.with_endpoint(endpoint(&handle, &call.state)?);
        total = total.zip(rows).map(|(total, rows)| total + rows);
    }
    Ok(info.with_total_records(total.and_then(|total| i64::try_from(total).ok()).unwrap_or(-1)))
}

/// Describes one part of a result: its schema, the handle for its ticket, and its number of rows if that is known.
///
/// # Errors
///
/// Those of the query port, and `LimitExceeded` if a result that had to run cannot be stored.
pub async fn describe_part(
    handle: Handle,
    call: &CallContext,
    count: Count,
) -> Result<(SchemaRef, Handle, Option<u64>)> {
    let query = call.query(handle.clone(), Access::Read);
    let described = call.state.query.describe(query.clone()).await?;
    let schema = handle.result_schema(&described.schema);
    if described.rows.is_some() || count == Count::IfKnown {
        return Ok((schema, handle, described.rows));
    }
    // The count is part of the answer, so the query runs, once: its ticket stands for the stored result.
    let reply = call.state.query.query(query).await?;
    let (id, rows) = call.state.results.put(reply.batches).await?;
    let Handle { annotated, result_options, query_id, .. } = handle;
    let handle = Handle { stored_result: Some(id), annotated, result_options, query_id, ..Handle::default() };
    Ok((schema, handle, Some(rows)))
}

/// Makes the endpoint of a handle. Its ticket may be redeemed any number of times until it expires.
///
/// # Errors
///
/// `Internal` if the handle cannot be encoded.
pub fn endpoint(handle: &Handle, state: &State) -> Result<FlightEndpoint> {
    let mut endpoint = FlightEndpoint::new().with_ticket(Ticket::new(handle.encode()?));
    endpoint.expiration_time = state.ticket_expiry();
    Ok(endpoint)
}

/// Describes a read of a Flight SQL client, or executes its change.
async fn statement_info(descriptor: FlightDescriptor, handle: Handle, call: &CallContext) -> Result<FlightInfo> {
    let described = call.state.query.describe(call.query(handle.clone(), Access::Change)).await?;
    if described.kind == StatementKind::Read {
        return read_info(descriptor, handle, call, Count::IfKnown).await;
    }
    let reply = call.state.query.query(call.query(handle, Access::Change)).await?;
    let changed = change_count(reply).await?;
    let executed = Handle { executed: true, ..Handle::default() };
    let mut info = FlightInfo::new()
        .with_descriptor(descriptor)
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(executed.encode()?)))
        .with_total_records(changed)
        .with_total_bytes(-1);
    info.schema = encode_schema(&Schema::empty());
    Ok(info)
}

/// Describes the answer to a catalogue request. The ticket is the request itself.
async fn catalog_info(descriptor: FlightDescriptor, command: &SqlCommand, call: &CallContext) -> Result<FlightInfo> {
    let answer = catalog::batch(command, call).await?;
    let ticket = Ticket::new(command.clone().into_any().encode_to_vec());
    let mut info = FlightInfo::new()
        .with_descriptor(descriptor)
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_total_records(i64::try_from(answer.num_rows()).unwrap_or(-1))
        .with_total_bytes(-1);
    info.schema = encode_schema(answer.schema_ref());
    Ok(info)
}
