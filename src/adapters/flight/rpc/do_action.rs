//! DoAction and ListActions: actions of this server, of Flight and of Flight SQL.

use crate::adapters::flight::call::{CallContext, Items, RpcResult, admit, items, reply};
use crate::adapters::flight::command::{Command, short_name};
use crate::adapters::flight::session;
use crate::adapters::flight::sql::prepared;
use crate::adapters::flight::state::State;
use crate::adapters::flight::ticket::Handle;
use crate::adapters::flight::wire::{DESCRIBE, HEALTHCHECK, SNAPSHOT, WRITER};
use crate::adapters::ipc::encode_description;
use crate::adapters::serving::numbered_put::writer_json;
use crate::adapters::serving::{AdmittedRequest, health_json};
use crate::ports::{Access, Error, Result};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Empty, FlightInfo,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use tonic::Request;
use tonic::metadata::MetadataMap;

const PING: &str = "ping";
const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_INFO: &str = "CancelFlightInfo";
const CANCEL_QUERY: &str = "CancelQuery";
const RENEW: &str = "RenewFlightEndpoint";

/// Every action with its description.
const ACTIONS: [(&str, &str); 13] = [
    (PING, "Health check: answers pong"),
    (HEALTHCHECK, "Status, version, backend, uptime and number of tables as JSON"),
    (DESCRIBE, "Body: SQL. Kind, schema, exact rows and parameters of a statement as IPC schemas; runs nothing"),
    (SNAPSHOT, "Pins the present state of all tables and answers its id in decimal digits"),
    (WRITER, "Body: JSON with table and writer. How far the writer has come in the table, as JSON"),
    (CREATE_PREPARED, "Flight SQL: prepares a statement; ActionCreatePreparedStatementRequest"),
    (CLOSE_PREPARED, "Flight SQL: closes a prepared statement; ActionClosePreparedStatementRequest"),
    (CANCEL_INFO, "Stops the query of a FlightInfo; CancelFlightInfoRequest"),
    (CANCEL_QUERY, "Flight SQL: the same, as it was before; ActionCancelQueryRequest"),
    (RENEW, "Keeps the answer behind an endpoint for its full time again; RenewFlightEndpointRequest"),
    (session::SET_OPTIONS, "Sets options of the session: time_zone, string_encoding, timestamp_unit, batch_rows"),
    (session::GET_OPTIONS, "Answers the options of the session"),
    (session::CLOSE, "Forgets the options of the session"),
];

/// Actions of Flight SQL that are refused: there are no transactions.
const TRANSACTIONS: [&str; 4] = ["BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"];

/// The answer to an action.
#[derive(Debug, Default)]
struct Answer {
    /// The bodies of its results.
    bodies: Vec<Bytes>,
    /// A cookie to set.
    cookie: Option<String>,
}

impl From<Bytes> for Answer {
    fn from(body: Bytes) -> Self {
        Self { bodies: vec![body], cookie: None }
    }
}

