//! Window functions by symbol over rows that lie in the order of their time: a state for each symbol, and no sort.

use crate::domain::executor::timeseries::keys::Times;
use crate::domain::executor::timeseries::series::exec::codes_of;
use crate::domain::executor::timeseries::series::rolling::Rolling;
use crate::domain::executor::timeseries::windows::{Running, Step};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::StreamExt;
use std::fmt;
use std::sync::Arc;

/// One window function.
#[derive(Debug, Clone)]
pub struct SeriesWindow {
    /// What it computes.
    pub kind: WindowKind,
    /// Of which numbers.
    pub value: Arc<dyn PhysicalExpr>,
    /// The time of a row, where the function needs it.
    pub time: Arc<dyn PhysicalExpr>,
}

/// What a window function computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowKind {
    /// From row to row.
    Step(Step),
    /// The mean of the row and so many before it.
    RollingMean(usize),
    /// The sum of the row and so many before it.
    RollingSum(usize),
}

/// Window functions by code.
#[derive(Debug)]
pub struct SeriesWindowExec {
    input: Arc<dyn ExecutionPlan>,
    /// Position of the symbol's codes, the last column of the input; none where all rows are one series.
    code: Option<usize>,
    /// Number of codes, with that of NULL.
    codes: usize,
    windows: Vec<SeriesWindow>,
    properties: Arc<PlanProperties>,
}

impl SeriesWindowExec {
    /// Makes the operator over rows in order of their time; its batches have `schema`: the columns of the input but for the codes, and
    /// one for each function.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        code: Option<usize>,
        codes: usize,
        windows: Vec<SeriesWindow>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, code, codes, windows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SeriesWindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let kinds: Vec<_> = self.windows.iter().map(|window| window.kind).collect();
        write!(f, "SeriesWindowExec: {kinds:?}")
    }
}

impl ExecutionPlan for SeriesWindowExec {
    fn name(&self) -> &str {
        "SeriesWindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
                Ok(Arc::new(Self::new(input, self.code, self.codes, self.windows.clone(), self.schema())))
            }
            _ => internal_err!("a window has one input"),
        }
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new("SeriesWindowExec").register(task.memory_pool());
        let mut states: Vec<State> = self.windows.iter().map(|window| State::new(window.kind, self.codes)).collect();
        memory.try_grow(states.iter().map(State::bytes).sum())?;
        let input = self.input.execute(0, task)?;
        let (windows, code, codes) = (self.windows.clone(), self.code, self.codes);
        let (schema, made) = (self.schema(), self.schema());
        let batches = input.map(move |batch| {
            let _held = &memory;
            let batch = batch?;
            let found = codes_of(&batch, code, codes)?;
            let width = made.fields().len() - windows.len();
            let mut columns = batch.columns()[..width].to_vec();
            for (window, state) in windows.iter().zip(&mut states) {
                columns.push(state.answer(window, &batch, &found)?);
            }
            Ok(RecordBatch::try_new(made.clone(), columns)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}

/// The states of one function, one for each code.
enum State {
    Step(Step, Vec<Running>),
    Rolling(Rolling, bool),
}

impl State {
    fn new(kind: WindowKind, codes: usize) -> Self {
        match kind {
            WindowKind::Step(step) => Self::Step(step, vec![Running::default(); codes]),
            WindowKind::RollingMean(before) => Self::Rolling(Rolling::new(codes, before + 1), true),
            WindowKind::RollingSum(before) => Self::Rolling(Rolling::new(codes, before + 1), false),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Step(_, running) => running.capacity() * size_of::<Running>(),
            Self::Rolling(rolling, _) => rolling.bytes(),
        }
    }

    fn answer(&mut self, window: &SeriesWindow, batch: &RecordBatch, codes: &[u32]) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let values = window.value.evaluate(batch)?.into_array(rows)?;
        let values = values.as_primitive::<Float64Type>();
        let value = |row: usize| values.is_valid(row).then(|| values.value(row));
        Ok(match self {
            Self::Step(step, running) if step.needs_time() => {
                let times = window.time.evaluate(batch)?.into_array(rows)?;
                let times = Times::new(&times, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
                let times = times.values();
                let codes = codes.iter().enumerate();
                let steps = codes.map(|(row, code)| running[*code as usize].next(*step, value(row), times[row]));
                Arc::new(steps.collect::<Float64Array>())
            }
            // Every row has an answer.
            Self::Step(step @ Step::Ema(_), running) if values.null_count() == 0 => {
                let rows = codes.iter().zip(values.values());
                let mut step = |(code, value): (&u32, &f64)| running[*code as usize].next(*step, Some(*value), 0);
                Arc::new(Float64Array::from(rows.map(|row| step(row).unwrap_or_default()).collect::<Vec<_>>()))
            }
            Self::Step(step, running) => {
                let codes = codes.iter().enumerate();
                let steps = codes.map(|(row, code)| running[*code as usize].next(*step, value(row), 0));
                Arc::new(steps.collect::<Float64Array>())
            }
            Self::Rolling(rolling, is_mean) => {
                let answer = |(sum, count)| if *is_mean { sum / f64::from(count) } else { sum };
                if values.null_count() == 0 {
                    let rows = codes.iter().zip(values.values());
                    let answers = rows.map(|(code, value)| answer(rolling.next_value(*code as usize, *value)));
                    return Ok(Arc::new(Float64Array::from(answers.collect::<Vec<_>>())));
                }
                let answers = codes.iter().enumerate().map(|(row, code)| {
                    let (sum, count) = rolling.next(*code as usize, value(row));
                    (count > 0).then(|| answer((sum, count)))
                });
                Arc::new(answers.collect::<Float64Array>())
            }
        })
    }
}
