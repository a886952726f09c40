//! The listening half of HTTP: our own accept loop around warp's routes.
//!
//! warp's server sets no timers and no nodelay, and waits without limit at a stop; so hyper is driven here, and warp is
//! what it is best at, the routes (field of `warp::service`).

use crate::adapters::gate::{Gate, ServerOptions, request_id};
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::incoming::Meta;
use crate::adapters::http::routes::routes;
use crate::adapters::http::wire::REQUEST_ID;
use crate::adapters::listen::Listener;
use crate::ports::{IngestPort, Limits, QueryPort, Result};
use http::Request;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower::Layer;
use tower::{Service, ServiceExt};
use tower_http::compression::CompressionLayer;

/// What hyper needs at least to read a request's headers into.
const HEADER_BUFFER_BYTES_MIN: usize = 8 << 10;

/// An HTTP server that is ready to listen.
#[derive(Debug)]
pub struct Server {
    handlers: Arc<Handlers>,
    gate: Gate,
    limits: Limits,
}

impl Server {
    /// A server over any implementation of the ports.
    pub fn new(query: Arc<dyn QueryPort>, ingest: Arc<dyn IngestPort>, options: ServerOptions) -> Self {
        let gate = Gate::default();
        let limits = options.limits.clone();
        Self { handlers: Arc::new(Handlers { query, ingest, gate: gate.clone(), options }), gate, limits }
    }

    /// Serves `listener` until `shutdown`, then lets requests finish for the grace period and cuts off the rest.
    ///
    /// # Errors
    ///
    /// None: a connection that cannot be accepted is left to the next attempt.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let routes = warp::service(routes(self.handlers));
        let service = CompressionLayer::new().layer(routes);
        let connections = GracefulShutdown::new();
        let listener = Listener::new(listener, &self.limits);
        let grace = Duration::from_millis(self.limits.shutdown_grace_ms);
        let header_bytes_max = self.limits.header_bytes_max;
        let stop = async {
            shutdown.await;
            self.gate.drain(grace).await;
        };
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let peer = accepted.peer().to_string();
            let service = service.clone();
            let answer = hyper::service::service_fn(move |request: Request<Body>| {
                let service = service.clone();
                let peer = peer.clone();
                async move { serve_request(service, request, peer, header_bytes_max).await }
            });
            let connection = connections.watch(http(&self.limits).serve_connection(TokioIo::new(accepted), answer));
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an HTTP connection broke");
                }
            });
        }
        drop(listener);
        let _ = tokio::time::timeout(Duration::from_secs(1), connections.shutdown()).await;
        Ok(())
    }
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    let header_bytes = usize::try_from(limits.header_bytes_max).unwrap_or(usize::MAX).max(HEADER_BUFFER_BYTES_MIN);
    http.timer(TokioTimer::new()).max_buf_size(header_bytes).half_close(false);
    if limits.header_timeout_ms > 0 {
        http.header_read_timeout(Duration::from_millis(limits.header_timeout_ms));
    }
    http
}

/// Marks a request whose headers are over the limit.
#[derive(Debug, Clone, Copy)]
pub struct HeadersTooLarge;

/// Gives a request its id, and the id to its response.
async fn serve_request<S, B>(
    service: S,
    mut request: Request<Body>,
    peer: String,
    header_bytes_max: u64,
) -> Result<http::Response<B>, S::Error>
where
    S: Service<Request<Body>, Response = http::Response<B>>,
{
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let request_id = request_id(given);
    let meta = Meta { peer, request_id: request_id.clone(), framed: request.version() >= http::Version::HTTP_11 };
    request.extensions_mut().insert(meta);
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes as u64 > header_bytes_max {
        // hyper looks at its buffer only when it is full; what fitted into one read may be more than the limit.
        request.extensions_mut().insert(HeadersTooLarge);
    }
    let mut response = service.oneshot(request).await?;
    if let Ok(id) = request_id.parse() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}
