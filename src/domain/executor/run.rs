//! Runs a plan on the engine's runtime and hands its batches over, one at a time.
//!
//! What is ready at once is handed over at once, and a plan that computes nothing is pulled by its reader. For the rest, the
//! task that pulls the plan and the stream that the caller polls are joined by a channel of one batch: a slow
//! reader stops the plan, a reader that goes away ends it. The end of a result is marked explicitly, so that a task
//! that dies can't be taken for one that finished.
//!
//! Invariant: a plan of the heavy lane is started, polled and dropped there, and its time limit is kept by its reader.

use crate::domain::executor::Executor;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::interrupt::{CancelOnDrop, Interrupt};
use crate::domain::executor::lane::Lane;
use crate::domain::executor::pace::paced;
use crate::domain::executor::plan::Plan;
use crate::domain::executor::pulled_stream::lent;
use crate::ports::{BatchStream, Error, ErrorKind, Result};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::future::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a running query may use.
#[derive(Debug)]
pub struct Allowance {
    /// Time it may compute.
    pub compute: Option<Duration>,
    /// Time it waits for its reader.
    pub stall: Option<Duration>,
    /// Instant by which the caller wants its last batch.
    pub deadline: Option<Instant>,
    /// What stops it.
    pub interrupt: Arc<Interrupt>,
    /// Its place among the running queries, given back when it ends.
    pub _permit: OwnedSemaphorePermit,
}

impl Allowance {
    /// Allows a query to compute for so long, to wait for its reader for so long, and to end by then.
    pub fn new(
        compute: Option<Duration>,
        stall: Option<Duration>,
        deadline: Option<Instant>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { compute, stall, deadline, interrupt: Interrupt::new(compute, deadline), _permit: permit }
    }
}

/// Ends its task when dropped.
#[derive(Debug)]
pub struct AbortOnDrop<T>(pub JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the task tells the stream.
enum Message {
    Batch(RecordBatch),
    Failed(Error),
    End,
}

impl Executor {
    /// Starts `plan` and waits for its first batch. From there on it runs by itself, as far ahead of its reader as one
    /// batch; a short answer that is whole by then needs no task of its own.
    ///
    /// # Errors
    ///
    /// Those that come before the first batch.
    pub async fn run(&self, plan: Plan, allowance: Allowance) -> Result<BatchStream> {
        match plan.lane {
            Lane::Quick => self.run_here(&plan, allowance).await,
            Lane::Heavy => self.run_on_heavy_lane(plan, allowance).await,
        }
    }

    async fn run_here(&self, plan: &Plan, allowance: Allowance) -> Result<BatchStream> {
        let schema = plan.schema.clone();
        let mut running = Running::start(plan, plan.physical.clone(), allowance)?;
        let Some(first) = running.next().await? else { return Ok(BatchStream::empty(schema)) };
        let mut ready = vec![Message::Batch(first)];
        match running.next().now_or_never() {
            Some(Ok(None)) => return Ok(BatchStream::new(schema, stream::iter(ready).filter_map(item))),
            Some(Ok(Some(batch))) => ready.push(Message::Batch(batch)),
            Some(Err(error)) => {
                ready.push(Message::Failed(error));
                return Ok(BatchStream::new(schema, stream::iter(ready).filter_map(item)));
            }
            None => {}
        }
        let ready = stream::iter(ready).filter_map(item);
        Ok(if plan.light {
            BatchStream::new(schema, ready.chain(lent(running, &self.lanes.quick)))
        } else {
            let interrupt = running.allowance.interrupt.clone();
            let (sender, receiver) = mpsc::channel(1);
            let task = self.lanes.quick.spawn(running.pump(sender));
            let reading = Reading { receiver, interrupt: CancelOnDrop(interrupt), _task: AbortOnDrop(task) };
            BatchStream::new(schema, ready.chain(reading.into_stream()))
        })
    }

    /// Everything of the plan happens there: its operators spawn their tasks on the runtime that they are started on.
    async fn run_on_heavy_lane(&self, plan: Plan, allowance: Allowance) -> Result<BatchStream> {
        let (schema, interrupt) = (plan.schema.clone(), allowance.interrupt.clone());
        let (sender, receiver) = mpsc::channel(1);
        let task = self.lanes.heavy.spawn(async move {
            let started = paced(plan.physical.clone(), &allowance.interrupt)
                .map_err(from_datafusion)
                .and_then(|paced| Running::start(&plan, paced, allowance));
            match started {
                Ok(running) => running.pump(sender).await,
                // Nobody listens any more where this fails.
                Err(error) => drop(sender.send(Message::Failed(error)).await),
            }
        });
        let mut reading = Reading { receiver, interrupt: CancelOnDrop(interrupt), _task: AbortOnDrop(task) };
        match reading.next().await {
            None => Ok(BatchStream::empty(schema)),
            Some(first) => Ok(BatchStream::new(schema, stream::iter([Ok(first?)]).chain(reading.into_stream()))),
        }
    }
}

/// The reader's end of a plan that a task pulls. Dropping it stops the plan.
struct Reading {
    receiver: mpsc::Receiver<Message>,
    interrupt: CancelOnDrop,
    _task: AbortOnDrop<()>,
}

impl Reading {
    /// The next batch. The time limit is kept here, on a thread that computes nothing, so that it is kept in time; the
    /// plan itself finds out by its interrupt.
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let interrupt = self.interrupt.0.clone();
        let message = loop {
            let Some(end) = interrupt.end() else { break self.receiver.recv().await };
            match tokio::time::timeout_at(end.into(), self.receiver.recv()).await {
                Ok(message) => break message,
                // It went on to another batch meanwhile, or waits for its reader, who is here.
                Err(_) if interrupt.end() != Some(end) => {}
                Err(_) => {
                    interrupt.cancel();
                    return Some(Err(interrupt.timed_out()));
                }
            }
        };
        match message {
            Some(Message::Batch(batch)) => Some(Ok(batch)),
            Some(Message::Failed(error)) => Some(Err(error)),
            Some(Message::End) => None,
            None => Some(Err(Error::internal("the query ended without its last batch"))),
        }
    }

    /// The rest of the batches, up to the first error.
    fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            let next = reading.next().await?;
            let rest = next.is_ok().then_some(reading);
            Some((next, rest))
        })
    }
}

