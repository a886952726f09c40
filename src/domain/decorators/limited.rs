//! Limits on queries, over any implementation of the ports: how many compute at the same time, and for how long.
//!
//! A permit is for computing. A stream takes one while it looks for its next batch and gives it back while its client reads,
//! so a client that does not read keeps nobody out, and a batch that is there already needs none. Who finds no permit waits
//! for a moment, and is refused after that. One peer never has all permits: some are kept for the others.
//!
//! An engine knows better what its queries compute, and keeps `query_timeout_ms` more exactly; here it holds for a gateway.

use crate::ports::{
    BatchStream, Caller, Description, Error, ErrorKind, Limits, Query, QueryPort, Reply, Result, SnapshotId, TableInfo,
};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long a statement waits for a permit before it is refused.
const QUEUE: Duration = Duration::from_secs(2);

/// A query port that keeps `query_concurrency_max` and `query_timeout_ms`.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn QueryPort>,
    permits: Arc<Permits>,
    compute: Option<Duration>,
}

/// The permits of statements that compute.
#[derive(Debug)]
struct Permits {
    all: Arc<Semaphore>,
    /// What is left of its share to each peer that has or waits for a permit.
    peers: Mutex<HashMap<String, Arc<Semaphore>>>,
    permits_max: usize,
}

/// One permit, given back when dropped.
#[derive(Debug)]
struct Permit {
    permits: Arc<Permits>,
    peer: String,
    // Both go before the peer's entry is looked at.
    held: Option<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit)>,
}

impl Limited {
    /// Puts limits before `inner`.
    pub fn new(inner: Arc<dyn QueryPort>, limits: &Limits) -> Self {
        let permits = usize::try_from(limits.query_concurrency_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let compute = (limits.query_timeout_ms > 0).then(|| Duration::from_millis(limits.query_timeout_ms));
        Self { inner, permits: Permits::new(permits), compute }
    }

    /// Waits for `starting`, no longer than a query may compute; returns its reply and the time that is left.
    async fn within<T>(&self, starting: impl Future<Output = Result<T>>) -> Result<(T, Option<Duration>)> {
        let Some(compute) = self.compute else { return Ok((starting.await?, None)) };
        let began = Instant::now();
        let started = tokio::time::timeout(compute, starting).await.unwrap_or_else(|_| Err(timed_out()))?;
        Ok((started, Some(compute.saturating_sub(began.elapsed()))))
    }

    /// Has the batches of `reply` computed under permits.
    fn permitted(&self, reply: Reply, peer: String, left: Option<Duration>) -> Reply {
        let schema = reply.batches.schema();
        let permitted = PermittedBatches { batches: reply.batches, permits: self.permits.clone(), peer, left };
        let batches = stream::unfold(Some(permitted), |permitted| async move {
            let mut permitted = permitted?;
            let next = permitted.next().await?;
            let rest = next.is_ok().then_some(permitted);
            Some((next, rest))
        });
        Reply { kind: reply.kind, batches: BatchStream::new(schema, batches) }
    }
}

impl Permits {
    fn new(permits_max: usize) -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(permits_max)), peers: Mutex::default(), permits_max })
    }

    /// Takes a permit, within the time that a statement waits for one.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where none is free in time.
    async fn take(self: &Arc<Self>, peer: &str, wait: Duration) -> Result<Permit> {
        let busy =
            |_| Error::limit(format!("{} queries are computing already (query_concurrency_max)", self.permits_max));
        tokio::time::timeout(wait, self.acquire(peer)).await.map_err(busy)?
    }

    async fn acquire(self: &Arc<Self>, peer: &str) -> Result<Permit> {
        let mut permit = Permit { permits: self.clone(), peer: peer.to_owned(), held: None };
        let closed = |_| Error::stopping();
        // The share first: who waits for its own keeps nobody else's.
        let own = match peer {
            "" => None,
            peer => Some(self.share_of(peer).acquire_owned().await.map_err(closed)?),
        };
        permit.held = Some((own, self.all.clone().acquire_owned().await.map_err(closed)?));
        Ok(permit)
    }

    /// Returns what is left of a peer's share, which is all permits but an eighth.
    fn share_of(&self, peer: &str) -> Arc<Semaphore> {
        let share = (self.permits_max - self.permits_max / 8).max(1);
        self.lock().entry(peer.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(share))).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut peers = self.permits.lock();
        // Nobody else has or waits for a permit of this peer.
        if peers.get(&self.peer).is_some_and(|share| Arc::strong_count(share) == 1) {
            peers.remove(&self.peer);
        }
    }
}

