//! The composition root: the only room that names every layer.
//!
//! A backend is chosen by its URL, a protocol by its name; whichever it is, the rest can't tell. The engine gets two
//! runtimes of its own, apart from the one that serves sockets: a heavy query holds up neither a ping nor a small query.

mod banner;
pub mod sample;

use crate::adapters::clock::SystemClock;
use crate::adapters::disk::{DataDirectory, DiskJournal, DiskStore, JournalOptions};
use crate::adapters::memory::MemoryJournal;
use crate::adapters::serving::{BrowserPolicy, ServerInfo, ServerOptions};
use crate::adapters::{flight, http, stub};
use crate::config::{Config, Protocol};
use crate::domain::{Engine, EngineOptions, Foundation, Lanes, Limited, ReadOnly, STACK_BYTES};
use crate::ports::{Caller, Error, IngestPort, Limits, MemoryAccount, QueryPort, Result};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// An implementation of both ports.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its query port.
    pub query: Arc<dyn QueryPort>,
    /// Its ingest port.
    pub ingest: Arc<dyn IngestPort>,
    /// What it and its servers hold for clients.
    pub memory: MemoryAccount,
}

/// A runtime that can be dropped anywhere: it does not wait for its tasks.
#[derive(Debug)]
struct EngineRuntime(Option<Runtime>);

impl Drop for EngineRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Backend {
    /// Puts the limits on queries before the ports: how many compute at the same time, and for how long.
    #[must_use]
    pub fn limited(self, limits: &Limits) -> Self {
        Self { query: Arc::new(Limited::new(self.query, limits)), ..self }
    }

    /// Has the ports refuse whatever changes anything.
    #[must_use]
    pub fn read_only(self) -> Self {
        let ports = Arc::new(ReadOnly::new(self.query, self.ingest));
        Self { query: ports.clone(), ingest: ports, ..self }
    }
}

/// Connects to the backend at `url`: `file:DIR` for tables that are kept in a directory, `memory:` for tables in this process alone, `stub:`, `grpc://host:port` or
/// `http://host:port`. Whichever it is, the limits on queries stand before it.
///
/// # Errors
///
/// `InvalidQuery` for any other URL, `Unsupported` for one that this build can't reach; those of the data directory, and of
/// reading it, which takes as long as there is something to be read.
pub fn connect(url: &str, options: EngineOptions) -> Result<Backend> {
    fn both<T: QueryPort + IngestPort>(ports: T, memory: &MemoryAccount) -> Backend {
        let ports = Arc::new(ports);
        Backend { query: ports.clone(), ingest: ports, memory: memory.clone() }
    }
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    let limits = options.limits.clone();
    let memory = MemoryAccount::new(limits.memory_bytes_max);
    let backend = match scheme {
        "memory" | "file" => {
            let (engine, memory) = engine(url, options)?;
            both(engine, &memory)
        }
        "stub" => both(stub::Ports, &memory),
        "grpc" => both(flight::Client::new(url, &limits)?, &memory),
        "http" => both(http::Client::new(url, &limits)?, &memory),
        _ => {
            return Err(Error::invalid(format!(
                "no backend at {url:?}: there are file:DIR, memory:, stub:, grpc://HOST:PORT and http://HOST:PORT"
            )));
        }
    };
    Ok(backend.limited(&limits))
}

/// Opens the directory at `path`, and makes it where there is none.
fn kept_in(path: &str) -> Result<Foundation> {
    let DataDirectory { disk, id } = DataDirectory::open(Path::new(path))?;
    let store = Arc::new(DiskStore::new(disk.clone(), id));
    let journal = Arc::new(DiskJournal::new(disk, id, JournalOptions::default()));
    Ok(Foundation { journal, store: Some(store), clock: Arc::new(SystemClock) })
}

/// Starts the engine of a backend in this process, `file:DIR` or `memory:`, on runtimes of its own; returns it with the account of what it
/// holds.
///
/// # Errors
///
/// Those of [`connect`].
pub fn engine(url: &str, options: EngineOptions) -> Result<(Engine, MemoryAccount)> {
    let foundation = match url.strip_prefix("file:") {
        Some(path) => kept_in(path)?,
        None => Foundation { journal: Arc::new(MemoryJournal), store: None, clock: Arc::new(SystemClock) },
    };
    let memory = MemoryAccount::new(options.limits.memory_bytes_max);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (quick, quick_runtime) = engine_runtime("engine", cores + 1)?;
    let (heavy, heavy_runtime) = engine_runtime("engine-heavy", (4 * cores).max(8))?;
    let lanes = Lanes { quick, heavy };
    let engine = Engine::open(lanes, options, memory.clone(), foundation)?;
    Ok((engine.keeping(Arc::new([quick_runtime, heavy_runtime])), memory))
}

