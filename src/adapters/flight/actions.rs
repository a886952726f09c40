//! DoAction: small questions to the server itself, and Flight's and Flight SQL's own actions.

use crate::adapters::flight::command::{Command, short_name};
use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::info::Call;
use crate::adapters::flight::service::Service;
use crate::adapters::flight::session;
use crate::adapters::gate::Request as Admitted;
use crate::adapters::ipc::{encode_description, encode_schema};
use crate::ports::{Access, Error, Result, StatementKind};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message as _;
use tonic::metadata::MetadataMap;

const PING: &str = "ping";
/// Says how the server is.
pub const HEALTHCHECK: &str = "healthcheck";
/// Describes a statement without running it.
pub const DESCRIBE: &str = "describe";
/// Pins the present state of all tables.
pub const SNAPSHOT: &str = "snapshot";
const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_INFO: &str = "CancelFlightInfo";
const CANCEL_QUERY: &str = "CancelQuery";
const RENEW: &str = "RenewFlightEndpoint";

/// Every action and what it does.
const ACTIONS: [(&str, &str); 12] = [
    (PING, "Health check: answers pong"),
    (HEALTHCHECK, "Status, version, backend, uptime and number of tables as JSON"),
    (DESCRIBE, "Body: SQL. Kind, schema, exact rows and parameters of a statement as IPC schemas; runs nothing"),
    (SNAPSHOT, "Pins the present state of all tables and answers its id in decimal digits"),
    (CREATE_PREPARED, "Flight SQL: prepares a statement; ActionCreatePreparedStatementRequest"),
    (CLOSE_PREPARED, "Flight SQL: closes a prepared statement; ActionClosePreparedStatementRequest"),
    (CANCEL_INFO, "Stops the query of a FlightInfo; CancelFlightInfoRequest"),
    (CANCEL_QUERY, "Flight SQL: the same, as it was before; ActionCancelQueryRequest"),
    (RENEW, "Keeps the answer behind an endpoint for its full time again; RenewFlightEndpointRequest"),
    (session::SET_OPTIONS, "Sets options of the session: time_zone, string_encoding, timestamp_unit, batch_rows"),
    (session::GET_OPTIONS, "Answers the options of the session"),
    (session::CLOSE, "Forgets the options of the session"),
];

/// Actions of Flight SQL that ask for what there is not.
const TRANSACTIONS: [&str; 4] = ["BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"];

/// What an action answers.
#[derive(Debug, Default)]
pub struct Answer {
    /// The bodies of its results.
    pub bodies: Vec<Bytes>,
    /// A cookie to set.
    pub cookie: Option<String>,
}

impl From<Bytes> for Answer {
    fn from(body: Bytes) -> Self {
        Self { bodies: vec![body], cookie: None }
    }
}