/// Answers a ListActions.
pub fn list_actions(state: &State, request: &Request<Empty>) -> RpcResult<Items<ActionType>> {
    let mut admitted = admit(state, "ListActions", request)?;
    let action =
        |(name, description): (&str, &str)| ActionType { r#type: name.into(), description: description.into() };
    reply(&mut admitted, Ok(items(ACTIONS.into_iter().map(action).collect())))
}

/// Answers a DoAction.
pub async fn do_action(state: &Arc<State>, request: Request<Action>) -> RpcResult<Items<arrow_flight::Result>> {
    let mut admitted = admit(state, &verb_of(&request.get_ref().r#type), &request)?;
    let result = match CallContext::new(state, &admitted, request.metadata()) {
        Ok(call) => run(request.get_ref(), request.metadata(), &call, &mut admitted).await,
        Err(error) => Err(error),
    };
    let (bodies, cookie) = match result {
        Ok(answer) => (Ok(answer.bodies), answer.cookie),
        Err(error) => (Err(error), None),
    };
    let bodies = bodies.map(|bodies| items(bodies.into_iter().map(arrow_flight::Result::new).collect()));
    let mut response = reply(&mut admitted, bodies)?;
    if let Some(cookie) = cookie.and_then(|cookie| cookie.parse().ok()) {
        response.metadata_mut().insert("set-cookie", cookie);
    }
    Ok(response)
}

async fn writer(body: &Bytes, call: &CallContext) -> Result<Bytes> {
    let wrong = || Error::invalid("the body of this action is JSON: {\"table\": …, \"writer\": …}");
    let asked: serde_json::Value = serde_json::from_slice(body).map_err(|_| wrong())?;
    let text = |key: &str| asked[key].as_str().map(str::to_owned).ok_or_else(wrong);
    let state = call.state.ingest.writer(text("table")?, text("writer")?, call.caller.clone()).await?;
    Ok(writer_json(&state).to_string().into())
}

async fn run(
    action: &Action,
    metadata: &MetadataMap,
    call: &CallContext,
    admitted: &mut AdmittedRequest,
) -> Result<Answer> {
    let body = &action.body;
    match action.r#type.as_str() {
        PING => Ok(Bytes::from_static(b"pong").into()),
        HEALTHCHECK => healthcheck(call).await.map(|text| Bytes::from(text).into()),
        DESCRIBE => describe(body, call).await.map(Answer::from),
        SNAPSHOT => call.state.query.snapshot(call.caller.clone()).await.map(|id| Bytes::from(id.0.to_string()).into()),
        WRITER => writer(body, call).await.map(Answer::from),
        CREATE_PREPARED => {
            let request: ActionCreatePreparedStatementRequest = unpack(body)?;
            admitted.statement(&request.query);
            prepared::create(request, call).await.map(Answer::from)
        }
        CLOSE_PREPARED => {
            prepared::close(&unpack(body)?, call);
            Ok(Answer::default())
        }
        CANCEL_INFO => {
            let request = CancelFlightInfoRequest::decode(body.clone()).map_err(garbled)?;
            cancel(&call.state, &request.info.unwrap_or_default())?;
            let done = CancelFlightInfoResult { status: CancelStatus::Cancelled as i32 };
            Ok(Bytes::from(done.encode_to_vec()).into())
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(body)?;
            cancel(&call.state, &FlightInfo::decode(request.info).map_err(garbled)?)?;
            let done = ActionCancelQueryResult { result: CANCELLED };
            Ok(Bytes::from(done.as_any().encode_to_vec()).into())
        }
        RENEW => renew(body, call).await.map(Answer::from),
        session::SET_OPTIONS | session::GET_OPTIONS | session::CLOSE => {
            let (body, cookie) = session::run_action(action, metadata)?;
            Ok(Answer { bodies: vec![body], cookie })
        }
        transaction if TRANSACTIONS.contains(&transaction) => Err(Error::unsupported(
            "there are no transactions: every statement and every stream is one; use autocommit",
        )),
        unknown => {
            let known: Vec<_> = ACTIONS.iter().map(|(name, _)| *name).collect();
            let unknown: String = unknown.chars().take(40).collect();
            Err(Error::unsupported(format!("unknown action {unknown:?}; there are {}", known.join(", "))))
        }
    }
}

/// `CANCEL_RESULT_CANCELLED` (FlightSql.proto).
const CANCELLED: i32 = 1;

fn garbled(error: prost::DecodeError) -> Error {
    Error::invalid(format!("the action's body does not decode: {error}"))
}

/// Names an action in the log: an unknown one could be anything.
fn verb_of(action: &str) -> String {
    let is_known = ACTIONS.iter().any(|(known, _)| *known == action);
    if is_known { format!("DoAction {action}") } else { "DoAction ?".to_owned() }
}

/// Decodes the Flight SQL message in an action's body.
fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M> {
    let any = Any::decode(body.clone()).map_err(garbled)?;
    let message =
        any.unpack().map_err(|error| Error::invalid(format!("the action's body does not decode: {error}")))?;
    message.ok_or_else(|| Error::invalid(format!("the action's body is a {:.80}", short_name(&any.type_url))))
}

async fn healthcheck(call: &CallContext) -> Result<String> {
    let state = &call.state;
    let tables = state.query.tables(call.caller.clone()).await?;
    let status = if state.admission.is_draining() { "stopping" } else { "healthy" };
    let mut health = health_json(status, &state.options.info, state.admission.uptime());
    health["tables"] = tables.len().into();
    Ok(health.to_string())
}

async fn describe(body: &[u8], call: &CallContext) -> Result<Bytes> {
    let handle = match Command::decode(body)? {
        Command::Text(sql) => Handle { sql, ..Handle::default() },
        Command::Handle(handle) => *handle,
        Command::Sql(_) | Command::Poll(_) => return Err(Error::invalid("describe takes a statement as its body")),
    };
    let access = if handle.may_change { Access::Change } else { Access::Read };
    Ok(encode_description(&call.state.query.describe(call.query(handle, access)).await?))
}

/// Most endpoints that one request may cancel; no FlightInfo of this server has more.
const CANCELLED_ENDPOINTS_MAX: usize = 1_024;

/// Cancels the query of a FlightInfo, and removes its stored results.
fn cancel(state: &State, info: &FlightInfo) -> Result<()> {
    let mut found = false;
    if info.endpoint.len() > CANCELLED_ENDPOINTS_MAX {
        return Err(Error::limit(format!(
            "the FlightInfo has {} endpoints, more than {CANCELLED_ENDPOINTS_MAX}; cancel it in parts",
            info.endpoint.len()
        )));
    }
    if let Ok(Command::Poll(id)) = Command::decode(&info.app_metadata) {
        state.polls.remove(id);
        found = true;
    }
    for ticket in info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()) {
        if let Ok(Command::Handle(handle)) = Command::decode(&ticket.ticket) {
            handle.query_id.into_iter().for_each(|id| state.cancellations.cancel(id));
            handle.stored_result.into_iter().for_each(|id| state.results.remove(id));
            found = true;
        }
    }
    if found { Ok(()) } else { Err(Error::invalid("the FlightInfo has no ticket for a query of this server")) }
}

/// Extends the expiry of an endpoint.
async fn renew(body: &Bytes, call: &CallContext) -> Result<Bytes> {
    let request = RenewFlightEndpointRequest::decode(body.clone()).map_err(garbled)?;
    let mut endpoint = request.endpoint.unwrap_or_default();
    let ticket = endpoint.ticket.clone().unwrap_or_default();
    let Command::Handle(handle) = Command::decode(&ticket.ticket)? else {
        return Err(Error::invalid("the endpoint's ticket is plain SQL, which does not expire"));
    };
    match handle.stored_result {
        Some(id) => drop(call.state.results.get(id)?),
        // Describing a query counts as a use of its pinned snapshot.
        None => drop(call.state.query.describe(call.query(*handle, Access::Read)).await?),
    }
    endpoint.expiration_time = call.state.ticket_expiry();
    Ok(endpoint.encode_to_vec().into())
}
