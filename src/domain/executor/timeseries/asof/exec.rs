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
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::future;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A join by time.
#[derive(Debug)]
pub struct AsOfExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    exprs: AsOfExprs,
    spec: AsOfSpec,
    properties: Arc<PlanProperties>,
}

impl AsOfExec {
    /// Makes the operator, whose batches have `schema`.
    pub fn new(
        [left, right]: [Arc<dyn ExecutionPlan>; 2],
        exprs: AsOfExprs,
        spec: AsOfSpec,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { left, right, exprs, spec, properties: Arc::new(properties) }
    }
}

impl DisplayAs for AsOfExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AsOfExec: {:?}, keys={}, outer={}", self.spec.direction, self.exprs.key_types.len(), self.spec.outer)
    }
}

impl ExecutionPlan for AsOfExec {
    fn name(&self) -> &str {
        "AsOfExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition, Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[Arc<dyn ExecutionPlan>; 2]>::try_from(children) {
            Ok(sides) => Ok(Arc::new(Self::new(sides, self.exprs.clone(), self.spec, self.schema()))),
            Err(_) => internal_err!("a join has two inputs"),
        }
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (left, right) = (self.left.execute(0, task.clone())?, self.right.execute(0, task.clone())?);
        let memory = MemoryConsumer::new("AsOfExec").register(task.memory_pool());
        let (exprs, spec, schema) = (self.exprs.clone(), self.spec, self.schema());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let joined = stream::once(async move {
            let mut join = Join::build(right, Work { exprs, spec, schema }, memory).await?;
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
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), joined)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
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
}

/// What joining a batch needs to know.
struct Work {
    exprs: AsOfExprs,
    spec: AsOfSpec,
    schema: SchemaRef,
}

impl Join {
    async fn build(right: SendableRecordBatchStream, work: Work, memory: MemoryReservation) -> Result<Self> {
        let (right, codes) = Right::read(right, &work.exprs, memory).await?;
        Ok(Self { work: Arc::new(work), right: Arc::new(right), codes, probes: Arc::default() })
    }

    /// Begins to join a batch.
    fn begin(&mut self, batch: RecordBatch) -> Result<SpawnedTask<Result<RecordBatch>>> {
        let keys = evaluate(&self.work.exprs.keys[0], &batch)?;
        let codes = self.codes.codes(&keys, batch.num_rows())?;
        let free = self.probes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut probe = match free {
            Some(probe) => probe,
            None => Probe::new(self.right.clone(), self.work.spec)?,
        };
        let (work, right, probes) = (self.work.clone(), self.right.clone(), self.probes.clone());
        Ok(SpawnedTask::spawn(async move {
            let joined = work.join(&batch, &codes, &mut probe, &right);
            probes.lock().unwrap_or_else(PoisonError::into_inner).push(probe);
            joined
        }))
    }
}

impl Work {
    fn join(&self, batch: &RecordBatch, codes: &[u32], probe: &mut Probe, right: &Right) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let times = Times::new(&evaluate(&self.exprs.times[..1], batch)?[0], &self.exprs.time_type)?;
        let matches = match &self.exprs.left_condition {
            Some(condition) => {
                let condition = condition.evaluate(batch)?.into_array(rows)?;
                let condition = condition.as_boolean();
                probe.rows(codes, &times, |row| condition.is_valid(row) && condition.value(row))?
            }
            None => probe.rows(codes, &times, |_| true)?,
        };
        let answered: Vec<usize> = (0..self.exprs.widths[0]).collect();
        let columns = self.answer(&batch.project(&answered)?, matches, right)?;
        let count = columns.first().map_or(rows, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Returns the columns of both sides.
    fn answer(&self, batch: &RecordBatch, mut matches: Vec<u32>, right: &Right) -> Result<Vec<ArrayRef>> {
        let unmatched = matches.iter().filter(|found| **found == NO_ROW).count();
        if unmatched == 0 || self.spec.outer {
            let mut columns = batch.columns().to_vec();
            columns.extend(right.rows.rows(&matches)?);
            return Ok(columns);
        }
        let mask: BooleanArray = matches.iter().map(|found| Some(*found != NO_ROW)).collect();
        matches.retain(|found| *found != NO_ROW);
        let mut columns = match batch.num_columns() {
            0 => Vec::new(),
            1 => vec![filter(batch.column(0), &mask)?],
            _ => filter_record_batch(batch, &mask)?.columns().to_vec(),
        };
        columns.extend(right.rows.rows(&matches)?);
        Ok(columns)
    }
}