/// What ListActions answers.
pub fn all() -> Vec<ActionType> {
    ACTIONS
        .iter()
        .map(|(name, description)| ActionType { r#type: (*name).to_owned(), description: (*description).to_owned() })
        .collect()
}

/// Runs an action.
pub async fn run(
    service: &Service,
    action: &Action,
    metadata: &MetadataMap,
    call: &Call,
    admitted: &mut Admitted,
) -> Result<Answer> {
    let body = &action.body;
    match action.r#type.as_str() {
        PING => Ok(Bytes::from_static(b"pong").into()),
        HEALTHCHECK => healthcheck(service).await.map(|text| Bytes::from(text).into()),
        DESCRIBE => describe(service, body, call).await.map(Answer::from),
        SNAPSHOT => service.query.snapshot().await.map(|id| Bytes::from(id.0.to_string()).into()),
        CREATE_PREPARED => {
            let request: ActionCreatePreparedStatementRequest = unpack(body)?;
            admitted.statement(&request.query);
            prepare(service, request, call).await.map(Answer::from)
        }
        CLOSE_PREPARED => {
            let request: ActionClosePreparedStatementRequest = unpack(body)?;
            // Closing what is no handle, or closed already, is closing all the same.
            if let Ok(handle) = Handle::decode(&request.prepared_statement_handle) {
                service.bound.close(&handle);
            }
            Ok(Answer::default())
        }
        CANCEL_INFO => {
            let request = CancelFlightInfoRequest::decode(body.clone()).map_err(garbled)?;
            cancel(service, &request.info.unwrap_or_default())?;
            let done = CancelFlightInfoResult { status: CancelStatus::Cancelled as i32 };
            Ok(Bytes::from(done.encode_to_vec()).into())
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(body)?;
            cancel(service, &FlightInfo::decode(request.info).map_err(garbled)?)?;
            let done = ActionCancelQueryResult { result: CANCELLED };
            Ok(Bytes::from(done.as_any().encode_to_vec()).into())
        }
        RENEW => renew(service, body, call).await.map(Answer::from),
        session::SET_OPTIONS | session::GET_OPTIONS | session::CLOSE => {
            let (body, cookie) = session::act(action, metadata)?;
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

/// The Flight SQL message in an action's body.
fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M> {
    let any = Any::decode(body.clone()).map_err(garbled)?;
    let message =
        any.unpack().map_err(|error| Error::invalid(format!("the action's body does not decode: {error}")))?;
    message.ok_or_else(|| Error::invalid(format!("the action's body is a {:.80}", short_name(&any.type_url))))
}

async fn healthcheck(service: &Service) -> Result<String> {
    let tables = service.query.tables().await?;
    let about = &service.options.about;
    Ok(serde_json::json!({
        "status": if service.gate.is_draining() { "stopping" } else { "healthy" },
        "version": about.version,
        "backend": about.backend,
        "protocols": about.protocols.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "uptime_s": service.gate.uptime().as_secs(),
        "tables": tables.len(),
    })
    .to_string())
}

async fn describe(service: &Service, body: &[u8], call: &Call) -> Result<Bytes> {
    let handle = match Command::decode(body)? {
        Command::Text(sql) => Handle { sql, ..Handle::default() },
        Command::Handle(handle) => *handle,
        Command::Sql(_) | Command::Poll(_) => return Err(Error::invalid("describe takes a statement as its body")),
    };
    let access = if handle.change { Access::Change } else { Access::Read };
    Ok(encode_description(&service.query.describe(call.query(handle, access)).await?))
}

/// `ActionCreatePreparedStatementResult` with the field that arrow-flight does not have yet.
#[derive(Clone, PartialEq, prost::Message)]
struct Prepared {
    #[prost(bytes = "bytes", tag = "1")]
    handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

async fn prepare(service: &Service, request: ActionCreatePreparedStatementRequest, call: &Call) -> Result<Bytes> {
    crate::adapters::flight::command::no_transaction(request.transaction_id.as_ref())?;
    // How columns are presented is settled with each execution: the session may change its mind.
    let handle = Handle { sql: request.query, change: true, ..Handle::default() };
    let described = service.query.describe(call.query(handle.clone(), Access::Change)).await?;
    let is_read = described.kind == StatementKind::Read;
    let schema = call.of_driver(handle.clone()).schema_of(&described.schema);
    let has_params = !described.params.fields().is_empty();
    let handle = Handle { prepared: has_params.then(|| uuid::Uuid::new_v4().as_u128()), ..handle };
    let prepared = Prepared {
        handle: handle.encode()?,
        dataset_schema: if is_read { encode_schema(&schema) } else { Bytes::new() },
        parameter_schema: encode_schema(&described.params),
        is_update: Some(!is_read),
    };
    let type_url = <arrow_flight::sql::ActionCreatePreparedStatementResult as ProstMessageExt>::type_url();
    let any = Any { type_url: type_url.to_owned(), value: prepared.encode_to_vec().into() };
    Ok(any.encode_to_vec().into())
}

/// Endpoints that one request may cancel: more than any FlightInfo of ours has.
const CANCELLED_ENDPOINTS_MAX: usize = 1_024;

/// Stops whatever a FlightInfo stands for.
fn cancel(service: &Service, info: &FlightInfo) -> Result<()> {
    let mut found = false;
    if info.endpoint.len() > CANCELLED_ENDPOINTS_MAX {
        return Err(Error::limit(format!(
            "the FlightInfo has {} endpoints, more than {CANCELLED_ENDPOINTS_MAX}; cancel it in parts",
            info.endpoint.len()
        )));
    }
    if let Ok(Command::Poll(id)) = Command::decode(&info.app_metadata) {
        service.polled.forget(id);
        found = true;
    }
    for ticket in info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()) {
        if let Ok(Command::Handle(handle)) = Command::decode(&ticket.ticket) {
            handle.query_id.into_iter().for_each(|id| service.running.cancel(id));
            handle.held.into_iter().for_each(|id| service.results.forget(id));
            found = true;
        }
    }
    if found {
        Ok(())
    } else {
        Err(Error::invalid("the FlightInfo has no ticket that stands for a query of this server"))
    }
}

async fn renew(service: &Service, body: &Bytes, call: &Call) -> Result<Bytes> {
    let request = RenewFlightEndpointRequest::decode(body.clone()).map_err(garbled)?;
    let mut endpoint = request.endpoint.unwrap_or_default();
    let ticket = endpoint.ticket.clone().unwrap_or_default();
    let Command::Handle(handle) = Command::decode(&ticket.ticket)? else {
        return Err(Error::invalid("the endpoint's ticket is plain SQL, which does not expire"));
    };
    match handle.held {
        Some(id) => drop(service.results.stream(id)?),
        // Whoever asks about a pinned state keeps it.
        None => drop(service.query.describe(call.query(*handle, Access::Read)).await?),
    }
    endpoint.expiration_time = crate::adapters::flight::info::expiry(&service.options.limits);
    Ok(endpoint.encode_to_vec().into())
}
