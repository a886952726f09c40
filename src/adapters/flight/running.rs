//! Queries that can be cancelled by their id.
//!
//! A ticket carries its query's id, so whoever has the FlightInfo can cancel, over any connection. A cancelled id stays
//! known for as long as its tickets would have been good, so that they are not redeemed after all.

use crate::ports::{BatchStream, Error, ErrorKind, Limits};
use futures::stream::{self, StreamExt};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Most cancelled ids that are remembered; the one that was cancelled first gives way.
const CANCELLED_MAX: usize = 10_000;

/// All queries that were asked for by a ticket with an id.
#[derive(Debug)]
pub struct Running {
    queries: Mutex<Queries>,
    ttl: Duration,
}

/// Each id is in one of the two maps, or in neither. Every operation takes constant time: ids come from strangers.
#[derive(Debug, Default)]
struct Queries {
    /// Queries with streams under way.
    running: HashMap<u128, Entry>,
    /// Ids that were cancelled while nothing of them ran, and when.
    cancelled: HashMap<u128, Instant>,
    /// The same ids in the order of their cancelling; those that are gone from the map are passed over.
    order: VecDeque<(u128, Instant)>,
}

#[derive(Debug)]
struct Entry {
    token: CancellationToken,
    /// How many streams of it are under way.
    streams: usize,
}

/// One stream of a query, for as long as it is under way.
#[derive(Debug)]
pub struct Stream {
    running: Arc<Running>,
    id: u128,
    token: CancellationToken,
}

impl Running {
    /// Nothing runs yet.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { queries: Mutex::default(), ttl: limits.ticket_ttl() })
    }

    /// A stream of query `id` begins.
    pub fn begin(self: &Arc<Self>, id: u128) -> Stream {
        let mut queries = self.lock();
        let was_cancelled = queries.cancelled.get(&id).is_some_and(|at| at.elapsed() < self.ttl);
        let entry = queries.running.entry(id).or_insert_with(Entry::new);
        entry.streams += 1;
        if was_cancelled {
            entry.token.cancel();
        }
        Stream { running: self.clone(), id, token: entry.token.clone() }
    }

    /// Stops every stream of query `id`, and those that are yet to begin.
    pub fn cancel(&self, id: u128) {
        let mut queries = self.lock();
        if let Some(entry) = queries.running.get(&id) {
            entry.token.cancel();
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

impl Entry {
    fn new() -> Self {
        Self { token: CancellationToken::new(), streams: 0 }
    }
}

impl Stream {
    /// What `work` comes to, unless the query is cancelled first.
    ///
    /// # Errors
    ///
    /// Those of `work`, and `Cancelled`.
    pub async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = crate::ports::Result<T>>,
    ) -> crate::ports::Result<T> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(cancelled()),
            done = work => done,
        }
    }

    /// The same batches, cut off where the query is cancelled.
    pub fn until_cancelled(self, batches: BatchStream) -> BatchStream {
        let schema = batches.schema();
        let batches = stream::unfold(Some((batches, self)), |running| async move {
            let (mut batches, this) = running?;
            let next = tokio::select! {
                biased;
                () = this.token.cancelled() => Some(Err(cancelled())),
                next = batches.next() => next,
            }?;
            let rest = next.is_ok().then_some((batches, this));
            Some((next, rest))
        });
        BatchStream::new(schema, batches)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut queries = self.running.lock();
        if let Some(entry) = queries.running.get_mut(&self.id) {
            entry.streams -= 1;
            if entry.streams == 0 {
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
    use crate::adapters::flight::running::Running;
    use crate::ports::{BatchStream, ErrorKind, Limits};
    use arrow::datatypes::Schema;
    use futures::{FutureExt, StreamExt, stream};
    use std::sync::Arc;

    #[test]
    fn a_cancelled_query_ends_now_and_does_not_begin_again() {
        let running = Running::new(&Limits::default());
        let endless = BatchStream::new(Arc::new(Schema::empty()), stream::pending());
        let mut batches = running.begin(1).until_cancelled(endless);
        assert!(batches.next().now_or_never().is_none());
        running.cancel(1);
        let error = batches.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(batches.next().now_or_never().unwrap().is_none());
        drop(batches);
        let again = running.begin(1).unless_cancelled(async { Ok(()) }).now_or_never().unwrap();
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Cancelled);
        running.begin(2).unless_cancelled(async { Ok(()) }).now_or_never().unwrap().unwrap();
        assert!(running.lock().running.is_empty(), "what ended is forgotten");
    }

    #[test]
    fn cancelling_what_never_ran_evicts_the_oldest_and_takes_no_time() {
        let running = Running::new(&Limits::default());
        let began = std::time::Instant::now();
        (0..200_000).for_each(|id| running.cancel(id));
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "each is a few hash look-ups");
        let is_cancelled = |id| running.begin(id).token.is_cancelled();
        assert_eq!((is_cancelled(0), is_cancelled(199_999)), (false, true));
        assert_eq!(running.lock().order.len(), super::CANCELLED_MAX);
    }
}
