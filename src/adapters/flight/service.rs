//! The RPCs: each takes its request apart, asks a port, and puts the answer together.

use crate::adapters::flight::bound::Bound;
use crate::adapters::flight::command::Command;
use crate::adapters::flight::grpc::Pieces;
use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::held::Results;
use crate::adapters::flight::incoming::Incoming;
use crate::adapters::flight::info::{Call, chosen, table_info};
use crate::adapters::flight::polled::Polled;
use crate::adapters::flight::running::Running;
use crate::adapters::flight::wire::{encoding, endpoints, status_from_error, timeout_ms};
use crate::adapters::flight::{actions, get, grpc, handshake, incoming, put, session};
use crate::adapters::gate::{Gate, Request as Admitted, ServerOptions, request_id};
use crate::adapters::ipc::encode_schema;
use crate::ports::{Access, BatchStream, Error, IngestPort, QueryPort, Result, StatementKind};
use arrow::datatypes::Schema;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::Command as SqlCommand;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Header with a request's id, in both directions.
const REQUEST_ID: &str = "x-request-id";

/// What answers every call. Clones are the same.
#[derive(Debug, Clone)]
pub struct Service {
    pub(super) query: Arc<dyn QueryPort>,
    pub(super) ingest: Arc<dyn IngestPort>,
    pub(super) gate: Gate,
    pub(super) options: ServerOptions,
    pub(super) results: Arc<Results>,
    pub(super) running: Arc<Running>,
    pub(super) polled: Arc<Polled>,
    pub(super) bound: Arc<Bound>,
}

type Reply<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    fn admit<T>(&self, verb: &str, request: &Request<T>) -> Result<Admitted, Status> {
        let given = request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let peer = request.remote_addr().map(|peer| peer.to_string()).unwrap_or_default();
        self.gate.admit("flight", verb.to_owned(), request_id(given), peer).map_err(|error| status_from_error(&error))
    }

    /// What a call says beside its request.
    fn call(&self, metadata: &MetadataMap, admitted: &Admitted) -> Result<Call> {
        Ok(Call {
            request_id: admitted.id().to_owned(),
            timeout_ms: timeout_ms(metadata),
            presentation: session::choices(metadata)?,
            endpoints: endpoints(metadata)?,
        })
    }
}

/// The calls that carry batches.
impl Service {
    /// DoGet.
    pub async fn get(&self, request: http::Request<Body>) -> Reply<Pieces> {
        let mut request = self.by_hand(request)?;
        let mut admitted = self.admit("DoGet", &request)?;
        admitted.kind(StatementKind::Read);
        let found = async {
            let encoding = encoding(request.metadata(), &self.options.limits)?;
            let call = self.call(request.metadata(), &admitted)?;
            let ticket = request.get_mut().single::<Ticket>().await?;
            Ok((self.batches(&ticket.ticket, &call, &mut admitted).await?, encoding))
        };
        match found.await {
            Ok((batches, encoding)) => {
                let response = with_id(&admitted, ());
                Ok(response.map(|()| get::flight_stream(batches, admitted, encoding)))
            }
            Err(error) => Err(status_from_error(&admitted.fail(error))),
        }
    }

    /// What a ticket stands for.
    async fn batches(&self, ticket: &[u8], call: &Call, admitted: &mut Admitted) -> Result<BatchStream> {
        let handle = match Command::decode(ticket)? {
            Command::Text(sql) => Handle { sql, ..Handle::default() },
            Command::Handle(handle) => *handle,
            Command::Poll(_) => return Err(Error::invalid("this is no ticket; PollFlightInfo takes it")),
            Command::Sql(command) => match (*command, call) {
                (SqlCommand::CommandStatementUpdate(_) | SqlCommand::CommandStatementIngest(_), _) => {
                    return Err(Error::invalid("a ticket reads only; send changes to DoPut"));
                }
                (command, call) => match self.statement_of(&command, call)? {
                    Some(handle) => handle,
                    None => {
                        let answer = self.metadata(&command, call).await?;
                        return Ok(BatchStream::from_batches(answer.schema(), vec![answer]));
                    }
                },
            },
        };
        self.batches_of(handle, call, admitted).await
    }

    async fn batches_of(&self, handle: Handle, call: &Call, admitted: &mut Admitted) -> Result<BatchStream> {
        if handle.done {
            return Ok(BatchStream::empty(Arc::new(Schema::empty())));
        }
        admitted.statement(&handle.sql);
        let presentation = handle.presentation.clone().unwrap_or_else(|| call.presentation.clone());
        let handle = Handle { presentation: Some(presentation.clone()), ..handle };
        let asked = handle.clone();
        let stream = handle.query_id.map(|id| self.running.begin(id));
        let finding = async {
            match handle.held {
                Some(id) => self.results.stream(id),
                None => Ok(self.query.query(call.query(handle, Access::Read)).await?.batches),
            }
        };
        let batches = match stream {
            Some(stream) => {
                let batches = admitted.unless_cut(stream.unless_cancelled(finding)).await?;
                stream.until_cancelled(batches)
            }
            None => admitted.unless_cut(finding).await?,
        };
        let schema = asked.schema_of(&batches.schema());
        Ok(presentation.present(batches, schema))
    }

