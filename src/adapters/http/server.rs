//! The listening half of HTTP: our own accept loop around warp's routes.
//!
//! warp's server sets no timers and no nodelay, and waits without limit at a stop. So hyper is driven here, and warp
//! provides the routes alone (`warp::service`).

use crate::adapters::formats::format::{ARROW_STREAM, PARQUET};
use crate::adapters::http::compression::{CompressionThreads, moved};
use crate::adapters::http::guard::{self, Passed, Refused};
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::request::RequestMeta;
use crate::adapters::http::routes::routes;
use crate::adapters::http::wire::REQUEST_ID;
use crate::adapters::serving::{Admission, BrowserPolicy, Listener, ServerOptions, request_id};
use crate::ports::{Error, IngestPort, Limits, QueryPort, Result};
use http::header::CONTENT_ENCODING;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower::Layer;
use tower::{Service, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::decompression::RequestDecompressionLayer;

/// The least buffer that hyper reads headers into; it panics for less.
const HEADER_BUFFER_BYTES_MIN: usize = 8 << 10;

/// An HTTP server that is ready to listen.
#[derive(Debug)]
pub struct Server {
    handlers: Arc<Handlers>,
    admission: Admission,
    limits: Limits,
    browsers: BrowserPolicy,
}

impl Server {
    /// Creates a server over any implementation of the ports.
    pub fn new(query: Arc<dyn QueryPort>, ingest: Arc<dyn IngestPort>, options: ServerOptions) -> Self {
        let admission = Admission::new(options.log_sql);
        let (limits, browsers) = (options.limits.clone(), options.browsers.clone());
        let handlers = Arc::new(Handlers::new(query, ingest, admission.clone(), options));
        Self { handlers, admission, limits, browsers }
    }

    /// Serves `listener` until `shutdown`, then lets requests finish for the grace period and aborts the rest.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the system refuses a thread; failed attempts to accept a connection are repeated.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let routes = warp::service(routes(self.handlers));
        // Parquet is compressed inside. Arrow is, where the client asks for it, and gzip would cost more than it saves.
        let plain = DefaultPredicate::new()
            .and(NotForContentType::const_new(ARROW_STREAM))
            .and(NotForContentType::const_new(PARQUET));
        let service =
            CompressionLayer::new().compress_when(plain).layer(RequestDecompressionLayer::new().layer(routes));
        let threads = CompressionThreads::start()
            .map_err(|error| Error::unavailable("no threads to compress with").with_source(error))?;
        let threads = Arc::new(threads);
        let connections = GracefulShutdown::new();
        let listener = Listener::new(listener, &self.limits);
        let grace = Duration::from_millis(self.limits.shutdown_grace_ms);
        let checks = Arc::new(HeaderChecks { limits: self.limits.clone(), browsers: self.browsers });
        let stop = async {
            shutdown.await;
            self.admission.drain(grace).await;
        };
        tokio::pin!(stop);
        // Connections are accepted while the server drains: health and readiness still answer.
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let peer = accepted.peer();
            let (service, checks, threads) = (service.clone(), checks.clone(), threads.clone());
            let answer = hyper::service::service_fn(move |request: Request<Body>| {
                let (service, checks, threads) = (service.clone(), checks.clone(), threads.clone());
                async move {
                    let answer = serve_request(service, request, peer, &checks).await?;
                    let is_compressed = answer.headers().contains_key(CONTENT_ENCODING);
                    // hyper wants errors of one type, whatever the layers make of them.
                    let answer = answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
                    Ok::<_, Infallible>(match threads.handle() {
                        Some(threads) if is_compressed => answer.map(|body| moved(body, threads)),
                        _ => answer,
                    })
                }
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

/// The checks that a request passes before any route sees it.
#[derive(Debug)]
struct HeaderChecks {
    limits: Limits,
    browsers: BrowserPolicy,
}

impl HeaderChecks {
    /// Checks a request by its headers alone.
    fn check(&self, request: &Request<Body>) -> std::result::Result<Passed, Refused> {
        let passed = guard::check(request, &self.browsers)?;
        // hyper checks its buffer only when that is full; what fitted into one read may be more than the limit.
        let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let limit = self.limits.header_bytes_max;
        if bytes as u64 > limit {
            let message = format!("the headers have more than {limit} bytes (header_bytes_max)");
            return Err(Refused {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                kind: "HeadersTooLarge",
                message,
            });
        }
        check_encoding(request.headers())?;
        Ok(passed)
    }
}

/// Refuses a body that is compressed in a way that the server cannot decompress.
fn check_encoding(headers: &http::HeaderMap) -> std::result::Result<(), Refused> {
    let known = |encoding: &[u8]| [&b"gzip"[..], b"zstd", b"identity"].contains(&encoding);
    match headers.get(http::header::CONTENT_ENCODING) {
        Some(encoding) if !known(encoding.as_bytes()) => Err(Refused {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            kind: "UnsupportedMediaType",
            message: "unsupported Content-Encoding; expected gzip, zstd or identity".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Gives a request its id, checks it, has it answered, and adds security headers to the response.
async fn serve_request<S, B>(
    service: S,
    mut request: Request<Body>,
    peer: SocketAddr,
    checks: &HeaderChecks,
) -> std::result::Result<http::Response<B>, S::Error>
where
    S: Service<Request<Body>, Response = http::Response<B>>,
    B: Default,
{
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let request_id = request_id(given);
    let meta = RequestMeta {
        peer: Some(peer),
        request_id: request_id.clone(),
        framed: request.version() >= http::Version::HTTP_11,
    };
    request.extensions_mut().insert(meta);
    // A refused request goes to a route all the same, so that it is counted and logged; its `Refused` leads it there.
    let passed = match checks.check(&request) {
        Ok(passed) => passed,
        Err(refused) => {
            request.extensions_mut().insert(refused);
            Passed::default()
        }
    };
    let mut response = if passed.is_preflight() {
        let mut response = http::Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        service.oneshot(request).await?
    };
    guard::protect(response.headers_mut(), &passed);
    if let Ok(id) = request_id.parse() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}
