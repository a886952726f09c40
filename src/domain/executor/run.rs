//! Runs a plan on the engine's runtime and hands its batches over, one at a time.
//!
//! The task that pulls the plan and the stream that the caller polls are joined by a channel of one batch: a slow
//! reader stops the plan, a reader that goes away ends it. The end of a result is said in so many words, so that a task
//! that dies can't be taken for one that finished.

use crate::domain::executor::Executor;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::plan::Plan;
use crate::ports::{BatchStream, Error, ErrorKind, Result};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::{ExecutionPlanProperties, execute_stream};
use futures::stream::{self, StreamExt};
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
    /// Starts `plan`. It runs as far ahead of its reader as one batch.
    pub fn run(&self, plan: Plan, allowance: Allowance) -> BatchStream {
        let schema = plan.schema.clone();
        let (sender, receiver) = mpsc::channel(1);
        let task = self.engine.spawn(async move {
            let last = match pump(plan, &allowance, &sender).await {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            // The reader may ask for its next query as soon as it sees the end of this one.
            drop(allowance);
            // Nobody listens any more where this fails.
            let _ = sender.send(last).await;
        });
        let reading = Some((receiver, AbortOnDrop(task)));
        let batches = stream::unfold(reading, |reading| async move {
            let (mut receiver, task) = reading?;
            match receiver.recv().await {
                Some(Message::Batch(batch)) => Some((Ok(batch), Some((receiver, task)))),
                Some(Message::Failed(error)) => Some((Err(error), None)),
                Some(Message::End) => None,
                None => Some((Err(Error::internal("the query ended without its last batch")), None)),
            }
        });
        BatchStream::new(schema, batches)
    }
}

async fn pump(plan: Plan, allowance: &Allowance, sender: &mpsc::Sender<Message>) -> Result<()> {
    let schema = plan.schema.clone();
    let mut batches = start(&plan)?;
    let mut computed = Duration::ZERO;
    loop {
        let began = Instant::now();
        let next = within(allowance, computed, batches.next()).await?;
        computed += began.elapsed();
        let Some(batch) = next else { return Ok(()) };
        let batch = batch.map_err(from_datafusion)?;
        if batch.num_rows() == 0 {
            continue;
        }
        let sending = sender.send(Message::Batch(with_schema(batch, &schema)?));
        let patience = [allowance.stall, remaining(allowance)].into_iter().flatten().min();
        let sent = match patience {
            Some(patience) => timeout(patience, sending).await.map_err(|_| stalled(allowance))?,
            None => sending.await,
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

/// All partitions as one stream: one after the other where order matters, as they come where it does not.
fn start(plan: &Plan) -> Result<SendableRecordBatchStream> {
    let partitions = plan.physical.output_partitioning().partition_count();
    if !plan.ordered || partitions <= 1 {
        return execute_stream(plan.physical.clone(), plan.task.clone()).map_err(from_datafusion);
    }
    let parts = (0..partitions)
        .map(|partition| plan.physical.execute(partition, plan.task.clone()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(from_datafusion)?;
    let schema = plan.physical.schema();
    let chained = stream::iter(parts).flatten();
    Ok(Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, chained)))
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

fn stalled(allowance: &Allowance) -> Error {
    if remaining(allowance) == Some(Duration::ZERO) {
        return timed_out(allowance);
    }
    Error::new(ErrorKind::Timeout, "the client did not read its result for too long (stall_timeout_ms)")
}

/// `batch` under the schema that was promised; the columns are the same.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal("a batch did not have the schema of its plan").with_source(error))
}
