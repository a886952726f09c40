//! Turns of streams that are being staged.
//!
//! What is staged takes memory before anybody can read it. When all streams together have staged more than their budget,
//! only the oldest that has staged anything goes on; the others are not read, and their clients feel it as backpressure.
//! The oldest may itself be waiting for its client, so whoever waits for a turn does so for a limited time.

use crate::ports::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// All streams that are being staged.
#[derive(Debug)]
pub struct Turns {
    streams: Mutex<Streams>,
    freed: Notify,
    bytes_max: u64,
}

/// Bytes that each stream has staged, by number: the oldest first.
#[derive(Debug, Default)]
struct Streams {
    next: u64,
    staged: BTreeMap<u64, u64>,
}

/// One stream among them. Dropping it ends it.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    /// Turns within `bytes_max` staged bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { streams: Mutex::default(), freed: Notify::new(), bytes_max })
    }

    /// A stream begins.
    pub fn begin(self: &Arc<Self>) -> Turn {
        let mut streams = self.lock();
        let number = streams.next;
        streams.next += 1;
        streams.staged.insert(number, 0);
        drop(streams);
        Turn { turns: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until this stream may take in more, up to `patience`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where its turn does not come in time.
    pub async fn wait(&self, patience: Option<Duration>) -> Result<()> {
        let Some(patience) = patience else {
            self.come().await;
            return Ok(());
        };
        tokio::time::timeout(patience, self.come()).await.map_err(|_| {
            Error::limit("too much is being staged by others, and it did not become less in time (staged_bytes_max)")
        })
    }

    async fn come(&self) {
        loop {
            let freed = self.turns.freed.notified();
            if self.has_come() {
                return;
            }
            freed.await;
        }
    }

    fn has_come(&self) -> bool {
        let streams = self.turns.lock();
        let total: u64 = streams.staged.values().sum();
        let oldest = streams.staged.iter().find(|(_, bytes)| **bytes > 0).map(|(number, _)| *number);
        total < self.turns.bytes_max || oldest == Some(self.number)
    }

    /// Notes what this stream has staged by now.
    pub fn staged(&self, bytes: u64) {
        self.turns.lock().staged.insert(self.number, bytes);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().staged.remove(&self.number);
        self.turns.freed.notify_waiters();
    }
}
