//! A running plan that its reader pulls itself.
//!
//! A plan that computes nothing – columns of a table as they lie – is not worth a task: handing each batch from one
//! thread to another costs more than finding it. Its reader polls it directly. Nobody else would notice then that the
//! reader has stopped, so a watchman looks from time to time, and takes the plan away with all that it holds.

use crate::domain::executor::run::Running;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use futures::stream::{self, Stream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Where the plan is.
enum Place {
    /// Here since then, waiting for its reader.
    Here(Box<Running>, Instant),
    /// With its reader.
    Away,
    /// Taken from a reader that did not come in time.
    Taken(Error),
}

struct Lent(Mutex<Place>);

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Option<Result<RecordBatch>> {
        let place = std::mem::replace(&mut *self.lock(), Place::Away);
        let mut running = match place {
            Place::Here(running, _) => running,
            Place::Away => return None,
            Place::Taken(error) => return Some(Err(error)),
        };
        let next = running.next().await.transpose()?;
        if next.is_ok() {
            *self.lock() = Place::Here(running, Instant::now());
        }
        Some(next)
    }
}

/// The batches of `running`, found when they are asked for; a watchman on `engine` keeps the time limit on its reader.
pub fn lent(running: Running, engine: &Handle) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    let patience = running.patience();
    let lent = Arc::new(Lent(Mutex::new(Place::Here(Box::new(running), Instant::now()))));
    if let Some(patience) = patience {
        engine.spawn(watch(Arc::downgrade(&lent), patience));
    }
    stream::unfold(lent, |lent| async move { lent.next().await.map(|next| (next, lent)) })
}

async fn watch(lent: Weak<Lent>, first: Duration) {
    let mut pause = first;
    loop {
        tokio::time::sleep(pause).await;
        let Some(lent) = lent.upgrade() else { return };
        let mut place = lent.lock();
        let error = match &*place {
            // Time left until its reader has to come: to the stall limit from when it came last, or to the deadline.
            Place::Here(running, since) => match running.patience() {
                Some(patience) if since.elapsed() < patience => {
                    pause = patience - since.elapsed();
                    continue;
                }
                _ => running.impatient(),
            },
            Place::Away => {
                pause = first.max(Duration::from_millis(10));
                continue;
            }
            Place::Taken(_) => return,
        };
        *place = Place::Taken(error);
        return;
    }
}
