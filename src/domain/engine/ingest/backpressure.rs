//! Backpressure between streams that are being staged.
//!
//! What is staged takes memory before anybody can read it. When all streams together have staged more than their limit, only
//! the oldest of them goes on; the others are not read, so that their clients have to wait. A stream that itself waits for
//! its client does not count as the oldest: a silent client stops nobody.

use crate::ports::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// All streams that are being staged.
#[derive(Debug)]
pub struct Backpressure {
    streams: Mutex<Streams>,
    changed: Notify,
    bytes_max: u64,
}

/// The streams by number: the oldest first.
#[derive(Debug, Default)]
struct Streams {
    next: u64,
    staged: BTreeMap<u64, Staged>,
}

#[derive(Debug, Default)]
struct Staged {
    bytes: u64,
    /// Whether it waits for its client.
    idle: bool,
}

/// One stream among them. Dropping it ends it.
#[derive(Debug)]
pub struct StagingSlot {
    streams: Arc<Backpressure>,
    number: u64,
}

impl Backpressure {
    /// Makes backpressure that begins at `bytes_max` staged bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { streams: Mutex::default(), changed: Notify::new(), bytes_max })
    }

    /// Begins a stream.
    pub fn acquire(self: &Arc<Self>) -> StagingSlot {
        let mut streams = self.lock();
        let number = streams.next;
        streams.next += 1;
        streams.staged.insert(number, Staged::default());
        drop(streams);
        StagingSlot { streams: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StagingSlot {
    /// Waits for what `next` brings, which is the client's time and not this stream's turn.
    pub async fn idle<T>(&self, next: impl Future<Output = T>) -> T {
        self.set_idle(true);
        let came = next.await;
        self.set_idle(false);
        came
    }

    /// Waits until this stream may take in more, up to `timeout`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where others have staged too much for all that time.
    pub async fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let Some(timeout) = timeout else {
            self.acquired().await;
            return Ok(());
        };
        tokio::time::timeout(timeout, self.acquired()).await.map_err(|_| {
            Error::limit("too much is being staged by others, and it did not become less in time (staged_bytes_max)")
        })
    }

    /// Notes what this stream has staged by now.
    pub fn staged(&self, bytes: u64) {
        if let Some(stream) = self.streams.lock().staged.get_mut(&self.number) {
            stream.bytes = bytes;
        }
    }

    async fn acquired(&self) {
        loop {
            // Made before the look: a change between look and wait is not missed.
            let changed = self.streams.changed.notified();
            if self.may_proceed() {
                return;
            }
            changed.await;
        }
    }

    fn may_proceed(&self) -> bool {
        let streams = self.streams.lock();
        let total: u64 = streams.staged.values().map(|stream| stream.bytes).sum();
        let mut at_work = streams.staged.iter().filter(|(_, stream)| stream.bytes > 0 && !stream.idle);
        total < self.streams.bytes_max || at_work.next().is_none_or(|(oldest, _)| *oldest == self.number)
    }

    fn set_idle(&self, idle: bool) {
        if let Some(stream) = self.streams.lock().staged.get_mut(&self.number) {
            stream.idle = idle;
        }
        if idle {
            self.streams.changed.notify_waiters();
        }
    }
}

impl Drop for StagingSlot {
    fn drop(&mut self) {
        self.streams.lock().staged.remove(&self.number);
        self.streams.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::engine::ingest::backpressure::Backpressure;
    use futures::FutureExt;
    use std::future::pending;

    #[test]
    fn only_the_oldest_goes_on_unless_it_waits_for_its_client() {
        let streams = Backpressure::new(100);
        let (oldest, second, third) = (streams.acquire(), streams.acquire(), streams.acquire());
        assert!(third.wait(None).now_or_never().is_some());
        oldest.staged(60);
        second.staged(50);
        third.staged(1);
        assert!(oldest.wait(None).now_or_never().is_some());
        assert!(second.wait(None).now_or_never().is_none());
        let mut silent = Box::pin(oldest.idle(pending::<()>()));
        assert!(silent.as_mut().now_or_never().is_none());
        assert!(second.wait(None).now_or_never().is_some());
        assert!(third.wait(None).now_or_never().is_none());
        drop(silent);
        drop(oldest);
        assert!(third.wait(None).now_or_never().is_some(), "there is room again");
    }
}
