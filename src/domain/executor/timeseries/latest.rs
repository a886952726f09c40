//! `LATEST ON time PARTITION BY keys`: the last row of each key, by time; of equal times the one that arrived last.
//!
//! NULL is a key like another, and a row without a time is never the latest. Rows leave in the order in which they arrived.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::timeseries::collected::Collected;
use crate::domain::executor::timeseries::keys::{KeyCodes, Times, key_type, time_type};
use crate::domain::storage::slice_bytes;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, Result, Statistics, internal_err, plan_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, StreamExt};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// LATEST ON as a node of a logical plan; its columns are those of its input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LatestNode {
    input: LogicalPlan,
    /// The time.
    pub time: Expr,
    /// The keys.
    pub keys: Vec<Expr>,
}

impl LatestNode {
    /// Makes the node.
    pub fn new(input: LogicalPlan, time: Expr, keys: Vec<Expr>) -> Self {
        Self { input, time, keys }
    }

    /// Returns the columns of its input.
    pub fn input_schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }
}

impl PartialOrd for LatestNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for LatestNode {
    fn name(&self) -> &str {
        "Latest"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(self.time.clone()).chain(self.keys.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let keys = self.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "Latest: on {}, by {keys}", self.time)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        match (exprs.next(), inputs.pop()) {
            (Some(time), Some(input)) => Ok(Self::new(input, time, exprs.collect())),
            _ => internal_err!("LATEST ON has a time and an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut wanted: BTreeSet<usize> = output_columns.iter().copied().collect();
        for expr in self.expressions() {
            wanted.extend(
                expr.column_refs().into_iter().filter_map(|column| self.input.schema().maybe_index_of_column(column)),
            );
        }
        Some(vec![wanted.into_iter().collect()])
    }
}

/// LATEST ON as an operator. It answers the first columns of its input; those behind them are for the expressions alone.
#[derive(Debug)]
pub struct LatestExec {
    input: Arc<dyn ExecutionPlan>,
    time: Arc<dyn PhysicalExpr>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    properties: Arc<PlanProperties>,
}

impl LatestExec {
    /// Makes the operator.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        schema: SchemaRef,
        time: Arc<dyn PhysicalExpr>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, time, keys, properties: Arc::new(properties) }
    }
}

impl DisplayAs for LatestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "LatestExec: time={}, keys={}", self.time, self.keys.len())
    }
}

impl ExecutionPlan for LatestExec {
    fn name(&self) -> &str {
        "LatestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => {
                Ok(Arc::new(Self::new(input, self.schema(), self.time.clone(), self.keys.clone())))
            }
            _ => internal_err!("LATEST ON has one input"),
        }
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(0, task.clone())?;
        let memory = MemoryConsumer::new("LatestExec").register(task.memory_pool());
        let (time, keys, schema) = (self.time.clone(), self.keys.clone(), self.schema());
        let (made, plain) = (schema.clone(), self.input.schema());
        let answered: Vec<usize> = (0..schema.fields().len()).collect();
        // Else they are a table's own, which are counted there.
        let is_computed = !self.input.is::<ScanExec>();
        let latest = async move {
            let own_type = time.data_type(&plain)?;
            let Some(time_type) = time_type(&own_type, &own_type) else {
                return plan_err!("LATEST ON takes a time, not {own_type}");
            };
            let types = keys.iter().map(|key| Ok(key_type(&key.data_type(&plain)?))).collect::<Result<Vec<_>>>()?;
            let null_safe = vec![true; types.len()];
            let mut codes = KeyCodes::new(types, null_safe)?;
            let mut latest = Latest::default();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                let columns: Vec<ArrayRef> =
                    keys.iter().map(|key| key.evaluate(&batch)?.into_array(batch.num_rows())).collect::<Result<_>>()?;
                let row_codes = codes.codes(&columns, batch.num_rows())?;
                let times = Times::new(&time.evaluate(&batch)?.into_array(batch.num_rows())?, &time_type)?;
                latest.add(batch.project(&answered)?, &row_codes, &times, codes.len());
                let batches = if is_computed { latest.batch_bytes() } else { 0 };
                memory.try_resize(codes.bytes() + latest.best.capacity() * size_of::<Best>() + batches)?;
            }
            latest.batch(made)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(latest))))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}

/// The latest row of a key so far: its time, its batch and its place there.
#[derive(Debug, Clone, Copy)]
struct Best {
    time: i64,
    batch: u32,
    row: u32,
}

/// The latest rows of all keys so far.
#[derive(Default)]
struct Latest {
    best: Vec<Option<Best>>,
    /// Batches that hold one of them; none for those that do not any more.
    batches: Vec<Option<RecordBatch>>,
    /// How many each of those holds.
    held: Vec<u32>,
}

impl Latest {
    fn add(&mut self, batch: RecordBatch, codes: &[u32], times: &Times, code_count: usize) {
        self.best.resize(code_count, None);
        let number = self.batches.len() as u32;
        self.batches.push(None);
        self.held.push(0);
        for (row, code) in codes.iter().enumerate() {
            let time = times.values()[row];
            let best = &mut self.best[*code as usize];
            if !times.is_valid(row) || best.is_some_and(|best| best.time > time) {
                continue;
            }
            if let Some(before) = best {
                self.held[before.batch as usize] -= 1;
                if self.held[before.batch as usize] == 0 && before.batch != number {
                    self.batches[before.batch as usize] = None;
                }
            }
            self.held[number as usize] += 1;
            *best = Some(Best { time, batch: number, row: row as u32 });
        }
        if self.held[number as usize] > 0 {
            self.batches[number as usize] = Some(batch);
        }
    }

    /// Returns the memory of the batches that are kept, in bytes.
    fn batch_bytes(&self) -> usize {
        let columns = self.batches.iter().flatten().flat_map(RecordBatch::columns);
        columns.map(|column| slice_bytes(column.as_ref())).sum::<u64>() as usize
    }

    fn batch(self, schema: SchemaRef) -> Result<RecordBatch> {
        let mut best: Vec<Best> = self.best.into_iter().flatten().collect();
        best.sort_unstable_by_key(|best| (best.batch, best.row));
        let mut rows = Collected::new(schema.clone());
        let (mut starts, mut start) = (vec![0; self.batches.len()], 0);
        for (number, batch) in self.batches.into_iter().enumerate() {
            let Some(batch) = batch else { continue };
            starts[number] = start;
            start += batch.num_rows() as u32;
            rows.push(batch);
        }
        let wanted: Vec<_> = best.iter().map(|best| starts[best.batch as usize] + best.row).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(wanted.len()));
        Ok(RecordBatch::try_new_with_options(schema, rows.rows(&wanted)?, &options)?)
    }
}
