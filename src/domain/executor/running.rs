//! A plan that has been started: it pulls batches and keeps the limits of its query.
//!
//! Invariant: only time in which the plan computes counts against `query_timeout_ms`. Time in which it waits for its
//! reader counts against `stall_timeout_ms`, and both against the deadline of the request.

use crate::domain::executor::bind::BoundPlan;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::interrupt::Interrupt;
use crate::ports::{Error, ErrorKind, Result};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::stream::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The limits of a running query.
#[derive(Debug)]
pub struct QueryLimits {
    /// Time it may compute.
    compute_timeout: Option<Duration>,
    /// Time it waits for its reader.
    stall_timeout: Option<Duration>,
    /// Instant by which the caller wants its last batch.
    deadline: Option<Instant>,
    /// The signal that stops it.
    pub(super) interrupt: Arc<Interrupt>,
}

impl QueryLimits {
    /// Makes the limits of a query that starts now.
    pub fn new(compute_timeout: Option<Duration>, stall_timeout: Option<Duration>, deadline: Option<Instant>) -> Self {
        let interrupt = Interrupt::new(compute_timeout, deadline);
        Self { compute_timeout, stall_timeout, deadline, interrupt }
    }

    /// Returns the time that is left until the deadline.
    fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn is_past_deadline(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// Waits for `work` as long as a query may that has computed for `computed`.
    async fn within<T>(&self, computed: Duration, work: impl Future<Output = T>) -> Result<T> {
        let compute = self.compute_timeout.map(|limit| limit.saturating_sub(computed));
        match [compute, self.remaining()].into_iter().flatten().min() {
            Some(left) => timeout(left, work).await.map_err(|_| self.interrupt.timed_out()),
            None => Ok(work.await),
        }
    }
}

/// The messages of the task that pulls a plan to its reader.
pub enum TaskOutput {
    /// The next batch.
    Batch(RecordBatch),
    /// The error that ended the plan.
    Failed(Error),
    /// The explicit end: a channel that closes without it belongs to a task that died.
    End,
}

/// A plan that has been started.
pub struct Running {
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    limits: QueryLimits,
    computed: Duration,
}

impl Running {
    /// Starts the operators `physical` of `plan`.
    ///
    /// # Errors
    ///
    /// Those of DataFusion.
    pub fn start(plan: &BoundPlan, physical: Arc<dyn ExecutionPlan>, limits: QueryLimits) -> Result<Self> {
        let batches = execute_stream(physical, plan.task.clone()).map_err(from_datafusion)?;
        Ok(Self { batches, schema: plan.schema.clone(), limits, computed: Duration::ZERO })
    }

    /// Returns the signal that stops it.
    pub fn interrupt(&self) -> Arc<Interrupt> {
        self.limits.interrupt.clone()
    }

    /// Returns how long it waits for its reader from now on.
    pub fn stall_timeout(&self) -> Option<Duration> {
        [self.limits.stall_timeout, self.limits.remaining()].into_iter().flatten().min()
    }

    /// Makes the error for a reader that did not come in time.
    pub fn stall_error(&self) -> Error {
        if self.limits.is_past_deadline() {
            self.limits.interrupt.timed_out()
        } else {
            Error::new(ErrorKind::Timeout, "the client did not read its result for too long (stall_timeout_ms)")
        }
    }

    /// Returns the next batch that has rows, within the time that the query may compute.
    ///
    /// # Errors
    ///
    /// The plan's own, and `Timeout`.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            // A timer alone never fires on a plan that is always ready.
            let is_overrun = self.limits.compute_timeout.is_some_and(|limit| self.computed >= limit);
            if is_overrun || self.limits.is_past_deadline() {
                return Err(self.limits.interrupt.timed_out());
            }
            let began = Instant::now();
            self.limits.interrupt.computing(self.computed);
            let next = self.limits.within(self.computed, self.batches.next()).await;
            self.computed += began.elapsed();
            self.limits.interrupt.waiting();
            let next = next?;
            let Some(batch) = next else { return Ok(None) };
            let batch = batch.map_err(from_datafusion)?;
            if batch.num_rows() > 0 {
                return with_schema(batch, &self.schema).map(Some);
            }
        }
    }

    /// Sends all batches, and how the plan ended, into a channel.
    pub async fn pump(mut self, sender: mpsc::Sender<TaskOutput>) {
        let last = match self.send_all(&sender).await {
            Ok(()) => TaskOutput::End,
            Err(error) => TaskOutput::Failed(error),
        };
        // Gives everything back first: the reader may start its next query as soon as it sees the end of this one.
        drop(self);
        // This fails only if the reader has gone.
        let _ = sender.send(last).await;
    }

    async fn send_all(&mut self, sender: &mpsc::Sender<TaskOutput>) -> Result<()> {
        while let Some(batch) = self.next().await? {
            let sending = sender.send(TaskOutput::Batch(batch));
            let sent = match self.stall_timeout() {
                Some(stall) => timeout(stall, sending).await.map_err(|_| self.stall_error())?,
                None => sending.await,
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Returns `batch` under the schema that was promised; the columns are the same, names and nullability may differ.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal("a batch did not have the schema of its plan").with_source(error))
}
