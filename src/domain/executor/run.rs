//! Runs a plan on the engine's runtime and hands its batches over, one at a time.
//!
//! What is ready at once is handed over at once, and a plan that computes nothing is pulled by its reader. For the rest, the
//! task that pulls the plan and the stream that the caller polls are joined by a channel of one batch: a slow
//! reader stops the plan, a reader that goes away ends it. The end of a result is said in so many words, so that a task
//! that dies can't be taken for one that finished.

use crate::domain::executor::Executor;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::lent::lent;
use crate::domain::executor::plan::Plan;
use crate::ports::{BatchStream, Error, ErrorKind, Result};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use futures::future::FutureExt;
use futures::stream::{self, Stream, StreamExt};
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
    /// Its place among the running queries, given back when it ends.
    pub _permit: OwnedSemaphorePermit,
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
    /// batch; an answer that is whole by then needs no task of its own.
    ///
    /// # Errors
    ///
    /// Those that come before the first batch.
    pub async fn run(&self, plan: Plan, allowance: Allowance) -> Result<BatchStream> {
        let schema = plan.schema.clone();
        let mut running = Running::start(&plan, allowance)?;
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
            BatchStream::new(schema, ready.chain(lent(running, &self.engine)))
        } else {
            BatchStream::new(schema, ready.chain(self.pumped(running)))
        })
    }

    /// The rest of a running plan, pulled by a task on the engine.
    fn pumped(&self, running: Running) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        let (sender, receiver) = mpsc::channel(1);
        let task = self.engine.spawn(running.pump(sender));
        stream::unfold(Some((receiver, AbortOnDrop(task))), |reading| async move {
            let (mut receiver, task) = reading?;
            match receiver.recv().await {
                Some(Message::Batch(batch)) => Some((Ok(batch), Some((receiver, task)))),
                Some(Message::Failed(error)) => Some((Err(error), None)),
                Some(Message::End) => None,
                None => Some((Err(Error::internal("the query ended without its last batch")), None)),
            }
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
    fn start(plan: &Plan, allowance: Allowance) -> Result<Self> {
        let batches = execute_stream(plan.physical.clone(), plan.task.clone()).map_err(from_datafusion)?;
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
                return Err(timed_out(&self.allowance));
            }
            let began = Instant::now();
            let next = within(&self.allowance, self.computed, self.batches.next()).await?;
            self.computed += began.elapsed();
            let Some(batch) = next else { return Ok(None) };
            let batch = batch.map_err(from_datafusion)?;
            if batch.num_rows() > 0 {
                return with_schema(batch, &self.schema).map(Some);
            }
        }
    }

    /// The error for a reader that did not come in time.
    pub fn impatient(&self) -> Error {
        if remaining(&self.allowance) == Some(Duration::ZERO) { timed_out(&self.allowance) } else { stalled() }
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
        Some(left) => timeout(left, work).await.map_err(|_| timed_out(allowance)),
        None => Ok(work.await),
    }
}

fn timed_out(allowance: &Allowance) -> Error {
    let text = match (remaining(allowance), allowance.compute) {
        (Some(Duration::ZERO), _) => "the query did not finish in the time that its caller gave it".to_owned(),
        (_, Some(limit)) => format!("the query computed for {} ms (query_timeout_ms)", limit.as_millis()),
        _ => "the query timed out".to_owned(),
    };
    Error::new(ErrorKind::Timeout, text)
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
