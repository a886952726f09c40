//! Runs a join by time.
//!
//! The right side is read whole and put in order (`index`); of it only those columns are kept that are answered. Batches of the
//! left side pass through: their columns are not copied where every row has a match, or stays without one.

use crate::domain::executor::timeseries::asof::index::TimeIndex;
use crate::domain::executor::timeseries::asof::node::{AsOfSpec, Direction};
use crate::domain::executor::timeseries::collected::Collected;
use crate::domain::executor::timeseries::keys::{KeyCodes, NO_CODE, Times};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, StreamExt};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The expressions of a join, over the columns of their sides.
#[derive(Debug, Clone)]
pub struct AsOfExprs {
    /// The keys of both sides.
    pub keys: [Vec<Arc<dyn PhysicalExpr>>; 2],
    /// The types under which keys are compared.
    pub key_types: Vec<DataType>,
    /// For each key whether NULL is equal to NULL.
    pub null_safe: Vec<bool>,
    /// The times of both sides.
    pub times: [Arc<dyn PhysicalExpr>; 2],
    /// The type under which times are compared.
    pub time_type: DataType,
    /// How many columns of each side are answered; the others are for the expressions alone.
    pub widths: [usize; 2],
    /// Rows of the left side for which it is not true have no match.
    pub left_condition: Option<Arc<dyn PhysicalExpr>>,
}

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

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
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
        let joined = stream::once(async move {
            let join = Join::build(right, exprs, spec, schema, memory).await?;
            Ok::<_, datafusion::error::DataFusionError>(stream::unfold(
                (join, left),
                |(mut join, mut left)| async move {
                    loop {
                        let batch = match left.next().await? {
                            Ok(batch) => batch,
                            Err(error) => return Some((Err(error), (join, left))),
                        };
                        match join.probe(&batch) {
                            Ok(made) if made.num_rows() == 0 => {}
                            made => return Some((made, (join, left))),
                        }
                    }
                },
            ))
        });
        let joined = joined.flat_map(|joined| match joined {
            Ok(batches) => batches.left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), joined)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}

/// A join whose right side is in order.
struct Join {
    exprs: AsOfExprs,
    spec: AsOfSpec,
    schema: SchemaRef,
    right: Collected,
    codes: KeyCodes,
    index: TimeIndex,
    /// For each code where its last row was found.
    near: Vec<u32>,
    _memory: MemoryReservation,
}

fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

impl Join {
    async fn build(
        mut input: SendableRecordBatchStream,
        exprs: AsOfExprs,
        spec: AsOfSpec,
        schema: SchemaRef,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let mut codes = KeyCodes::new(exprs.key_types.clone(), exprs.null_safe.clone())?;
        let answered: Vec<usize> = (0..exprs.widths[1]).collect();
        let mut right = Collected::new(Arc::new(input.schema().project(&answered)?));
        let (mut row_codes, mut row_times, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(batch) = input.next().await {
            let batch = batch?;
            // Twelve bytes for code and time of each row, as many again while they are put in order, and the index.
            memory.try_grow(batch.num_rows() * 40)?;
            row_codes.extend(codes.codes(&evaluate(&exprs.keys[1], &batch)?, batch.num_rows())?);
            let times = Times::new(&evaluate(&exprs.times[1..], &batch)?[0], &exprs.time_type)?;
            row_times.extend_from_slice(times.values());
            valid.extend((0..batch.num_rows()).map(|row| times.is_valid(row)));
            right.push(batch.project(&answered)?);
        }
        memory.try_grow(codes.bytes())?;
        let index = TimeIndex::new(&row_codes, &row_times, |row| valid[row], codes.len())?;
        let near = vec![0; codes.len()];
        memory.try_resize(index.bytes() + codes.bytes() + near.len() * 4)?;
        Ok(Self { exprs, spec, schema, right, codes, index, near, _memory: memory })
    }

    /// Joins a batch of the left side.
    fn probe(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let codes = self.codes.codes(&evaluate(&self.exprs.keys[0], batch)?, rows)?;
        let times = Times::new(&evaluate(&self.exprs.times[..1], batch)?[0], &self.exprs.time_type)?;
        let condition = match &self.exprs.left_condition {
            Some(condition) => Some(condition.evaluate(batch)?.into_array(rows)?),
            None => None,
        };
        let condition = condition.as_ref().map(|condition| condition.as_boolean());
        let may_match = |row: usize| {
            times.is_valid(row) && condition.is_none_or(|condition| condition.is_valid(row) && condition.value(row))
        };
        let mut matches: Vec<Option<u32>> = Vec::with_capacity(rows);
        for (row, code) in codes.iter().enumerate() {
            matches.push(if may_match(row) { self.find(*code, times.values()[row]) } else { None });
        }
        let answered: Vec<usize> = (0..self.exprs.widths[0]).collect();
        let columns = self.answer(&batch.project(&answered)?, &matches)?;
        let count = columns.first().map_or(rows, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Returns the columns of both sides.
    fn answer(&self, batch: &RecordBatch, matches: &[Option<u32>]) -> Result<Vec<ArrayRef>> {
        let unmatched = matches.iter().filter(|found| found.is_none()).count();
        if unmatched == 0 || self.spec.outer {
            let mut columns = batch.columns().to_vec();
            columns.extend(self.right.rows(matches)?);
            return Ok(columns);
        }
        let mask: BooleanArray = matches.iter().map(|found| Some(found.is_some())).collect();
        let found: Vec<Option<u32>> = matches.iter().copied().filter(Option::is_some).collect();
        let mut columns = match batch.num_columns() {
            0 => Vec::new(),
            1 => vec![filter(batch.column(0), &mask)?],
            _ => filter_record_batch(batch, &mask)?.columns().to_vec(),
        };
        columns.extend(self.right.rows(&found)?);
        Ok(columns)
    }

    /// Returns the row of the right side that is in force for a key at a time.
    fn find(&mut self, code: u32, time: i64) -> Option<u32> {
        if code == NO_CODE || code as usize >= self.near.len() {
            return None;
        }
        let group = self.index.group(code);
        let near = self.near[code as usize] as usize;
        let AsOfSpec { direction, strict, tolerance, .. } = self.spec;
        let place = match direction {
            Direction::Backward => self.before(&group, time, strict, near),
            Direction::Forward => self.after(&group, time, strict, near),
            Direction::Nearest => {
                match (self.before(&group, time, strict, near), self.after(&group, time, strict, near)) {
                    (Some(before), Some(after)) => {
                        let distance = |place: usize| self.index.times()[place].abs_diff(time);
                        Some(if distance(before) <= distance(after) { before } else { after })
                    }
                    (before, after) => before.or(after),
                }
            }
        }?;
        self.near[code as usize] = place as u32;
        let is_near = |most: i64| self.index.times()[place].abs_diff(time) <= most.unsigned_abs();
        tolerance.is_none_or(is_near).then(|| self.index.row(place))
    }

    fn before(&self, group: &Range<usize>, time: i64, strict: bool, near: usize) -> Option<usize> {
        let end = self.index.search(group, time, !strict, near);
        (end > group.start).then(|| end - 1)
    }

    fn after(&self, group: &Range<usize>, time: i64, strict: bool, near: usize) -> Option<usize> {
        let first = self.index.search(group, time, strict, near);
        (first < group.end).then_some(first)
    }
}
