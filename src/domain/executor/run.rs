//! Runs a plan on the engine's runtime and hands its batches over, one at a time.
//!
//! What is ready at once is handed over at once, and a plan that computes nothing is pulled by its reader. For the
//! rest, the task that pulls the plan and the stream that the caller polls are joined by a channel of one batch: a slow
//! reader stops the plan, a reader that goes away ends it. The end of a result is marked explicitly, so that a task
//! that dies cannot be taken for one that finished.
//!
//! Invariant: a plan of the heavy lane is started, polled and dropped there, and its time limit is kept by its reader.

use crate::domain::executor::Executor;
use crate::domain::executor::abort_on_drop::AbortOnDrop;
use crate::domain::executor::bind::BoundPlan;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::interrupt::CancelOnDrop;
use crate::domain::executor::lane::Lane;
use crate::domain::executor::pace::with_pacing;
use crate::domain::executor::pulled_stream::pulled_stream;
use crate::domain::executor::running::{QueryLimits, Running, TaskOutput};
use crate::ports::{BatchStream, Error, Result};
use arrow::array::RecordBatch;
use futures::future::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often a reader looks whether the plan that it waits for has a time limit by now.
const LOOK: Duration = Duration::from_millis(100);

impl Executor {
    /// Starts `plan` and waits for its first batch. From there on it runs by itself, as far ahead of its reader as one
    /// batch; a short answer that is whole by then needs no task of its own.
    ///
    /// # Errors
    ///
    /// Those that come before the first batch.
    pub async fn run(&self, plan: BoundPlan, limits: QueryLimits) -> Result<BatchStream> {
        match plan.lane {
            Lane::Quick => self.run_on_this_task(&plan, limits).await,
            Lane::Heavy => self.run_on_heavy_lane(plan, limits).await,
        }
    }

    async fn run_on_this_task(&self, plan: &BoundPlan, limits: QueryLimits) -> Result<BatchStream> {
        let schema = plan.schema.clone();
        let mut running = Running::start(plan, plan.physical.clone(), limits)?;
        let Some(first) = running.next().await? else { return Ok(BatchStream::empty(schema)) };
        let mut ready = vec![Ok(first)];
        // One look without waiting: most short answers end here.
        match running.next().now_or_never() {
            Some(Ok(None)) => return Ok(BatchStream::new(schema, stream::iter(ready))),
            Some(Ok(Some(batch))) => ready.push(Ok(batch)),
            Some(Err(error)) => {
                ready.push(Err(error));
                return Ok(BatchStream::new(schema, stream::iter(ready)));
            }
            None => {}
        }
        let ready = stream::iter(ready);
        Ok(if plan.passthrough {
            BatchStream::new(schema, ready.chain(pulled_stream(running, &self.lanes.quick)))
        } else {
            let interrupt = running.interrupt();
            let (sender, receiver) = mpsc::channel(1);
            let task = self.lanes.quick.spawn(running.pump(sender));
            let reader = TaskReader { receiver, interrupt: CancelOnDrop(interrupt), _task: AbortOnDrop(task) };
            BatchStream::new(schema, ready.chain(reader.into_stream()))
        })
    }

    /// Starts `plan` on the heavy lane: operators spawn their tasks on the runtime that they are started on.
    async fn run_on_heavy_lane(&self, plan: BoundPlan, limits: QueryLimits) -> Result<BatchStream> {
        let (schema, interrupt) = (plan.schema.clone(), limits.interrupt.clone());
        let (sender, receiver) = mpsc::channel(1);
        let task = self.lanes.heavy.spawn(async move {
            let started = with_pacing(plan.physical.clone(), &limits.interrupt)
                .map_err(from_datafusion)
                .and_then(|paced| Running::start(&plan, paced, limits));
            match started {
                Ok(running) => running.pump(sender).await,
                // This fails only if the reader has gone.
                Err(error) => drop(sender.send(TaskOutput::Failed(error)).await),
            }
        });
        let mut reader = TaskReader { receiver, interrupt: CancelOnDrop(interrupt), _task: AbortOnDrop(task) };
        match reader.next().await {
            None => Ok(BatchStream::empty(schema)),
            Some(first) => Ok(BatchStream::new(schema, stream::iter([Ok(first?)]).chain(reader.into_stream()))),
        }
    }
}

/// The reader's end of a plan that a task pulls. Dropping it stops the plan.
struct TaskReader {
    receiver: mpsc::Receiver<TaskOutput>,
    interrupt: CancelOnDrop,
    _task: AbortOnDrop<()>,
}

impl TaskReader {
    /// Returns the next batch. The time limit is kept here, on a thread that computes nothing, so that it is kept in
    /// time; the plan itself finds out by its interrupt.
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let interrupt = self.interrupt.0.clone();
        let output = loop {
            // While the plan waits for its reader, or for a thread, there may be no end yet; there is one once it computes.
            let end = interrupt.end();
            let until = end.unwrap_or_else(|| Instant::now() + LOOK);
            match tokio::time::timeout_at(until.into(), self.receiver.recv()).await {
                Ok(output) => break output,
                // The end has moved: the plan went on to another batch, or waits for its reader, who is here.
                Err(_) if end.is_none() || interrupt.end() != end => {}
                Err(_) => {
                    interrupt.cancel();
                    return Some(Err(interrupt.timed_out()));
                }
            }
        };
        match output {
            Some(TaskOutput::Batch(batch)) => Some(Ok(batch)),
            Some(TaskOutput::Failed(error)) => Some(Err(error)),
            Some(TaskOutput::End) => None,
            None => Some(Err(Error::internal("the query ended without its last batch"))),
        }
    }

    /// Returns the rest of the batches, up to the first error.
    fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            let next = reader.next().await?;
            let rest = next.is_ok().then_some(reader);
            Some((next, rest))
        })
    }
}