/// Starts threads of the engine.
fn engine_runtime(name: &str, threads: usize) -> Result<(Handle, EngineRuntime)> {
    let runtime = Builder::new_multi_thread()
        .thread_name(name)
        .worker_threads(threads)
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build()
        .map_err(|error| Error::internal("the engine's threads did not start").with_source(error))?;
    Ok((runtime.handle().clone(), EngineRuntime(Some(runtime))))
}

/// Serves what `config` says until `shutdown`. `ready` is called with the banner once every port is open.
///
/// # Errors
///
/// `Unavailable` for an address that cannot be had, and whatever the backend fails to start with.
pub async fn serve(
    config: &Config,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(&str) + Send,
) -> Result<()> {
    let settings = &config.settings;
    let limits = config.limits();
    let url = settings.backend_url();
    let opening = Instant::now();
    let options = EngineOptions {
        limits: limits.clone(),
        create_tables: settings.create_tables,
        durability: settings.durability,
        ..EngineOptions::default()
    };
    let backend = connect(&url, options)?;
    let opened = opening.elapsed();
    // What was kept from an earlier start stays as it is.
    let has_sample = backend.query.table(sample::TABLE.to_owned(), Caller::internal()).await.is_ok();
    if settings.ticks > 0 && !has_sample {
        sample::seed(backend.query.as_ref(), backend.ingest.as_ref(), settings.ticks).await?;
    }
    // After the sample data, which is the server's own.
    let backend = if settings.read_only { backend.read_only() } else { backend };
    let has = |protocol| settings.protocols.contains(&protocol);
    let flight_listener =
        listen(has(Protocol::Flight) && flight::BUILT, settings.flight_host, settings.flight_port).await?;
    let http_listener = listen(has(Protocol::Http) && http::BUILT, settings.http_host, settings.http_port).await?;
    let info = ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: without_password(&url),
        protocols: vec![
            ("flight".to_owned(), place(flight::BUILT, "grpc", flight_listener.as_ref())),
            ("http".to_owned(), place(http::BUILT, "http", http_listener.as_ref())),
        ],
    };
    ready(&banner::text(&info, &backend, opened).await?);
    let options = server_options(config, info, &backend);
    let stop = CancellationToken::new();
    let serving = async {
        let Backend { query, ingest, .. } = backend.clone();
        let flight = flight::Server::new(query.clone(), ingest.clone(), options.clone());
        let http = http::Server::new(query, ingest, options);
        tokio::try_join!(
            run(flight_listener, &stop, |listener| flight.serve(listener, stop.clone().cancelled_owned())),
            run(http_listener, &stop, |listener| http.serve(listener, stop.clone().cancelled_owned())),
        )
    };
    let stopping = async {
        shutdown.await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = serving => served.map(|_| ()),
        () = stopping => Ok(()),
    }
}

/// Puts together what both servers are told.
fn server_options(config: &Config, info: ServerInfo, backend: &Backend) -> ServerOptions {
    let settings = &config.settings;
    let named = |names: &[String]| names.iter().filter(|name| !name.is_empty()).cloned().collect();
    let browsers = BrowserPolicy {
        allowed_hosts: named(&settings.http_allowed_hosts),
        allowed_origins: named(&settings.http_allow_origins),
    };
    let (limits, memory) = (config.limits(), backend.memory.clone());
    ServerOptions { limits, browsers, info, log_sql: settings.log_sql, memory }
}

/// Serves a listener; where there is none, waits.
async fn run<F: Future<Output = Result<()>>>(
    listener: Option<TcpListener>,
    stop: &CancellationToken,
    serve: impl FnOnce(TcpListener) -> F,
) -> Result<()> {
    match listener {
        Some(listener) => serve(listener).await,
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn listen(wanted: bool, host: IpAddr, port: u16) -> Result<Option<TcpListener>> {
    if !wanted {
        return Ok(None);
    }
    let address = SocketAddr::new(host, port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Error::unavailable(format!("cannot listen on {address}: {error}")).with_source(error))?;
    Ok(Some(listener))
}

/// Says where a protocol is to be found, or why it is not.
fn place(built: bool, scheme: &str, listener: Option<&TcpListener>) -> String {
    match listener.and_then(|listener| listener.local_addr().ok()) {
        Some(address) => format!("{scheme}://{address}"),
        None if built => "off".to_owned(),
        None => "stub (left out of this build)".to_owned(),
    }
}

/// Returns a backend's URL as anybody may see it: without user information.
fn without_password(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, place)))) => format!("{scheme}://{place}"),
        _ => url.to_owned(),
    }
}

/// Makes a backend in this process with default settings: for tests, examples and embedding.
///
/// # Errors
///
/// Those of [`connect`].
pub fn in_memory() -> Result<Backend> {
    connect("memory:", EngineOptions { limits: Limits::default(), create_tables: true, ..EngineOptions::default() })
}
