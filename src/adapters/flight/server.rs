//! The listening half of Flight: one gRPC server over whatever implements the ports.

use crate::adapters::flight::held::Results;
use crate::adapters::flight::service::Service;
use crate::adapters::gate::{Gate, ServerOptions};
use crate::ports::{Error, IngestPort, QueryPort, Result};
use arrow_flight::flight_service_server::FlightServiceServer;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::tokio_stream::StreamExt as _;
use tonic::transport::Server as GrpcServer;
use tonic_health::server::health_reporter;
use tower::util::MapRequestLayer;

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
        let results = Arc::new(Results::new(&options.limits));
        let service = Service { query, ingest, gate: gate.clone(), options: options.clone(), results };
        Self { service, gate, options }
    }

    /// Serves `listener` until `shutdown`, then lets requests finish for the grace period and cuts off the rest.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the listener fails.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let limits = &self.options.limits;
        let message_bytes_max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
        let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
        let (health, health_service) = health_reporter();
        health.set_serving::<FlightServiceServer<Service>>().await;
        let results = self.service.results.clone();
        let flight = FlightServiceServer::new(self.service)
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(usize::MAX);
        let connections = TcpListenerStream::new(listener).map(|stream| {
            // tonic leaves a listener's streams as they are, and Nagle would hold back every small reply.
            stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        });
        let grace = Duration::from_millis(limits.shutdown_grace_ms);
        let gate = self.gate.clone();
        let drained = CancellationToken::new();
        let stop = async move {
            shutdown.await;
            health.set_not_serving::<FlightServiceServer<Service>>().await;
            gate.drain(grace).await;
        };
        let serving = GrpcServer::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_max_header_list_size(header_bytes_max)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .layer(MapRequestLayer::new(watch_end))
            .add_service(health_service)
            .add_service(flight)
            .serve_with_incoming_shutdown(connections, drained.cancelled());
        tokio::pin!(serving);
        let failed = |error| Error::unavailable("Flight stopped listening").with_source(error);
        tokio::select! {
            served = &mut serving => return served.map_err(failed),
            () = stop => {}
            () = results.expire() => {}
        }
        // What was cut off still has to reach its clients, behind whatever they have not read yet.
        drained.cancel();
        let _ = tokio::time::timeout(FLUSH, serving).await;
        Ok(())
    }
}

/// Whether a request's body came to its proper end. tonic reports a call that its client cancelled as one that ended,
/// which would publish half a stream.
#[derive(Debug, Clone, Default)]
pub struct BodyEnd(Arc<AtomicBool>);

impl BodyEnd {
    /// Whether the client said that nothing follows.
    pub fn reached(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

fn watch_end(mut request: http::Request<Body>) -> http::Request<Body> {
    let end = BodyEnd::default();
    request.extensions_mut().insert(end.clone());
    request.map(|body| Body::new(Watched { body, end }))
}

/// A body that notes its end.
struct Watched {
    body: Body,
    end: BodyEnd,
}

impl http_body::Body for Watched {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // A body may be over without its end: hyper takes a reset with NO_ERROR for one. Only the flag knows.
        if polled.is_ready() && self.body.is_end_stream() {
            self.end.0.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
