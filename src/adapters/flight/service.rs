//! The RPCs: each takes its request apart, asks a port, and puts the answer together.

use crate::adapters::flight::held::Results;
use crate::adapters::flight::wire::{
    Command, Handle, command_of, select_all, status_from_error, timeout_ms, unknown_command,
};
use crate::adapters::flight::{actions, get, put};
use crate::adapters::gate::{Gate, Request as Admitted, ServerOptions, request_id};
use crate::adapters::ipc::encode_schema;
use crate::ports::{Access, Caller, Error, IngestPort, Query, QueryPort, Result, TableInfo};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Header with a request's id, in both directions.
const REQUEST_ID: &str = "x-request-id";

/// What answers every call.
#[derive(Debug)]
pub struct Service {
    pub(super) query: Arc<dyn QueryPort>,
    pub(super) ingest: Arc<dyn IngestPort>,
    pub(super) gate: Gate,
    pub(super) options: ServerOptions,
    pub(super) results: Arc<Results>,
}

type Reply<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    fn admit<T>(&self, verb: &str, request: &Request<T>) -> Result<Admitted, Status> {
        let given = request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let peer = request.remote_addr().map(|peer| peer.to_string()).unwrap_or_default();
        self.gate.admit("flight", verb.to_owned(), request_id(given), peer).map_err(|error| status_from_error(&error))
    }

    /// The query of a handle, as this request asks for it.
    fn read(handle: Handle, request_id: &str, timeout_ms: Option<u64>) -> Query {
        Query {
            sql: handle.sql,
            params: handle.params,
            access: Access::Read,
            snapshot: handle.snapshot,
            timeout_ms,
            caller: Caller { request_id: request_id.to_owned() },
        }
    }

    /// Schema, exact number of rows and ticket of what a descriptor asks for.
    async fn flight_info(&self, descriptor: FlightDescriptor, query: Query) -> Result<FlightInfo> {
        let snapshot = match query.snapshot {
            Some(pinned) => pinned,
            None => self.query.snapshot().await?,
        };
        let query = Query { snapshot: Some(snapshot), ..query };
        let described = self.query.describe(query.clone()).await?;
        let (handle, rows) = match described.rows {
            Some(rows) => (Handle::of(&query), rows),
            // The count is part of the answer, so the query runs, once: its ticket stands for what it found.
            None => {
                let reply = self.query.query(query).await?;
                let (held, rows) = self.results.hold(reply.batches).await?;
                (Handle { held: Some(held), ..Handle::default() }, rows)
            }
        };
        let mut info = FlightInfo::new()
            .with_descriptor(descriptor)
            .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(handle.encode()?)))
            .with_total_records(i64::try_from(rows).unwrap_or(-1))
            .with_total_bytes(-1)
            .with_ordered(true);
        info.schema = encode_schema(&described.schema);
        Ok(info)
    }
}

/// The handle behind a descriptor that asks for a read.
fn read_of(descriptor: &FlightDescriptor) -> Result<Handle> {
    match command_of(descriptor)? {
        Command::Query(handle) => Ok(handle),
        Command::Update(_) => Err(Error::invalid("a change has no result to describe; send it to DoPut")),
        Command::Unknown(name) => Err(unknown_command(&name)),
    }
}

/// A table as ListFlights lists it. Its ticket is plain SQL: it works on any later day.
fn table_info(table: &TableInfo) -> FlightInfo {
    let mut info = FlightInfo::new()
        .with_descriptor(FlightDescriptor::new_path(vec![table.name.clone()]))
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(select_all(&table.name))))
        .with_total_records(i64::try_from(table.rows).unwrap_or(-1))
        .with_total_bytes(i64::try_from(table.bytes).unwrap_or(-1))
        .with_ordered(true);
    info.schema = encode_schema(&table.schema);
    info
}

/// Whether `name` matches a pattern of `*` and `?`.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        (Some(('?', rest)), Some((_, name))) => matches(rest, name),
        (Some((want, rest)), Some((have, name))) if want == have => matches(rest, name),
        _ => false,
    }
}

/// Longest pattern, and most `*` in one: matching tries every way.
const PATTERN_CHARS_MAX: usize = 256;
const PATTERN_STARS_MAX: usize = 4;

/// The tables that ListFlights is asked for; all of them where nothing is.
fn chosen(tables: Vec<TableInfo>, criteria: &[u8]) -> Result<Vec<TableInfo>> {
    let pattern = std::str::from_utf8(criteria).map_err(|_| Error::invalid("the criteria are not UTF-8"))?;
    let pattern: Vec<char> = pattern.chars().collect();
    let stars = pattern.iter().filter(|sign| **sign == '*').count();
    if pattern.len() > PATTERN_CHARS_MAX || stars > PATTERN_STARS_MAX {
        return Err(Error::invalid("the criteria are too long, or have more than four *"));
    }
    let fits = |table: &TableInfo| matches(&pattern, &table.name.chars().collect::<Vec<_>>());
    Ok(tables.into_iter().filter(|table| pattern.is_empty() || fits(table)).collect())
}

