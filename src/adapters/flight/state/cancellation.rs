//! The registry of queries that can be cancelled by their id.
//!
//! A ticket carries its query's id, so any client that has the FlightInfo can cancel, over any connection. A cancelled
//! id stays known for as long as its tickets would have been valid, so that they cannot be redeemed afterwards.

use crate::adapters::serving::{or_cancelled, until_cancelled};
use crate::ports::{BatchStream, Error, ErrorKind, Limits, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Most cancelled ids that are kept; beyond it the one that was cancelled first is dropped.
const CANCELLED_MAX: usize = 10_000;

/// All queries that were requested by a ticket with an id.
#[derive(Debug)]
pub struct CancellationRegistry {
    queries: Mutex<Queries>,
    ttl: Duration,
}

/// Running queries and cancelled ids. Every operation takes constant time: ids come from unknown clients.
#[derive(Debug, Default)]
struct Queries {
    /// Queries with running streams.
    running: HashMap<u128, RunningQuery>,
    /// Ids that were cancelled, and when.
    cancelled: HashMap<u128, Instant>,
    /// The same ids in the order of their cancellation.
    order: VecDeque<(u128, Instant)>,
}

#[derive(Debug)]
struct RunningQuery {
    token: CancellationToken,
    /// Number of its running streams.
    streams: usize,
}

/// One running stream of a query. Dropping it removes it from the registry.
#[derive(Debug)]
pub struct CancellableStream {
    registry: Arc<CancellationRegistry>,
    id: u128,
    token: CancellationToken,
}

impl CancellationRegistry {
    /// Creates an empty registry.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { queries: Mutex::default(), ttl: limits.ticket_ttl() })
    }

    /// Registers a stream of query `id`. It is cancelled at once if the query was cancelled before.
    pub fn register(self: &Arc<Self>, id: u128) -> CancellableStream {
        let mut queries = self.lock();
        let was_cancelled = queries.cancelled.get(&id).is_some_and(|at| at.elapsed() < self.ttl);
        let query = queries.running.entry(id).or_insert_with(RunningQuery::new);
        query.streams += 1;
        if was_cancelled {
            query.token.cancel();
        }
        CancellableStream { registry: self.clone(), id, token: query.token.clone() }
    }

    /// Cancels every stream of query `id`, and those that are registered later.
    pub fn cancel(&self, id: u128) {
        let mut queries = self.lock();
        if let Some(query) = queries.running.get(&id) {
            query.token.cancel();
        }
        let now = Instant::now();
        if queries.cancelled.insert(id, now).is_none() {
            queries.order.push_back((id, now));
        }
        while queries.order.len() > CANCELLED_MAX
            || queries.order.front().is_some_and(|(_, at)| at.elapsed() >= self.ttl)
        {
            if let Some((oldest, _)) = queries.order.pop_front() {
                queries.cancelled.remove(&oldest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queries> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningQuery {
    fn new() -> Self {
        Self { token: CancellationToken::new(), streams: 0 }
    }
}

impl CancellableStream {
    /// Runs `work` until it ends or the query is cancelled.
    ///
    /// # Errors
    ///
    /// Those of `work`, and `Cancelled`.
    pub async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        or_cancelled(&self.token, cancelled, work).await
    }

    /// Passes `batches` on until they end or the query is cancelled; then the last item is `Cancelled`.
    pub fn until_cancelled(self, batches: BatchStream) -> BatchStream {
        let token = self.token.clone();
        // The stream stays registered until its last batch.
        until_cancelled(batches, token, self, cancelled)
    }
}

impl Drop for CancellableStream {
    fn drop(&mut self) {
        let mut queries = self.registry.lock();
        if let Some(query) = queries.running.get_mut(&self.id) {
            query.streams -= 1;
            if query.streams == 0 {
                queries.running.remove(&self.id);
            }
        }
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the query was cancelled")
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::state::cancellation::CancellationRegistry;
    use crate::ports::{BatchStream, ErrorKind, Limits};
    use arrow::datatypes::Schema;
    use futures::{FutureExt, StreamExt, stream};
    use std::sync::Arc;

    #[test]
    fn a_cancelled_query_ends_now_and_does_not_begin_again() {
        let registry = CancellationRegistry::new(&Limits::default());
        let endless = BatchStream::new(Arc::new(Schema::empty()), stream::pending());
        let mut batches = registry.register(1).until_cancelled(endless);
        assert!(batches.next().now_or_never().is_none());
        registry.cancel(1);
        let error = batches.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(batches.next().now_or_never().unwrap().is_none());
        drop(batches);
        let again = registry.register(1).or_cancelled(async { Ok(()) }).now_or_never().unwrap();
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Cancelled);
        registry.register(2).or_cancelled(async { Ok(()) }).now_or_never().unwrap().unwrap();
        assert!(registry.lock().running.is_empty(), "what ended is forgotten");
    }

    #[test]
    fn cancelling_what_never_ran_evicts_the_oldest_and_takes_no_time() {
        let registry = CancellationRegistry::new(&Limits::default());
        let began = std::time::Instant::now();
        (0..200_000).for_each(|id| registry.cancel(id));
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "each is a few hash look-ups");
        let is_cancelled = |id| registry.register(id).token.is_cancelled();
        assert_eq!((is_cancelled(0), is_cancelled(199_999)), (false, true));
        assert_eq!(registry.lock().order.len(), super::CANCELLED_MAX);
    }
}
