//! A running plan that its reader pulls itself.
//!
//! A plan that computes nothing – columns of a table as they lie – is not worth a task: handing each batch from one
//! thread to another costs more than finding it. Its reader polls it directly. No other task would notice then that the
//! reader has stopped, so a watchdog drops a plan whose reader stalls, with all the memory that it holds.

use crate::domain::executor::running::Running;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use futures::stream::{self, Stream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Shortest pause between two looks of the watchdog at a plan that its reader polls.
const WATCH_PAUSE_MIN: Duration = Duration::from_millis(10);

/// The state of a pulled plan.
enum State {
    /// Waiting for its reader since then.
    Idle(Box<Running>, Instant),
    /// With its reader.
    Polled,
    /// Dropped, because its reader did not come in time.
    Evicted(Error),
}

struct PulledPlan(Mutex<State>);

impl PulledPlan {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Option<Result<RecordBatch>> {
        // Taken out for the poll, so that no lock is held across it. A reader that drops this future drops the plan.
        let state = std::mem::replace(&mut *self.lock(), State::Polled);
        let mut running = match state {
            State::Idle(running, _) => running,
            State::Polled => return None,
            State::Evicted(error) => return Some(Err(error)),
        };
        let next = running.next().await.transpose()?;
        if next.is_ok() {
            *self.lock() = State::Idle(running, Instant::now());
        }
        Some(next)
    }
}

/// Returns the batches of `running`, found when they are asked for; a watchdog on `engine` keeps the time limit on its
/// reader.
pub fn pulled_stream(running: Running, engine: &Handle) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    let stall_timeout = running.stall_timeout();
    let plan = Arc::new(PulledPlan(Mutex::new(State::Idle(Box::new(running), Instant::now()))));
    if let Some(stall_timeout) = stall_timeout {
        // Weak: the watchdog must not keep the plan of a reader that has gone.
        engine.spawn(watch(Arc::downgrade(&plan), stall_timeout));
    }
    stream::unfold(plan, |plan| async move { plan.next().await.map(|next| (next, plan)) })
}

async fn watch(plan: Weak<PulledPlan>, first: Duration) {
    let mut pause = first;
    loop {
        tokio::time::sleep(pause).await;
        let Some(plan) = plan.upgrade() else { return };
        let mut state = plan.lock();
        let error = match &*state {
            // Time left until its reader has to come: to the stall limit from when it came last, or to the deadline.
            State::Idle(running, since) => match running.stall_timeout() {
                Some(stall_timeout) if since.elapsed() < stall_timeout => {
                    pause = stall_timeout - since.elapsed();
                    continue;
                }
                _ => running.stall_error(),
            },
            State::Polled => {
                pause = first.max(WATCH_PAUSE_MIN);
                continue;
            }
            State::Evicted(_) => return,
        };
        *state = State::Evicted(error);
        return;
    }
}
