//! How long a connection may be open without doing anything, for protocols whose server sets no such times itself.
//!
//! A client has to send the preface of its protocol in time, and after that a connection without a call is closed some
//! time after its last one. Both are looked at where bytes are read, because that is polled for as long as the
//! connection is open: when the time is over, reading fails.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// The times of a connection. None: no limit.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionTimes {
    /// Bytes that every client sends first.
    pub preface_bytes: usize,
    /// Time for those to arrive.
    pub preface: Option<Duration>,
    /// Time that a connection is kept without a call.
    pub idle: Option<Duration>,
}

/// The calls of a connection. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    open: AtomicUsize,
    /// When the last call ended.
    ended: Mutex<Option<Instant>>,
}

/// A call that keeps its connection open until it is dropped.
#[derive(Debug)]
pub struct OpenCall(Activity);

/// Tells when the time of a connection is over.
#[derive(Debug)]
pub struct ConnectionClock {
    times: ConnectionTimes,
    activity: Activity,
    began: Instant,
    preface_bytes_left: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Activity {
    /// Begins a call.
    pub fn begin(&self) -> OpenCall {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        OpenCall(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.open.load(Ordering::Acquire) == 0
    }

    fn last_end(&self) -> Option<Instant> {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        // The time first: whoever sees that nothing is open sees since when.
        *self.0.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ConnectionClock {
    /// Starts the clock of a connection that was just accepted.
    pub fn start(times: ConnectionTimes) -> Self {
        Self {
            times,
            activity: Activity::default(),
            began: Instant::now(),
            preface_bytes_left: times.preface_bytes,
            sleep: None,
        }
    }

    /// Returns the calls of the connection.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Notes bytes that arrived.
    pub fn received(&mut self, bytes: usize) {
        self.preface_bytes_left = self.preface_bytes_left.saturating_sub(bytes);
    }

    /// Becomes ready when the connection has been open for too long without doing anything.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(end) = self.end() else { return Poll::Pending };
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end.into())));
            // What happened meanwhile has moved the end: the timer only says when to look again.
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
    }

    /// Returns when the time is over, as far as is known now.
    fn end(&self) -> Option<Instant> {
        if self.preface_bytes_left > 0 {
            return self.began.checked_add(self.times.preface?);
        }
        let idle = self.times.idle?;
        let since =
            if self.activity.is_idle() { self.activity.last_end().unwrap_or(self.began) } else { Instant::now() };
        since.checked_add(idle)
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::serving::connection_clock::{ConnectionClock, ConnectionTimes};
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::timeout;

    const TIMES: ConnectionTimes = ConnectionTimes {
        preface_bytes: 24,
        preface: Some(Duration::from_millis(40)),
        idle: Some(Duration::from_millis(80)),
    };

    async fn expires_within(clock: &mut ConnectionClock, ms: u64) -> bool {
        timeout(Duration::from_millis(ms), poll_fn(|cx| clock.poll_expired(cx))).await.is_ok()
    }

    #[tokio::test]
    async fn half_a_preface_is_not_waited_for() {
        let mut clock = ConnectionClock::start(TIMES);
        clock.received(23);
        assert!(expires_within(&mut clock, 10_000).await);
        let mut patient = ConnectionClock::start(ConnectionTimes { preface: None, ..TIMES });
        assert!(!expires_within(&mut patient, 100).await);
    }

    #[tokio::test]
    async fn a_connection_is_idle_only_without_a_call() {
        let mut clock = ConnectionClock::start(TIMES);
        clock.received(24);
        let call = clock.activity().begin();
        assert!(!expires_within(&mut clock, 200).await, "a call is open");
        drop(call);
        assert!(expires_within(&mut clock, 10_000).await);
    }
}