    /// DoPut.
    pub async fn put(&self, request: http::Request<Body>) -> Reply<Pieces> {
        let request = self.by_hand(request)?;
        let mut admitted = self.admit("DoPut", &request)?;
        let call = self.call(request.metadata(), &admitted);
        let result = match call {
            Ok(call) => put::put(self, request.into_inner(), &mut admitted, &call).await,
            Err(error) => Err(error),
        };
        reply(&mut admitted, result.map(|result| stream::iter([Ok(grpc::proto(&result))]).boxed()))
    }

    /// DoExchange.
    pub async fn exchange(&self, request: http::Request<Body>) -> Reply<Pieces> {
        let request = self.by_hand(request)?;
        let mut admitted = self.admit("DoExchange", &request)?;
        let found = async {
            let encoding = encoding(request.metadata(), &self.options.limits)?;
            let call = self.call(request.metadata(), &admitted)?;
            let reply = put::exchange(self, request.into_inner(), &mut admitted, &call).await?;
            admitted.kind(reply.kind);
            let schema = Arc::new(call.presentation.schema(&reply.batches.schema()));
            Ok((call.presentation.present(reply.batches, schema), encoding))
        };
        match found.await {
            Ok((batches, encoding)) => {
                let response = with_id(&admitted, ());
                Ok(response.map(|()| get::flight_stream(batches, admitted, encoding)))
            }
            Err(error) => Err(status_from_error(&admitted.fail(error))),
        }
    }

    fn by_hand(&self, request: http::Request<Body>) -> Result<Request<Incoming>, Status> {
        incoming::request(request, self.options.limits.message_bytes_max).map_err(|error| status_from_error(&error))
    }
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

/// Calls that carry batches are answered before tonic would decode them: `server` sends them to `Service::get` and others.
fn answered_by_hand() -> Status {
    Status::internal("this call does not go through tonic")
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
        let result = match self.call(request.metadata(), &admitted) {
            Ok(call) => {
                let descriptor = request.into_inner();
                note_statement(&mut admitted, &descriptor);
                admitted.unless_cut(self.info(descriptor, &call)).await
            }
            Err(error) => Err(error),
        };
        reply(&mut admitted, result)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        let mut admitted = self.admit("GetSchema", &request)?;
        let result = match self.call(request.metadata(), &admitted) {
            Ok(call) => {
                note_statement(&mut admitted, request.get_ref());
                self.schema(request.get_ref(), &call).await
            }
            Err(error) => Err(error),
        };
        reply(&mut admitted, result.map(|schema| SchemaResult { schema: encode_schema(&schema) }))
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
        let result = match self.call(request.metadata(), &admitted) {
            Ok(call) => actions::run(self, request.get_ref(), request.metadata(), &call, &mut admitted).await,
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

    async fn list_actions(&self, request: Request<Empty>) -> Reply<Self::ListActionsStream> {
        let mut admitted = self.admit("ListActions", &request)?;
        reply(&mut admitted, Ok(items(actions::all())))
    }

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        let mut admitted = self.admit("Handshake", &request)?;
        let (metadata, _, mut messages) = request.into_parts();
        let token = reply(&mut admitted, handshake::shake(&metadata, &mut messages).await)?;
        let bearer = format!("Bearer {}", token.get_ref()).parse();
        let mut response = token.map(|token| items(vec![handshake::answer(&token)]));
        if let Ok(bearer) = bearer {
            response.metadata_mut().insert("authorization", bearer);
        }
        Ok(response)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<PollInfo> {
        let mut admitted = self.admit("PollFlightInfo", &request)?;
        let result = match self.call(request.metadata(), &admitted) {
            Ok(call) => {
                note_statement(&mut admitted, request.get_ref());
                admitted.unless_cut(self.poll(request.into_inner(), call)).await
            }
            Err(error) => Err(error),
        };
        reply(&mut admitted, result)
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        Err(answered_by_hand())
    }
}

/// Notes the statement of a descriptor, for the log.
fn note_statement(admitted: &mut Admitted, descriptor: &FlightDescriptor) {
    match Command::decode(&descriptor.cmd) {
        Ok(Command::Text(sql)) if !sql.is_empty() => admitted.statement(&sql),
        Ok(Command::Handle(handle)) => admitted.statement(&handle.sql),
        Ok(Command::Sql(command)) => match *command {
            SqlCommand::CommandStatementQuery(query) => admitted.statement(&query.query),
            other => admitted.statement(crate::adapters::flight::command::short_name(other.type_url())),
        },
        _ => {}
    }
}
