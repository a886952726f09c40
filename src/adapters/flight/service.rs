//! The RPCs: each takes its request apart, asks a port, and puts the answer together.

use crate::adapters::flight::grpc::Pieces;
use crate::adapters::flight::held::Results;
use crate::adapters::flight::wire::{
    Command, Handle, command_of, encoding, endpoints, select_all, status_from_error, timeout_ms, unknown_command,
};
use crate::adapters::flight::{actions, get, grpc, put};
use crate::adapters::gate::{Gate, Request as Admitted, ServerOptions, request_id};
use crate::adapters::ipc::encode_schema;
use crate::ports::{
    Access, BatchStream, Caller, Description, Error, IngestPort, Part, Query, QueryPort, Result, TableInfo,
};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use tonic::body::Body;
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
        let caller = Caller { request_id: request_id.to_owned() };
        Query { timeout_ms, caller, ..handle.into_query(Access::Read) }
    }

    /// Schema, exact number of rows and tickets of what a descriptor asks for, in as many endpoints as its caller wants.
    async fn flight_info(&self, descriptor: FlightDescriptor, query: Query, endpoints: u32) -> Result<FlightInfo> {
        let snapshot = match query.snapshot {
            Some(pinned) => pinned,
            None => self.query.snapshot().await?,
        };
        let query = Query { snapshot: Some(snapshot), ..query };
        let mut info = FlightInfo::new().with_descriptor(descriptor).with_total_bytes(-1).with_ordered(true);
        let mut total = 0;
        for index in 0..endpoints {
            let part = if endpoints > 1 { Some(Part::new(index, endpoints)?) } else { query.part };
            let (described, handle, rows) = self.endpoint(Query { part, ..query.clone() }).await?;
            info.schema = encode_schema(&described.schema);
            info = info.with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(handle.encode()?)));
            total += rows;
        }
        Ok(info.with_total_records(i64::try_from(total).unwrap_or(-1)))
    }

    /// What stands for a query until its ticket comes back, and its exact number of rows.
    async fn endpoint(&self, query: Query) -> Result<(Description, Handle, u64)> {
        let described = self.query.describe(query.clone()).await?;
        if let Some(rows) = described.rows {
            return Ok((described, Handle::of(&query), rows));
        }
        // The count is part of the answer, so the query runs, once: its ticket stands for what it found.
        let reply = self.query.query(query).await?;
        let (held, rows) = self.results.hold(reply.batches).await?;
        Ok((described, Handle { held: Some(held), ..Handle::default() }, rows))
    }
}

/// The calls that carry batches.
impl Service {
    /// DoGet.
    pub async fn get(&self, request: http::Request<Body>) -> Reply<Pieces> {
        let mut request = self.by_hand(request)?;
        let mut admitted = self.admit("DoGet", &request)?;
        admitted.kind(crate::ports::StatementKind::Read);
        let timeout_ms = timeout_ms(request.metadata());
        let encoding = encoding(request.metadata(), &self.options.limits);
        let found = match (encoding, request.get_mut().single::<Ticket>().await) {
            (Ok(encoding), Ok(ticket)) => {
                self.batches(&ticket.ticket, timeout_ms, &mut admitted).await.map(|batches| (batches, encoding))
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        match found {
            Ok((batches, encoding)) => {
                let response = with_id(&admitted, ());
                Ok(response.map(|()| get::flight_stream(batches, admitted, encoding)))
            }
            Err(error) => Err(status_from_error(&admitted.fail(error))),
        }
    }

    /// What a ticket stands for.
    async fn batches(&self, ticket: &[u8], timeout_ms: Option<u64>, admitted: &mut Admitted) -> Result<BatchStream> {
        match Command::decode(ticket)? {
            Command::Query(Handle { held: Some(id), .. }) => self.results.stream(id),
            Command::Query(handle) => {
                admitted.statement(&handle.sql);
                let query = Self::read(handle, admitted.id(), timeout_ms);
                let reply = admitted.unless_cut(self.query.query(query)).await?;
                Ok(reply.batches)
            }
            Command::Update(_) => Err(Error::invalid("a ticket reads only; send changes to DoPut")),
            Command::Unknown(name) => Err(unknown_command(&name)),
        }
    }

    /// DoPut.
    pub async fn put(&self, request: http::Request<Body>) -> Reply<Pieces> {
        let request = self.by_hand(request)?;
        let mut admitted = self.admit("DoPut", &request)?;
        let result = put::put(self, request, &mut admitted).await;
        reply(&mut admitted, result.map(|result| stream::iter([Ok(grpc::proto(&result))]).boxed()))
    }

    fn by_hand(&self, request: http::Request<Body>) -> Result<Request<grpc::Incoming>, Status> {
        grpc::request(request, self.options.limits.message_bytes_max).map_err(|error| status_from_error(&error))
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

/// DoGet and DoPut are answered before tonic would decode them: `server` sends them to `Service::get` and `put`.
fn answered_by_hand() -> Status {
    Status::internal("this call does not go through tonic")
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

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        let mut admitted = self.admit("GetFlightInfo", &request)?;
        let timeout_ms = timeout_ms(request.metadata());
        let endpoints = endpoints(request.metadata());
        let descriptor = request.into_inner();
        let result = match (read_of(&descriptor), endpoints) {
            (Ok(handle), Ok(endpoints)) => {
                admitted.statement(&handle.sql);
                let query = Self::read(handle, admitted.id(), timeout_ms);
                admitted.unless_cut(self.flight_info(descriptor, query, endpoints)).await
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
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

    async fn do_get(&self, _: Request<Ticket>) -> Reply<Self::DoGetStream> {
        Err(answered_by_hand())
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        Err(answered_by_hand())
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