fn reply<T>(admitted: &mut Admitted, result: Result<T>) -> Reply<T> {
    let result = admitted.settle(result).map_err(|error| status_from_error(&error))?;
    Ok(with_id(admitted, result))
}

pub(super) fn with_id<T>(admitted: &Admitted, body: T) -> Response<T> {
    let mut response = Response::new(body);
    if let Ok(id) = admitted.id().parse() {
        response.metadata_mut().insert(REQUEST_ID, id);
    }
    response
}

fn unimplemented<T>(mut admitted: Admitted, what: &str) -> Reply<T> {
    let error = Error::unsupported(format!("{what} is not supported"));
    Err(status_from_error(&admitted.fail(error)))
}

pub(super) fn items<T: Send + 'static>(items: Vec<T>) -> Items<T> {
    stream::iter(items.into_iter().map(Ok)).boxed()
}

#[async_trait]
impl FlightService for Service {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoExchangeStream = Items<FlightData>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;

    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        let mut admitted = self.admit("DoGet", &request)?;
        let timeout_ms = timeout_ms(request.metadata());
        let found = match Command::decode(&request.get_ref().ticket) {
            Ok(Command::Query(Handle { held: Some(id), .. })) => self.results.stream(id),
            Ok(Command::Query(handle)) => {
                admitted.statement(&handle.sql);
                let reply = self.query.query(Self::read(handle, admitted.id(), timeout_ms)).await;
                reply.map(|reply| reply.batches)
            }
            Ok(Command::Update(_)) => Err(Error::invalid("a ticket reads only; send changes to DoPut")),
            Ok(Command::Unknown(name)) => Err(unknown_command(&name)),
            Err(error) => Err(error),
        };
        admitted.kind(crate::ports::StatementKind::Read);
        match found {
            Ok(batches) => {
                let bytes_target = self.options.limits.message_bytes_target;
                let response = with_id(&admitted, ());
                Ok(response.map(|()| get::flight_stream(batches, admitted, bytes_target)))
            }
            Err(error) => Err(status_from_error(&admitted.fail(error))),
        }
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        let mut admitted = self.admit("GetFlightInfo", &request)?;
        let timeout_ms = timeout_ms(request.metadata());
        let descriptor = request.into_inner();
        let result = match read_of(&descriptor) {
            Ok(handle) => {
                admitted.statement(&handle.sql);
                self.flight_info(descriptor, Self::read(handle, admitted.id(), timeout_ms)).await
            }
            Err(error) => Err(error),
        };
        reply(&mut admitted, result)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        let mut admitted = self.admit("GetSchema", &request)?;
        let timeout_ms = timeout_ms(request.metadata());
        let result = match read_of(request.get_ref()) {
            Ok(handle) => {
                admitted.statement(&handle.sql);
                self.query.describe(Self::read(handle, admitted.id(), timeout_ms)).await
            }
            Err(error) => Err(error),
        };
        reply(&mut admitted, result.map(|described| SchemaResult { schema: encode_schema(&described.schema) }))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        let mut admitted = self.admit("ListFlights", &request)?;
        let tables = self.query.tables().await.and_then(|tables| chosen(tables, &request.get_ref().expression));
        reply(&mut admitted, tables.map(|tables| items(tables.iter().map(table_info).collect())))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        let mut admitted = self.admit("DoPut", &request)?;
        let result = put::put(self, request, &mut admitted).await;
        reply(&mut admitted, result.map(|result| items(vec![result])))
    }

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        let mut admitted = self.admit(&format!("DoAction {:.40}", request.get_ref().r#type), &request)?;
        let result = actions::run(self, request.into_inner(), admitted.id()).await;
        reply(&mut admitted, result.map(|bodies| items(bodies.into_iter().map(arrow_flight::Result::new).collect())))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Reply<Self::ListActionsStream> {
        let mut admitted = self.admit("ListActions", &request)?;
        reply(&mut admitted, Ok(items(actions::all())))
    }

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        unimplemented(self.admit("Handshake", &request)?, "Handshake: there are no accounts, connect without one; it")
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<PollInfo> {
        unimplemented(self.admit("PollFlightInfo", &request)?, "PollFlightInfo (GetFlightInfo does it)")
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        unimplemented(self.admit("DoExchange", &request)?, "DoExchange (DoPut and DoGet do it)")
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::service::matches;

    #[test]
    fn patterns_match_whole_names() {
        let check = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name) in
            [("trades", "trades"), ("t*", "trades"), ("*des", "trades"), ("tr?de*", "trades"), ("*", "")]
        {
            assert!(check(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("trade", "trades"), ("?", ""), ("t*x", "trades"), ("", "t")] {
            assert!(!check(pattern, name), "{pattern} {name}");
        }
    }
}
