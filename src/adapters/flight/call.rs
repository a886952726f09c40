//! The common part of all RPCs: admission, the context of a call, and its reply.
//!
//! No RPC's file is imported here: an RPC imports this one.

use crate::adapters::flight::command::{Command, no_transaction, short_name};
use crate::adapters::flight::session;
use crate::adapters::flight::state::State;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::{endpoints, status_from_error, timeout_ms};
use crate::adapters::serving::{Activity, AdmittedRequest, ResultOptions, Strings, request_id};
use crate::ports::{Access, Caller, Query, Result, deadline_in_ms};
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::Command as SqlCommand;
use futures::stream::{self, BoxStream, StreamExt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// Header with a request's id, in both directions.
const REQUEST_ID: &str = "x-request-id";

/// The reply of an RPC.
pub type RpcResult<T> = Result<Response<T>, Status>;

/// A stream of messages.
pub type Items<T> = BoxStream<'static, Result<T, Status>>;

/// What a call knows of its connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Address of the client.
    pub peer: SocketAddr,
    /// The connection's calls.
    pub activity: Activity,
}

/// The context of a call: the server's state, and what its metadata asks for.
///
/// Clones outlive the call, which the work of PollFlightInfo needs; so the line in the log is not part of it.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The server's state.
    pub state: Arc<State>,
    /// Who calls.
    pub caller: Caller,
    /// When it has to be answered.
    pub deadline: Option<Instant>,
    /// Options of its result.
    pub result_options: ResultOptions,
    /// Number of endpoints that it wants.
    pub endpoints: u32,
}

impl CallContext {
    /// Reads the context of an admitted call from its metadata.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an invalid value of a header.
    pub fn new(state: &Arc<State>, admitted: &AdmittedRequest, metadata: &MetadataMap) -> Result<Self> {
        Ok(Self {
            state: state.clone(),
            caller: admitted.caller(),
            deadline: timeout_ms(metadata).and_then(deadline_in_ms),
            result_options: session::result_options(metadata)?,
            endpoints: endpoints(metadata)?,
        })
    }

    /// Converts a handle to its query, with the deadline and the caller of this call.
    pub fn query(&self, handle: Handle, access: Access) -> Query {
        Query { deadline: self.deadline, caller: self.caller.clone(), ..handle.into_query(access) }
    }

    /// Completes a handle for a Flight SQL client: plain strings unless it asks otherwise, and columns with metadata.
    pub fn for_sql_client(&self, handle: Handle) -> Handle {
        let options = self.result_options.clone().or(&ResultOptions::of_strings(Strings::Plain));
        Handle { annotated: true, result_options: handle.result_options.or(Some(options)), ..handle }
    }

    /// Completes a handle for a client without Flight SQL: columns as they are stored, unless it asks otherwise.
    pub fn for_raw_client(&self, handle: Handle) -> Handle {
        Handle { result_options: handle.result_options.or_else(|| Some(self.result_options.clone())), ..handle }
    }

    /// Returns the statement of a Flight SQL message; none if the message is a catalogue request.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a handle that does not decode, `Unsupported` for a transaction.
    pub fn statement(&self, command: &SqlCommand) -> Result<Option<Handle>> {
        let handle = match command {
            SqlCommand::CommandStatementQuery(query) => {
                no_transaction(query.transaction_id.as_ref())?;
                Handle { sql: query.query.clone(), may_change: true, ..Handle::default() }
            }
            SqlCommand::CommandPreparedStatementQuery(query) => {
                self.state.bound_parameters.attach(Handle::decode(&query.prepared_statement_handle)?)
            }
            SqlCommand::TicketStatementQuery(ticket) => Handle::decode(&ticket.statement_handle)?,
            _ => return Ok(None),
        };
        Ok(Some(self.for_sql_client(handle)))
    }
}

/// Admits a call.
///
/// # Errors
///
/// UNAVAILABLE while the server drains.
pub fn admit<T>(state: &State, verb: &str, request: &Request<T>) -> Result<AdmittedRequest, Status> {
    let given = request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let info = request.extensions().get::<ConnectionInfo>();
    let admitted = state.admission.admit("flight", verb.to_owned(), request_id(given), info.map(|info| info.peer));
    let mut admitted = admitted.map_err(|error| status_from_error(&error))?;
    if let Some(info) = info {
        admitted.keep_open(&info.activity);
    }
    Ok(admitted)
}

/// Notes the statement of a descriptor, for the log.
pub fn note_statement(admitted: &mut AdmittedRequest, descriptor: &FlightDescriptor) {
    match Command::decode(&descriptor.cmd) {
        Ok(Command::Text(sql)) if !sql.is_empty() => admitted.statement(&sql),
        Ok(Command::Handle(handle)) => admitted.statement(&handle.sql),
        Ok(Command::Sql(command)) => match *command {
            SqlCommand::CommandStatementQuery(query) => admitted.statement(&query.query),
            other => admitted.statement(short_name(other.type_url())),
        },
        _ => {}
    }
}

/// Ends a call with its result, and makes the reply of it.
///
/// # Errors
///
/// The error of `result`, as a status.
pub fn reply<T>(admitted: &mut AdmittedRequest, result: Result<T>) -> RpcResult<T> {
    let result = admitted.finish(result).map_err(|error| status_from_error(&error))?;
    Ok(with_request_id(admitted, result))
}

/// Makes a reply with the call's id in its metadata.
pub fn with_request_id<T>(admitted: &AdmittedRequest, body: T) -> Response<T> {
    let mut response = Response::new(body);
    if let Ok(id) = admitted.id().parse() {
        response.metadata_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Makes a stream of messages that are ready.
pub fn items<T: Send + 'static>(items: Vec<T>) -> Items<T> {
    stream::iter(items.into_iter().map(Ok)).boxed()
}
