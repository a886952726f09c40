//! The Flight server: one gRPC server over any implementation of the ports.
//!
//! A stop goes in order: admit nothing more, let requests finish, cut off the rest, flush connections.

use crate::adapters::flight::call::ConnectionInfo;
use crate::adapters::flight::connection_threads::ConnectionThreads;
use crate::adapters::flight::grpc::outgoing;
use crate::adapters::flight::grpc::timed_body::TimedBody;
use crate::adapters::flight::service::Service;
use crate::adapters::flight::state::State;
use crate::adapters::serving::{Connection, ConnectionTimes, Listener, OpenCall, ServerOptions};
use crate::ports::{IngestPort, Limits, QueryPort, Result};
use arrow_flight::flight_service_server::FlightServiceServer;
use futures::future::{BoxFuture, FutureExt};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server as GrpcServer;
use tonic::transport::server::Connected;
use tonic_health::server::health_reporter;

/// What a client sends first: the preface of HTTP/2 and an empty SETTINGS frame (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24 + 9;

/// Most calls that one connection may have open.
const STREAMS_MAX: u32 = 256;

/// HTTP/2 windows, large enough that neither loopback nor a fast network waits for them.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const FRAME_BYTES: u32 = 1 << 20;

/// How long connections may go on sending after a stop.
const FLUSH: Duration = Duration::from_secs(2);

/// A Flight server that is ready to listen.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
}

impl Server {
    /// Creates a server over any implementation of the ports.
    pub fn new(query: Arc<dyn QueryPort>, ingest: Arc<dyn IngestPort>, options: ServerOptions) -> Self {
        Self { state: State::new(query, ingest, options) }
    }

    /// Serves `listener` until `shutdown`, then lets requests finish for the grace period and cuts off the rest.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the system refuses a thread.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let state = self.state;
        let limits = state.options.limits.clone();
        let grace = Duration::from_millis(limits.shutdown_grace_ms);
        let listener = Listener::new(listener, &limits);
        let (health, health_service) = health_reporter();
        health.set_serving::<FlightServiceServer<Service>>().await;
        let drained = CancellationToken::new();
        // The threads end also if this future is dropped.
        let _end = drained.clone().drop_guard();
        let service = Arc::new(Service { state: state.clone() });
        let threads = ConnectionThreads::start({
            let drained = drained.clone();
            move |connections| {
                let flight = Flight::new(service.clone(), &limits);
                let serving = grpc_server(&limits)
                    .add_service(KeepsOpen(health_service.clone()))
                    .add_service(flight)
                    .serve_with_incoming_shutdown(connections, drained.clone().cancelled_owned());
                async move {
                    if let Err(error) = serving.await {
                        tracing::error!(%error, "a thread stopped serving Flight");
                    }
                }
            }
        })?;
        let times = connection_times(&state.options.limits);
        let accepting = async {
            loop {
                threads.assign(listener.accept().await.with_times(times));
            }
        };
        let stop = async {
            shutdown.await;
            health.set_not_serving::<FlightServiceServer<Service>>().await;
            state.admission.drain(grace).await;
        };
        tokio::select! {
            () = stop => {}
            () = accepting => {}
            () = state.expire() => {}
        }
        // The errors of what was cut off still have to reach the clients, after what they have not read yet.
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
        // A client may open streams and reset them at once (CVE-2023-44487); this bounds how many wait.
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(1_024))
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo { peer: self.peer(), activity: self.activity() }
    }
}

/// Returns the times of a connection.
fn connection_times(limits: &Limits) -> ConnectionTimes {
    let time = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    ConnectionTimes {
        preface_bytes: PREFACE_BYTES,
        preface: time(limits.header_timeout_ms),
        idle: time(limits.idle_timeout_ms),
    }
}

/// A service whose calls keep their connection open, as those that are admitted do.
#[derive(Debug, Clone)]
struct KeepsOpen<S>(S);

impl<S: NamedService> NamedService for KeepsOpen<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<http::Request<Body>> for KeepsOpen<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let open = request.extensions().get::<ConnectionInfo>().map(|info| info.activity.begin());
        let answer = self.0.call(request);
        async move { Ok(answer.await?.map(|body| Body::new(OpenBody { body, _open: open }))) }.boxed()
    }
}

/// A response's body that keeps its connection open.
struct OpenBody {
    body: Body,
    _open: Option<OpenCall>,
}

impl http_body::Body for OpenBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The Flight service on a connection: calls that carry batches are answered without tonic's codec, the rest through
/// it.
#[derive(Debug, Clone)]
struct Flight {
    service: Arc<Service>,
    by_tonic: FlightServiceServer<Service>,
    body_timeout: Option<Duration>,
}

impl Flight {
    fn new(service: Arc<Service>, limits: &Limits) -> Self {
        let message_bytes_max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
        let by_tonic = FlightServiceServer::from_arc(service.clone()).max_decoding_message_size(message_bytes_max);
        let body_timeout = (limits.body_timeout_ms > 0).then(|| Duration::from_millis(limits.body_timeout_ms));
        Self { service, by_tonic, body_timeout }
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
            "DoGet" => async move { Ok(outgoing::response(service.get(request).await)) }.boxed(),
            "DoPut" => async move { Ok(outgoing::response(service.put(request).await)) }.boxed(),
            "DoExchange" => async move { Ok(outgoing::response(service.exchange(request).await)) }.boxed(),
            _ => {
                let (timeout, memory) = (self.body_timeout, self.service.state.options.memory.clone());
                self.by_tonic.call(request.map(|body| Body::new(TimedBody::new(body, timeout).counted_in(&memory))))
            }
        }
    }
}
