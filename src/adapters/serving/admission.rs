//! Admission of requests: counts them, logs each in one line, and refuses new ones while the server drains.
//!
//! While the server drains, running requests may finish; after the grace period every stream ends with `Unavailable`. A
//! request that is dropped before it ended was cancelled by its client, and is logged as `Cancelled`.

use crate::adapters::serving::cancellation::{or_cancelled, until_cancelled};
use crate::adapters::serving::connection_clock::{Activity, OpenCall};
use crate::adapters::serving::redaction::without_literals;
use crate::ports::{BatchStream, Caller, Error, ErrorKind, Result, StatementKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most characters of SQL in a line of the log.
const SQL_CHARS_MAX: usize = 200;

/// A statement that takes longer than this is logged with its text.
const SLOW: Duration = Duration::from_millis(1_000);

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

/// Admits requests until the server drains. Clones share their state.
#[derive(Debug, Clone)]
pub struct Admission(Arc<State>);

#[derive(Debug)]
struct State {
    draining: AtomicBool,
    in_flight: AtomicUsize,
    idle: Notify,
    /// Cancelled once the grace period of a stop is over.
    force_stop: CancellationToken,
    counters: Counters,
    began: Instant,
    log_sql: bool,
}

impl Admission {
    /// Makes an open admission. The log shows literals of statements only if `log_sql`.
    pub fn new(log_sql: bool) -> Self {
        Self(Arc::new(State {
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            force_stop: CancellationToken::new(),
            counters: Counters::default(),
            began: Instant::now(),
            log_sql,
        }))
    }

    /// Admits a request.
    ///
    /// # Errors
    ///
    /// `Unavailable` while the server drains; the request is logged all the same.
    pub fn admit(
        &self,
        protocol: &'static str,
        verb: String,
        request_id: String,
        peer: Option<SocketAddr>,
    ) -> Result<AdmittedRequest> {
        // Counted before the flag is read, so that `drain` waits for a request that is admitted at the same moment.
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
        self.0.counters.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = AdmittedRequest {
            admission: self.clone(),
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
            _call: None,
        };
        // Dropping the refused request logs it and takes it off the count again.
        if self.is_draining() { Err(request.fail(Error::stopping())) } else { Ok(request) }
    }

    /// Returns whether a stop has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Returns the counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Returns the time since the start.
    pub fn uptime(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Stops admitting, waits up to `grace` for running requests, then cuts them off.
    pub async fn drain(&self, grace: Duration) {
        self.0.draining.store(true, Ordering::Release);
        let _ = tokio::time::timeout(grace, self.idle()).await;
        self.0.force_stop.cancel();
        // A stream that was cut off still has to tell its client.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.idle()).await;
    }

    async fn idle(&self) {
        loop {
            // Made before the count is read: a request that ends in between still wakes this.
            let notified = self.0.idle.notified();
            if self.0.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One admitted request. Dropping it writes its line to the log.
#[derive(Debug)]
pub struct AdmittedRequest {
    admission: Admission,
    protocol: &'static str,
    verb: String,
    request_id: String,
    peer: Option<SocketAddr>,
    kind: Option<StatementKind>,
    sql: Option<String>,
    outcome: Option<Result<(), Error>>,
    rows: u64,
    bytes: u64,
    began: Instant,
    /// Keeps its connection open.
    _call: Option<OpenCall>,
}

impl AdmittedRequest {
    /// Keeps a connection open until the request has ended.
    pub fn keep_open(&mut self, activity: &Activity) {
        self._call = Some(activity.begin());
    }

    /// Returns the id under which the request is logged.
    pub fn id(&self) -> &str {
        &self.request_id
    }

    /// Returns who sent it.
    pub fn caller(&self) -> Caller {
        let peer = self.peer.map(|peer| peer.ip().to_string());
        Caller::client(self.request_id.as_str(), peer.unwrap_or_default())
    }

    /// Returns the time since it was admitted.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes the statement that it carries, for the log.
    pub fn statement(&mut self, sql: &str) {
        let cut = sql.char_indices().nth(SQL_CHARS_MAX).map_or(sql, |(end, _)| &sql[..end]);
        self.sql = Some(cut.to_owned());
    }

    /// Notes the kind of its statement, for the log.
    pub fn kind(&mut self, kind: StatementKind) {
        self.kind = Some(kind);
    }

    /// Adds to the rows and bytes that were sent for it.
    pub fn sent(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
    }

    /// Marks it as ended without an error.
    pub fn done(&mut self) {
        self.outcome = Some(Ok(()));
    }

    /// Marks it as ended with `error`, and returns that.
    pub fn fail(&mut self, error: Error) -> Error {
        self.outcome = Some(Err(error.clone()));
        error
    }

    /// Marks it as ended by `result`, and returns that.
    pub fn finish<T>(&mut self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                self.done();
                Ok(value)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Runs `work` until it ends or the grace period of a stop is over.
    ///
    /// # Errors
    ///
    /// Those of `work`, and `Unavailable`.
    pub async fn or_shutdown<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        or_cancelled(&self.admission.0.force_stop, Error::stopping, work).await
    }

    /// Passes `batches` on until they end or the grace period of a stop is over; then the last item is `Unavailable`.
    pub fn until_shutdown(&self, batches: BatchStream) -> BatchStream {
        until_cancelled(batches, self.admission.0.force_stop.clone(), (), Error::stopping)
    }
}

impl Drop for AdmittedRequest {
    fn drop(&mut self) {
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err(Error::new(ErrorKind::Cancelled, "the client went away")));
        let duration = self.began.elapsed();
        let status = outcome.as_ref().map_or_else(|error| error.kind().as_str(), |()| "ok");
        let kind = self.kind.map_or("-", StatementKind::as_str);
        let peer = self.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let shown = self.sql.as_deref().filter(|_| duration >= SLOW || outcome.is_err());
        let log_sql = self.admission.0.log_sql;
        let shown = shown.map(|sql| if log_sql { sql.to_owned() } else { without_literals(sql) });
        macro_rules! line {
            ($level:ident, $($more:tt)*) => {
                tracing::$level!(
                    request_id = self.request_id, protocol = self.protocol, verb = self.verb, kind, status,
                    rows = self.rows, bytes = self.bytes, duration_us = duration.as_micros() as u64,
                    peer, sql = shown, $($more)*
                )
            };
        }
        match &outcome {
            Ok(()) => line!(info, "request"),
            Err(error) if error.kind() == ErrorKind::Internal => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                line!(error, source, error = error.message(), "request");
            }
            Err(error) => {
                let message = Some(error.message()).filter(|_| log_sql || !quotes_its_statement(error.kind()));
                line!(warn, error = message, "request");
            }
        }
        let counters = self.admission.counters();
        counters.errors.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        counters.rows_sent.fetch_add(self.rows, Ordering::Relaxed);
        counters.bytes_sent.fetch_add(self.bytes, Ordering::Relaxed);
        // Only the last one wakes `drain`, and after its line is in the log.
        if self.admission.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.admission.0.idle.notify_waiters();
        }
    }
}

/// Returns whether messages of this kind may repeat literals of the statement or values of the data.
fn quotes_its_statement(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidQuery | ErrorKind::SchemaMismatch | ErrorKind::Unsupported)
}

/// Returns the caller's request id if it is well-formed, else a new one.
pub fn request_id(given: Option<&str>) -> String {
    let well_formed = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    given.filter(well_formed).map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}