/// The batches of a statement, each of them computed under a permit.
struct PermittedBatches {
    batches: BatchStream,
    permits: Arc<Permits>,
    peer: String,
    /// Time that it may still compute.
    left: Option<Duration>,
}

impl PermittedBatches {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if let Some(next) = self.batches.next().now_or_never() {
            return next;
        }
        let permit = match self.permits.take(&self.peer, self.left.unwrap_or(Duration::MAX)).await {
            Ok(permit) => permit,
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
        drop(permit);
        next
    }
}

/// The computing of an exchange, which begins when its input has ended.
#[derive(Debug, Default)]
struct Computing {
    permit: Mutex<Option<Permit>>,
    began: Notify,
}

impl Computing {
    fn permit(&self) -> MutexGuard<'_, Option<Permit>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes `input` on, and takes a permit for `computing` when it ends.
fn then_permit(input: BatchStream, permits: Arc<Permits>, peer: String, computing: Arc<Computing>) -> BatchStream {
    let schema = input.schema();
    let batches = stream::unfold(Some(input), move |input| {
        let (permits, peer, computing) = (permits.clone(), peer.clone(), computing.clone());
        async move {
            let mut input = input?;
            match input.next().await {
                Some(next) => Some((next, Some(input))),
                None => match permits.take(&peer, QUEUE).await {
                    Ok(permit) => {
                        *computing.permit() = Some(permit);
                        computing.began.notify_one();
                        None
                    }
                    Err(error) => Some((Err(error), None)),
                },
            }
        }
    });
    BatchStream::new(schema, batches)
}

fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the query computed for too long (query_timeout_ms)")
}

#[async_trait]
impl QueryPort for Limited {
    async fn describe(&self, query: Query) -> Result<Description> {
        // Planning computes as well.
        let _permit = self.permits.take(&query.caller.peer, QUEUE).await?;
        Ok(self.within(self.inner.describe(query)).await?.0)
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let peer = query.caller.peer.clone();
        let permit = self.permits.take(&peer, QUEUE).await?;
        let (reply, left) = self.within(self.inner.query(query)).await?;
        drop(permit);
        Ok(self.permitted(reply, peer, left))
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        // While the input arrives nothing is computed, and the clock does not run.
        let (peer, computing) = (query.caller.peer.clone(), Arc::<Computing>::default());
        let input = then_permit(input, self.permits.clone(), peer.clone(), computing.clone());
        let overrun = async {
            computing.began.notified().await;
            match self.compute {
                Some(compute) => tokio::time::sleep(compute).await,
                None => std::future::pending().await,
            }
        };
        let reply = tokio::select! {
            reply = self.inner.exchange(query, input) => reply,
            () = overrun => Err(timed_out()),
        };
        drop(computing.permit().take());
        Ok(self.permitted(reply?, peer, self.compute))
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
    use crate::domain::decorators::limited::Permits;
    use crate::ports::ErrorKind;
    use std::time::Duration;

    const MOMENT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_finds_no_permit_waits_for_a_moment() {
        let permits = Permits::new(1);
        let permit = permits.take("a", MOMENT).await.unwrap();
        let refused = permits.take("b", MOMENT).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        let waiting = tokio::spawn({
            let permits = permits.clone();
            async move { permits.take("b", LONG).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(permit);
        waiting.await.unwrap().unwrap();
        assert!(permits.lock().is_empty(), "nothing is remembered of peers without a permit");
        assert_eq!(permits.all.available_permits(), 1);
    }

    #[tokio::test]
    async fn one_peer_leaves_permits_to_others() {
        let permits = Permits::new(16);
        let mut taken = Vec::new();
        for _ in 0..14 {
            taken.push(permits.take("a", MOMENT).await.unwrap());
        }
        assert_eq!(permits.take("a", MOMENT).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
        taken.push(permits.take("b", MOMENT).await.unwrap());
        taken.push(permits.take("", MOMENT).await.unwrap());
        assert_eq!(permits.all.available_permits(), 0);
    }
}
