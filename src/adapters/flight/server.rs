//! The listening half of Flight: one gRPC server over whatever implements the ports.

use crate::adapters::flight::bound::Bound;
use crate::adapters::flight::grpc;
use crate::adapters::flight::held::Results;
use crate::adapters::flight::polled;
use crate::adapters::flight::running::Running;
use crate::adapters::flight::service::Service;
use crate::adapters::flight::threads::Threads;
use crate::adapters::gate::{Gate, ServerOptions};
use crate::adapters::listen::{Connection, Listener};
use crate::ports::{IngestPort, Limits, QueryPort, Result};
use arrow_flight::flight_service_server::FlightServiceServer;
use futures::future::{BoxFuture, FutureExt};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server as GrpcServer;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic_health::server::health_reporter;

/// Calls that one connection may have open.
const STREAMS_MAX: u32 = 256;

/// HTTP/2 windows: large enough that loopback and a fast network are never waiting for one.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const FRAME_BYTES: u32 = 1 << 20;

/// How long connections get to send what is left after a stop.
const FLUSH: Duration = Duration::from_secs(2);

/// A Flight server that is ready to listen.
#[derive(Debug)]
pub struct Server {
    service: Service,
    gate: Gate,
    options: ServerOptions,
}

impl Server {
    /// A server over any implementation of the ports.
    pub fn new(query: Arc<dyn QueryPort>, ingest: Arc<dyn IngestPort>, options: ServerOptions) -> Self {
        let gate = Gate::default();
        let limits = &options.limits;
        let service = Service {
            query,
            ingest,
            gate: gate.clone(),
            options: options.clone(),
            results: Arc::new(Results::new(limits)),
            running: Running::new(limits),
            polled: Arc::new(polled::none(limits)),
            bound: Arc::new(Bound::new(limits)),
        };
        Self { service, gate, options }
    }

    /// Serves `listener` until `shutdown`, then lets requests finish for the grace period and cuts off the rest.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the system gives no thread.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { service, gate, options } = self;
        let grace = Duration::from_millis(options.limits.shutdown_grace_ms);
        let listener = Listener::new(listener, &options.limits);
        let (results, polled, bound) = (service.results.clone(), service.polled.clone(), service.bound.clone());
        let (health, health_service) = health_reporter();
        health.set_serving::<FlightServiceServer<Service>>().await;
        let drained = CancellationToken::new();
        // Whatever becomes of this call, its threads end.
        let _end = drained.clone().drop_guard();
        let service = Arc::new(service);
        let threads = Threads::start({
            let drained = drained.clone();
            move |connections| {
                let flight = Flight::new(service.clone(), &options.limits);
                let serving = grpc_server(&options.limits)
                    .add_service(health_service.clone())
                    .add_service(flight)
                    .serve_with_incoming_shutdown(connections, drained.clone().cancelled_owned());
                async move {
                    if let Err(error) = serving.await {
                        tracing::error!(%error, "a thread stopped serving Flight");
                    }
                }
            }
        })?;
        let accepting = async {
            loop {
                threads.give(listener.accept().await);
            }
        };
        let stop = async {
            shutdown.await;
            health.set_not_serving::<FlightServiceServer<Service>>().await;
            gate.drain(grace).await;
        };
        tokio::select! {
            () = stop => {}
            () = accepting => {}
            () = results.expire() => {}
            () = polled.expire() => {}
            () = bound.expire() => {}
        }
        // What was cut off still has to reach its clients, behind whatever they have not read yet.
        drained.cancel();
        let _ = tokio::time::timeout(FLUSH, threads.ended()).await;
        Ok(())
    }
}

fn grpc_server(limits: &Limits) -> GrpcServer {
    GrpcServer::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        // A client may open streams and reset them at once (CVE-2023-44487): no more than these wait at a time.
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(1_024))
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: Some(self.peer()) }
    }
}

/// The Flight service: the calls that carry batches by our own hand, the rest by tonic's.
#[derive(Debug, Clone)]
struct Flight {
    service: Arc<Service>,
    by_tonic: FlightServiceServer<Service>,
}

impl Flight {
    fn new(service: Arc<Service>, limits: &Limits) -> Self {
        let message_bytes_max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
        let by_tonic = FlightServiceServer::from_arc(service.clone()).max_decoding_message_size(message_bytes_max);
        Self { service, by_tonic }
    }
}

impl NamedService for Flight {
    const NAME: &'static str = <FlightServiceServer<Service> as NamedService>::NAME;
}

impl tower::Service<http::Request<Body>> for Flight {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.service.clone();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        match method {
            "DoGet" => async move { Ok(grpc::response(service.get(request).await)) }.boxed(),
            "DoPut" => async move { Ok(grpc::response(service.put(request).await)) }.boxed(),
            "DoExchange" => async move { Ok(grpc::response(service.exchange(request).await)) }.boxed(),
            _ => self.by_tonic.call(request),
        }
    }
}
