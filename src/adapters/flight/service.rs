//! The Flight service: dispatches every RPC to its file in `rpc`.
//!
//! Calls that carry batches do not go through tonic's codec: `server` sends them to the three methods of [`Service`].

use crate::adapters::flight::call::{Items, RpcResult};
use crate::adapters::flight::grpc::outgoing::ReplyMessages;
use crate::adapters::flight::rpc::{
    do_action, do_exchange, do_get, do_put, flight_info, handshake, list_flights, poll_info,
};
use crate::adapters::flight::state::State;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use std::sync::Arc;
use tonic::body::Body;
use tonic::{Request, Status, Streaming};

/// The service over the state of a server. Clones share it.
#[derive(Debug, Clone)]
pub struct Service {
    /// The server's state.
    pub state: Arc<State>,
}

impl Service {
    /// Answers a DoGet.
    pub async fn get(&self, request: http::Request<Body>) -> RpcResult<ReplyMessages> {
        do_get::do_get(&self.state, request).await
    }

    /// Answers a DoPut.
    pub async fn put(&self, request: http::Request<Body>) -> RpcResult<ReplyMessages> {
        do_put::do_put(&self.state, request).await
    }

    /// Answers a DoExchange.
    pub async fn exchange(&self, request: http::Request<Body>) -> RpcResult<ReplyMessages> {
        do_exchange::do_exchange(&self.state, request).await
    }
}

/// Refuses a call that tonic should never see.
fn not_through_tonic() -> Status {
    Status::internal("this call does not go through tonic")
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

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> RpcResult<FlightInfo> {
        flight_info::get_flight_info(&self.state, request).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> RpcResult<SchemaResult> {
        flight_info::get_schema(&self.state, request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> RpcResult<PollInfo> {
        poll_info::poll_flight_info(&self.state, request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> RpcResult<Self::ListFlightsStream> {
        list_flights::list_flights(&self.state, request).await
    }

    async fn do_action(&self, request: Request<Action>) -> RpcResult<Self::DoActionStream> {
        do_action::do_action(&self.state, request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> RpcResult<Self::ListActionsStream> {
        do_action::list_actions(&self.state, &request)
    }

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> RpcResult<Self::HandshakeStream> {
        handshake::handshake(&self.state, request).await
    }

    async fn do_get(&self, _: Request<Ticket>) -> RpcResult<Self::DoGetStream> {
        Err(not_through_tonic())
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> RpcResult<Self::DoPutStream> {
        Err(not_through_tonic())
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> RpcResult<Self::DoExchangeStream> {
        Err(not_through_tonic())
    }
}
