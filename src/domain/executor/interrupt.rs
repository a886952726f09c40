//! Tells a running query from outside to stop: because its reader has gone, or its time is over.
//!
//! A task that computes notices neither an abort nor a timer before it next yields, and some of DataFusion's operators
//! compute for minutes without. So the interrupt is checked where the work is, by join filters and between batches
//! (`pace.rs`), against the clock itself, which does not depend on a busy runtime's timers.

use crate::domain::executor::error::to_datafusion;
use crate::ports::{Error, ErrorKind};
use datafusion::error::DataFusionError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No time limit, in microseconds.
const NEVER: u64 = u64::MAX;

/// The signal that stops a query.
#[derive(Debug)]
pub struct Interrupt {
    created: Instant,
    cancelled: AtomicBool,
    /// The instant at which its time is over, in microseconds since `created`.
    end_us: AtomicU64,
    /// Time that the query may compute in all.
    compute: Option<Duration>,
    /// Instant by which its caller wants the last batch.
    deadline: Option<Instant>,
}

impl Interrupt {
    /// Makes the interrupt of a query that starts now.
    pub fn new(compute: Option<Duration>, deadline: Option<Instant>) -> Arc<Self> {
        let interrupt = Self {
            created: Instant::now(),
            cancelled: AtomicBool::new(false),
            end_us: AtomicU64::new(NEVER),
            compute,
            deadline,
        };
        interrupt.computing(Duration::ZERO);
        Arc::new(interrupt)
    }

    /// Restarts the clock of a query that goes on computing, after it has computed for `computed` already.
    pub fn computing(&self, computed: Duration) {
        let left = self.compute.map(|limit| limit.saturating_sub(computed));
        let end = left.and_then(|left| Instant::now().checked_add(left));
        self.set_end([end, self.deadline].into_iter().flatten().min());
    }

    /// Stops the clock while the query waits for its reader, which does not count as computing.
    pub fn waiting(&self) {
        self.set_end(self.deadline);
    }

    fn set_end(&self, end: Option<Instant>) {
        let us = end.map(|end| u64::try_from(end.saturating_duration_since(self.created).as_micros()).unwrap_or(NEVER));
        // Relaxed: the number stands alone, and a check that sees the old one is repeated with the next batch.
        self.end_us.store(us.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Returns the instant at which its time is over; it moves whenever the query computes or waits.
    pub fn end(&self) -> Option<Instant> {
        let us = self.end_us.load(Ordering::Relaxed);
        (us != NEVER).then(|| self.created.checked_add(Duration::from_micros(us))).flatten()
    }

    /// Stops the query.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Checks that the query may go on.
    ///
    /// # Errors
    ///
    /// `Cancelled` and `Timeout`, as DataFusion carries them.
    pub fn check(&self) -> Result<(), DataFusionError> {
        self.check_at(Instant::now())
    }

    /// Checks that the query may go on at `now`, for callers that have just read the clock.
    ///
    /// # Errors
    ///
    /// Those of [`Interrupt::check`].
    pub fn check_at(&self, now: Instant) -> Result<(), DataFusionError> {
        let error = if self.cancelled.load(Ordering::Relaxed) {
            Error::new(ErrorKind::Cancelled, "the query was cancelled")
        } else if self.end().is_some_and(|end| now >= end) {
            self.timed_out()
        } else {
            return Ok(());
        };
        Err(to_datafusion(error))
    }

    /// Makes the error of a query whose time is over.
    pub fn timed_out(&self) -> Error {
        let text = match (self.deadline, self.compute) {
            (Some(deadline), _) if deadline <= Instant::now() => {
                "the query did not finish within the timeout of its request".to_owned()
            }
            (_, Some(limit)) => format!("the query computed for {} ms (query_timeout_ms)", limit.as_millis()),
            _ => "the query did not finish in time".to_owned(),
        };
        Error::new(ErrorKind::Timeout, text)
    }
}

/// Stops its query when dropped, which happens when its reader has gone.
#[derive(Debug)]
pub struct CancelOnDrop(pub Arc<Interrupt>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
