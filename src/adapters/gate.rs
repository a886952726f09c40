//! What every request passes on its way in, whatever the protocol: admission, and the one line in the log.
//!
//! While the server drains, nothing new is admitted and what runs may finish; after the grace period every stream is
//! cut with `Unavailable`. A request that is dropped before it ended was cancelled by its client, and is logged so.

use crate::ports::{BatchStream, Error, ErrorKind, Limits, Result, StatementKind};
use futures::stream::{self, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// SQL in the log is cut to this many characters.
const SQL_CHARS_MAX: usize = 200;

/// A statement that takes longer is logged with its text.
const SLOW: Duration = Duration::from_millis(1_000);

/// What a server says about itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Version of the program.
    pub version: String,
    /// Name of the backend, so that a stub can't pass for the real thing.
    pub backend: String,
    /// Every protocol and its address, or that it is a stub.
    pub protocols: Vec<(String, String)>,
}

/// Which names and web pages may reach an HTTP server, beside addresses, `localhost` and its own pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrowserPolicy {
    /// Host names that mean this server, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins of other pages that may ask it, such as `https://desk.example`.
    pub allowed_origins: Vec<String>,
}

/// How a server is to behave.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Its limits.
    pub limits: Limits,
    /// Who may reach it from a browser.
    pub browsers: BrowserPolicy,
    /// What it says about itself.
    pub about: About,
}

/// Counters of a server since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests admitted.
    pub requests: AtomicU64,
    /// Requests that ended with an error.
    pub errors: AtomicU64,
    /// Rows sent.
    pub rows_sent: AtomicU64,
    /// Bytes of results sent.
    pub bytes_sent: AtomicU64,
}

/// Admits requests until the server drains. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<State>);

#[derive(Debug)]
struct State {
    draining: AtomicBool,
    in_flight: AtomicUsize,
    idle: Notify,
    cut: CancellationToken,
    counters: Counters,
    began: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(State {
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            cut: CancellationToken::new(),
            counters: Counters::default(),
            began: Instant::now(),
        }))
    }
}

impl Gate {
    /// Lets a request in.
    ///
    /// # Errors
    ///
    /// `Unavailable` while the server drains; the request is logged all the same.
    pub fn admit(&self, protocol: &'static str, verb: String, request_id: String, peer: String) -> Result<Request> {
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
        self.0.counters.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = Request {
            gate: self.clone(),
            protocol,
            verb,
            request_id,
            peer,
            kind: None,
            sql: None,
            outcome: None,
            rows: 0,
            bytes: 0,
            began: Instant::now(),
        };
        if self.is_draining() { Err(request.fail(Error::stopping())) } else { Ok(request) }
    }

    /// Whether a stop has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Admits nothing more, waits up to `grace` for what runs, then cuts it off.
    pub async fn drain(&self, grace: Duration) {
        self.0.draining.store(true, Ordering::Release);
        let _ = tokio::time::timeout(grace, self.idle()).await;
        self.0.cut.cancel();
        // A stream that was cut still has to tell its client.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.idle()).await;
    }

    async fn idle(&self) {
        loop {
            let notified = self.0.idle.notified();
            if self.0.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One admitted request. Logged when dropped.
#[derive(Debug)]
pub struct Request {
    gate: Gate,
    protocol: &'static str,
    verb: String,
    request_id: String,
    peer: String,
    kind: Option<StatementKind>,
    sql: Option<String>,
    outcome: Option<Result<(), Error>>,
    rows: u64,
    bytes: u64,
    began: Instant,
}

impl Request {
    /// The id under which this request is logged.
    pub fn id(&self) -> &str {
        &self.request_id
    }

    /// Time since it came in.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes the statement that it carries.
    pub fn statement(&mut self, sql: &str) {
        self.sql = Some(sql.chars().take(SQL_CHARS_MAX).collect());
    }

    /// Notes what its statement does.
    pub fn kind(&mut self, kind: StatementKind) {
        self.kind = Some(kind);
    }

    /// Notes what was sent for it.
    pub fn sent(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
    }

    /// Ends well.
    pub fn done(&mut self) {
        self.outcome = Some(Ok(()));
    }

    /// Ends with `error`, which is handed back.
    pub fn fail(&mut self, error: Error) -> Error {
        self.outcome = Some(Err(error.clone()));
        error
    }

    /// Notes how a result ends, and hands it on.
    pub fn settle<T>(&mut self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                self.done();
                Ok(value)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// What `work` comes to, unless the server stops first.
    ///
    /// # Errors
    ///
    /// Those of `work`, and `Unavailable`.
    pub async fn unless_cut<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            () = self.gate.0.cut.cancelled() => Err(Error::stopping()),
            done = work => done,
        }
    }

    /// The same batches, cut off where the server stops.
    pub fn until_cut(&self, batches: BatchStream) -> BatchStream {
        let schema = batches.schema();
        let running = Some((batches, self.gate.0.cut.clone()));
        let batches = stream::unfold(running, |running| async move {
            let (mut batches, cut) = running?;
            tokio::select! {
                () = cut.cancelled() => Some((Err(Error::stopping()), None)),
                next = batches.next() => {
                    let next = next?;
                    let rest = next.is_ok().then_some((batches, cut));
                    Some((next, rest))
                }
            }
        });
        BatchStream::new(schema, batches)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err(Error::new(ErrorKind::Cancelled, "the client went away")));
        let duration = self.began.elapsed();
        let status = outcome.as_ref().map_or_else(|error| error.kind().as_str(), |()| "ok");
        let kind = self.kind.map_or("-", StatementKind::as_str);
        let shown = if duration >= SLOW || outcome.is_err() { self.sql.as_deref() } else { None };
        macro_rules! line {
            ($level:ident, $($more:tt)*) => {
                tracing::$level!(
                    request_id = self.request_id, protocol = self.protocol, verb = self.verb, kind, status,
                    rows = self.rows, bytes = self.bytes, duration_us = duration.as_micros() as u64,
                    peer = self.peer, sql = shown, $($more)*
                )
            };
        }
        match &outcome {
            Ok(()) => line!(info, "request"),
            Err(error) if error.kind() == ErrorKind::Internal => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                line!(error, source, error = error.message(), "request");
            }
            Err(error) => line!(warn, error = error.message(), "request"),
        }
        let counters = self.gate.counters();
        counters.errors.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        counters.rows_sent.fetch_add(self.rows, Ordering::Relaxed);
        counters.bytes_sent.fetch_add(self.bytes, Ordering::Relaxed);
        if self.gate.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gate.0.idle.notify_waiters();
        }
    }
}

/// A caller's own request id where it is well-formed, else a new one.
pub fn request_id(given: Option<&str>) -> String {
    let well_formed = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    given.filter(well_formed).map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}
