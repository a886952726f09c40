//! `LATEST ON time PARTITION BY keys`: the last row of each key, by time; of equal times the one that arrived last.
//!
//! NULL is a key like another, and a row without a time is never the latest. Rows leave in the order in which they arrived.

use crate::domain::executor::timeseries::collected::Collected;
use crate::domain::executor::timeseries::keys::{KeyCodes, Times, key_type, time_type};
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use crate::domain::storage::slice_bytes;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchemaRef, Result, internal_err, plan_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
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
pub struct LatestOn {
    /// The time.
    pub time: Arc<dyn PhysicalExpr>,
    /// The keys.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
}

/// LATEST ON in a plan.
pub type LatestExec = OperatorExec<LatestOn>;

impl Operator for LatestOn {
    const NAME: &'static str = "LatestExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time={}, keys={}", self.time, self.keys.len())
    }

    fn run(&self, mut run: Run) -> Result<SendableRecordBatchStream> {
        let [mut input] = run.inputs()?;
        let (time, keys, plain) = (self.time.clone(), self.keys.clone(), input.schema());
        let Run { is_table, schema, memory, .. } = run;
        let made = schema.clone();
        let answered: Vec<usize> = (0..schema.fields().len()).collect();
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
                let batches = if is_table { 0 } else { latest.batch_bytes() };
                memory.try_resize(codes.bytes() + latest.best.capacity() * size_of::<Best>() + batches)?;
            }
            latest.batch(made)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(latest))))
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