async fn item(message: Message) -> Option<Result<RecordBatch>> {
    match message {
        Message::Batch(batch) => Some(Ok(batch)),
        Message::Failed(error) => Some(Err(error)),
        Message::End => None,
    }
}

/// A plan that has been started.
pub struct Running {
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    allowance: Allowance,
    computed: Duration,
}

impl Running {
    fn start(plan: &Plan, physical: Arc<dyn ExecutionPlan>, allowance: Allowance) -> Result<Self> {
        let batches = execute_stream(physical, plan.task.clone()).map_err(from_datafusion)?;
        Ok(Self { batches, schema: plan.schema.clone(), allowance, computed: Duration::ZERO })
    }

    /// How long it waits for its reader.
    pub fn patience(&self) -> Option<Duration> {
        [self.allowance.stall, remaining(&self.allowance)].into_iter().flatten().min()
    }

    /// The next batch that has rows, within the time that the query may compute.
    ///
    /// # Errors
    ///
    /// The plan's own, and `Timeout`.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            // A timer alone does not see a plan that is always ready.
            let overrun = self.allowance.compute.is_some_and(|limit| self.computed >= limit);
            if overrun || remaining(&self.allowance) == Some(Duration::ZERO) {
                return Err(self.allowance.interrupt.timed_out());
            }
            let began = Instant::now();
            self.allowance.interrupt.computing(self.computed);
            let next = within(&self.allowance, self.computed, self.batches.next()).await;
            self.computed += began.elapsed();
            self.allowance.interrupt.waiting();
            let next = next?;
            let Some(batch) = next else { return Ok(None) };
            let batch = batch.map_err(from_datafusion)?;
            if batch.num_rows() > 0 {
                return with_schema(batch, &self.schema).map(Some);
            }
        }
    }

    /// The error for a reader that did not come in time.
    pub fn impatient(&self) -> Error {
        if remaining(&self.allowance) == Some(Duration::ZERO) {
            self.allowance.interrupt.timed_out()
        } else {
            stalled()
        }
    }

    async fn pump(mut self, sender: mpsc::Sender<Message>) {
        let last = match self.send_all(&sender).await {
            Ok(()) => Message::End,
            Err(error) => Message::Failed(error),
        };
        // The reader may ask for its next query as soon as it sees the end of this one.
        drop(self);
        // Nobody listens any more where this fails.
        let _ = sender.send(last).await;
    }

    async fn send_all(&mut self, sender: &mpsc::Sender<Message>) -> Result<()> {
        while let Some(batch) = self.next().await? {
            let sending = sender.send(Message::Batch(batch));
            let sent = match self.patience() {
                Some(patience) => timeout(patience, sending).await.map_err(|_| self.impatient())?,
                None => sending.await,
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn remaining(allowance: &Allowance) -> Option<Duration> {
    allowance.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

async fn within<T>(allowance: &Allowance, computed: Duration, work: impl Future<Output = T>) -> Result<T> {
    let compute = allowance.compute.map(|limit| limit.saturating_sub(computed));
    match [compute, remaining(allowance)].into_iter().flatten().min() {
        Some(left) => timeout(left, work).await.map_err(|_| allowance.interrupt.timed_out()),
        None => Ok(work.await),
    }
}

/// The error for a reader that stopped.
fn stalled() -> Error {
    Error::new(ErrorKind::Timeout, "the client did not read its result for too long (stall_timeout_ms)")
}

/// `batch` under the schema that was promised; the columns are the same.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal("a batch did not have the schema of its plan").with_source(error))
}
