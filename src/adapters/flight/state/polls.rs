//! The registry of queries that PollFlightInfo started.
//!
//! Each runs in a task of its own and reports its progress. A query that no client polls for as long as a ticket is
//! valid is stopped and removed. Its last answer is kept as long: a client that did not receive it asks again.

use crate::adapters::serving::ExpiringMap;
use crate::ports::{Error, Limits, Result};
use arrow_flight::FlightInfo;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Most queries that are polled at the same time.
const QUERIES_MAX: usize = 256;

/// How long a query that no client polls goes on if tickets never expire.
const IDLE: Duration = Duration::from_secs(600);

/// Progress of a polled query.
#[derive(Debug, Clone)]
pub enum PollProgress {
    /// The endpoints that are ready, and the fraction of the work that is done.
    Running(FlightInfo, f64),
    /// All endpoints are ready.
    Done(FlightInfo),
    /// The query failed.
    Failed(Error),
}

/// One polled query.
#[derive(Debug)]
struct PolledQuery {
    progress: watch::Receiver<PollProgress>,
    task: JoinHandle<()>,
}

impl Drop for PolledQuery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All polled queries by their ids.
#[derive(Debug)]
pub struct PollRegistry {
    running: ExpiringMap<PolledQuery>,
    /// The last answers of those that have ended.
    ended: ExpiringMap<PollProgress>,
}

impl PollRegistry {
    /// Creates an empty registry.
    pub fn new(limits: &Limits) -> Self {
        let ttl = if limits.ticket_ttl_ms == 0 { IDLE } else { limits.ticket_ttl() };
        Self { running: ExpiringMap::new(ttl, QUERIES_MAX), ended: ExpiringMap::new(ttl, QUERIES_MAX) }
    }

    /// Registers a query that `task` runs. The task is aborted when the query is removed or expires.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` if there are too many; the task is aborted then.
    pub fn insert(&self, id: u128, progress: watch::Receiver<PollProgress>, task: JoinHandle<()>) -> Result<()> {
        if self.running.insert(id, PolledQuery { progress, task }) {
            return Ok(());
        }
        Err(Error::limit(format!("{QUERIES_MAX} queries are being polled already; send this one as a ticket")))
    }

    /// Returns the progress of a query, with the version that was reported last marked as seen; none if it is unknown.
    pub fn progress(&self, id: u128) -> Option<watch::Receiver<PollProgress>> {
        let ended = || self.ended.with(id, |last| watch::channel(last.clone()).1);
        self.running.with(id, |query| query.progress.clone()).or_else(ended)
    }

    /// Notes which version of the progress was reported: the next poll waits for a newer one.
    pub fn mark_reported(&self, id: u128, progress: watch::Receiver<PollProgress>) {
        self.running.with(id, |query| query.progress = progress);
    }

    /// Removes a query, which stops it, and keeps its last answer; the oldest ones make room.
    pub fn end(&self, id: u128, last: PollProgress) {
        self.ended.insert_evicting_oldest(id, last);
        self.running.remove(id);
    }

    /// Removes a query that is cancelled, which stops it.
    pub fn remove(&self, id: u128) {
        self.running.remove(id);
        self.ended.remove(id);
    }

    /// Removes expired queries again and again; never returns.
    pub async fn expire(&self) {
        tokio::join!(self.running.expire(), self.ended.expire());
    }
}
