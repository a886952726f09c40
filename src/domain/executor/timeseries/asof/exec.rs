//! Runs a join by time.
//!
//! The right side is read whole (`right`); of it only those columns are kept that are answered. Batches of the left side are shared out
//! to all cores (`probe`) and pass through: their columns are not copied where every row has a match, or stays without one.

use crate::domain::executor::timeseries::asof::exprs::{AsOfExprs, evaluate};
use crate::domain::executor::timeseries::asof::node::AsOfSpec;
use crate::domain::executor::timeseries::asof::probe::Probe;
use crate::domain::executor::timeseries::asof::right::Right;
use crate::domain::executor::timeseries::collected::NO_ROW;
use crate::domain::executor::timeseries::keys::{KeyCodes, Times};
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A join by time.
#[derive(Debug)]
pub struct AsOf {
    exprs: AsOfExprs,
    spec: AsOfSpec,
    /// The columns that are answered, counted through those of both sides.
    answered: Vec<usize>,
}

/// A join by time in a plan.
pub type AsOfExec = OperatorExec<AsOf>;

impl AsOf {
    /// Makes the operator, which answers all columns of both sides.
    pub fn new(exprs: AsOfExprs, spec: AsOfSpec) -> Self {
        Self { answered: (0..exprs.widths.iter().sum()).collect(), exprs, spec }
    }
}

impl Operator for AsOf {
    const NAME: &'static str = "AsOfExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, keys={}, outer={}", self.spec.direction, self.exprs.key_types.len(), self.spec.outer)
    }

    /// Answers the columns of a projection alone: the others need not be put together.
    fn answering(&self, columns: &[usize]) -> Option<Self> {
        let answered = columns.iter().map(|column| self.answered[*column]).collect();
        Some(Self { exprs: self.exprs.clone(), spec: self.spec, answered })
    }

    fn run(&self, mut run: Run) -> Result<SendableRecordBatchStream> {
        let [left, right] = run.inputs()?;
        let Run { is_table, schema, memory, .. } = run;
        let work = Work::new(self.exprs.clone(), self.spec, &self.answered, schema.clone());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let joined = stream::once(async move {
            let mut join = Join::build((right, !is_table), work, memory).await?;
            let tasks = left.map(move |batch| join.begin(batch?)).map_ok(|task| async move {
                match task.join_unwind().await {
                    Ok(joined) => joined,
                    Err(_) => internal_err!("a join stopped"),
                }
            });
            let joined = tasks.try_buffered(cores);
            Ok::<_, DataFusionError>(joined.try_filter(|batch| future::ready(batch.num_rows() > 0)))
        });
        let joined = joined.try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, joined)))
    }
}

/// Joins batches of the left side on several cores; answers leave in the order of the batches.
struct Join {
    work: Arc<Work>,
    right: Arc<Right>,
    /// Codes are one sequence: batches get theirs before they are shared out.
    codes: KeyCodes,
    /// Probes that are free. One that sees a later batch goes on from where it is.
    probes: Arc<Mutex<Vec<Probe>>>,
    /// Of the keys that the left side alone has.
    left_memory: MemoryReservation,
}

/// What joining a batch needs to know.
struct Work {
    exprs: AsOfExprs,
    spec: AsOfSpec,
    /// The columns of each side that are answered, each once.
    sides: [Vec<usize>; 2],
    /// For each column of the answer its place among those.
    order: Vec<usize>,
    schema: SchemaRef,
}

impl Join {
    async fn build(
        (right, is_computed): (SendableRecordBatchStream, bool),
        work: Work,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let left_memory = memory.new_empty();
        let (right, codes) = Right::read(right, &work.exprs, (&work.sides[1], is_computed), memory).await?;
        Ok(Self { work: Arc::new(work), right: Arc::new(right), codes, probes: Arc::default(), left_memory })
    }

    /// Begins to join a batch.
    fn begin(&mut self, batch: RecordBatch) -> Result<SpawnedTask<Result<RecordBatch>>> {
        let keys = evaluate(&self.work.exprs.keys[0], &batch)?;
        let codes = self.codes.codes(&keys, batch.num_rows())?;
        self.left_memory.try_resize(self.codes.bytes())?;
        let free = self.probes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (work, right, probes) = (self.work.clone(), self.right.clone(), self.probes.clone());
        Ok(SpawnedTask::spawn(async move {
            let mut probe = match free {
                Some(probe) => probe,
                None => Probe::new(right.clone(), work.spec).await?,
            };
            let joined = work.join(&batch, &codes, &mut probe, &right).await;
            probes.lock().unwrap_or_else(PoisonError::into_inner).push(probe);
            joined
        }))
    }
}

impl Work {
    fn new(exprs: AsOfExprs, spec: AsOfSpec, answered: &[usize], schema: SchemaRef) -> Self {
        let width = exprs.widths[0];
        let mut wanted = answered.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let order = answered.iter().filter_map(|column| wanted.binary_search(column).ok()).collect();
        let right = wanted.iter().filter(|column| **column >= width).map(|column| column - width).collect();
        wanted.retain(|column| *column < width);
        Self { exprs, spec, sides: [wanted, right], order, schema }
    }

    async fn join(&self, batch: &RecordBatch, codes: &[u32], probe: &mut Probe, right: &Right) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let times = Times::new(&evaluate(&self.exprs.times[..1], batch)?[0], &self.exprs.time_type)?;
        let mut matches = match &self.exprs.left_condition {
            Some(condition) => {
                let condition = condition.evaluate(batch)?.into_array(rows)?;
                let condition = condition.as_boolean();
                probe.rows(codes, &times, |row| condition.is_valid(row) && condition.value(row)).await?
            }
            None => probe.rows(codes, &times, |_| true).await?,
        };
        let mut left = batch.project(&self.sides[0])?;
        if !self.spec.outer && matches.contains(&NO_ROW) {
            let mask: BooleanArray = matches.iter().map(|found| Some(*found != NO_ROW)).collect();
            matches.retain(|found| *found != NO_ROW);
            left = filter_record_batch(&left, &mask)?;
        }
        let columns: Vec<ArrayRef> = left.columns().iter().cloned().chain(right.rows.rows(&matches)?).collect();
        let columns = self.order.iter().map(|place| columns[*place].clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(matches.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
