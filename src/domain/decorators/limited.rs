//! Limits on queries, over any implementation of the ports: how many compute at the same time, and for how long.
//!
//! A place is for computing. A stream takes one while it looks for its next batch and gives it back while its client reads,
//! so a client that does not read keeps nobody out. Who finds no place waits for a moment, and is refused after that. One
//! peer cannot take all places: some are kept for the others.

use crate::ports::{
    BatchStream, Caller, Description, Error, ErrorKind, Limits, Query, QueryPort, Reply, Result, SnapshotId, TableInfo,
};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a statement waits for a place before it is refused.
const QUEUE: Duration = Duration::from_secs(2);

/// A query port that keeps `query_concurrency_max` and `query_timeout_ms`.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn QueryPort>,
    places: Arc<Places>,
    compute: Option<Duration>,
}

/// The places of statements that compute.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<HashMap<String, u64>>,
    places_max: u64,
}

/// One place, given back when dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    peer: String,
    _permit: OwnedSemaphorePermit,
}

impl Limited {
    /// Puts limits before `inner`.
    pub fn new(inner: Arc<dyn QueryPort>, limits: &Limits) -> Self {
        let places_max = limits.query_concurrency_max.min(Semaphore::MAX_PERMITS as u64);
        let free = Arc::new(Semaphore::new(usize::try_from(places_max).unwrap_or(Semaphore::MAX_PERMITS)));
        let compute = (limits.query_timeout_ms > 0).then(|| Duration::from_millis(limits.query_timeout_ms));
        Self { inner, places: Arc::new(Places { free, taken: Mutex::default(), places_max }), compute }
    }
}

impl Places {
    /// Takes a place for a statement that begins, within the time that it may wait.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where none is free in time, or where its peer has too many already.
    async fn take_first(self: &Arc<Self>, peer: &str) -> Result<Place> {
        let busy =
            || Error::limit(format!("{} queries are computing already (query_concurrency_max)", self.places_max));
        let place = tokio::time::timeout(QUEUE, self.take(peer)).await.map_err(|_| busy())??;
        // Counted before it is compared: of two that take the last one of a share at once, one is refused.
        let own = self.lock().get(peer).copied().unwrap_or_default();
        if !peer.is_empty() && own > self.share() { Err(busy()) } else { Ok(place) }
    }

    /// Takes a place once one is free.
    async fn take(self: &Arc<Self>, peer: &str) -> Result<Place> {
        let permit = self.free.clone().acquire_owned().await.map_err(|_| Error::stopping())?;
        *self.lock().entry(peer.to_owned()).or_default() += 1;
        Ok(Place { places: self.clone(), peer: peer.to_owned(), _permit: permit })
    }

    /// Returns how many places one peer may take: all but an eighth.
    fn share(&self) -> u64 {
        self.places_max - self.places_max / 8
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// The batches of a statement, each of them computed in a place.
struct Metered {
    batches: BatchStream,
    places: Arc<Places>,
    peer: String,
    left: Option<Duration>,
}

impl Metered {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let place = match self.places.take(&self.peer).await {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let began = Instant::now();
        let next = match self.left {
            None => self.batches.next().await,
            Some(left) => match tokio::time::timeout(left, self.batches.next()).await {
                Ok(next) => next,
                Err(_) => Some(Err(timed_out())),
            },
        };
        self.left = self.left.map(|left| left.saturating_sub(began.elapsed()));
        drop(place);
        next
    }
}

fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the query computed for too long (query_timeout_ms)")
}

impl Limited {
    /// Waits for `starting`, no longer than a query may compute; returns its reply and the time that is left.
    async fn within<T>(&self, starting: impl Future<Output = Result<T>>) -> Result<(T, Option<Duration>)> {
        let Some(compute) = self.compute else { return Ok((starting.await?, None)) };
        let began = Instant::now();
        let started = tokio::time::timeout(compute, starting).await.unwrap_or_else(|_| Err(timed_out()))?;
        Ok((started, Some(compute.saturating_sub(began.elapsed()))))
    }

    /// Has the batches of `reply` computed in places.
    fn metered(&self, reply: Reply, peer: String, left: Option<Duration>) -> Reply {
        let schema = reply.batches.schema();
        let metered = Metered { batches: reply.batches, places: self.places.clone(), peer, left };
        let batches = stream::unfold(Some(metered), |metered| async move {
            let mut metered = metered?;
            let next = metered.next().await?;
            let rest = next.is_ok().then_some(metered);
            Some((next, rest))
        });
        Reply { kind: reply.kind, batches: BatchStream::new(schema, batches) }
    }
}

#[async_trait]
impl QueryPort for Limited {
    async fn describe(&self, query: Query) -> Result<Description> {
        self.inner.describe(query).await
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let peer = query.caller.peer.clone();
        let place = self.places.take_first(&peer).await?;
        let (reply, left) = self.within(self.inner.query(query)).await?;
        drop(place);
        Ok(self.metered(reply, peer, left))
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        // The input comes as fast as its client sends it, which is neither this statement's time nor a place's.
        let peer = query.caller.peer.clone();
        let reply = self.inner.exchange(query, input).await?;
        Ok(self.metered(reply, peer, self.compute))
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        self.inner.snapshot(caller).await
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        self.inner.tables(caller).await
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        self.inner.table(name, caller).await
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::decorators::limited::Places;
    use crate::ports::ErrorKind;
    use std::sync::{Arc, Mutex};
    use tokio::sync::Semaphore;

    fn places(count: u64) -> Arc<Places> {
        let free = Arc::new(Semaphore::new(usize::try_from(count).unwrap()));
        Arc::new(Places { free, taken: Mutex::default(), places_max: count })
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_a_moment() {
        let places = places(1);
        let place = places.take_first("a").await.unwrap();
        let refused = places.take_first("b").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take_first("b").await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(place);
        waiting.await.unwrap().unwrap();
        assert!(places.lock().is_empty(), "what was taken is given back");
    }

    #[tokio::test]
    async fn one_peer_leaves_places_to_others() {
        let places = places(16);
        let mut taken = Vec::new();
        for _ in 0..14 {
            taken.push(places.take_first("a").await.unwrap());
        }
        assert_eq!(places.take_first("a").await.unwrap_err().kind(), ErrorKind::LimitExceeded);
        taken.push(places.take_first("b").await.unwrap());
        taken.push(places.take_first("").await.unwrap());
        assert_eq!(places.free.available_permits(), 0);
    }
}
