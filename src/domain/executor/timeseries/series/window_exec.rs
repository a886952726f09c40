//! Window functions by symbol: a state for each symbol, and no sort where rows lie in the order of their time.
//!
//! Where some are late all rows are kept, as they lie, until all have come; their numbers are put in order of time (`late_rows`), and
//! answers go back to the places of their rows. So rows leave in the order in which they arrived either way.

use crate::domain::executor::timeseries::keys::Times;
use crate::domain::executor::timeseries::series::exec::codes_of;
use crate::domain::executor::timeseries::series::late_rows::LateRows;
use crate::domain::executor::timeseries::series::window_states::{SeriesWindow, State};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fmt;
use std::sync::Arc;

/// Window functions by code.
#[derive(Debug)]
pub struct SeriesWindowExec {
    input: Arc<dyn ExecutionPlan>,
    /// Position of the symbol's codes, the last column of the input; none where all rows are one series.
    code: Option<usize>,
    /// Number of codes, with that of NULL.
    codes: usize,
    windows: Vec<SeriesWindow>,
    /// Whether rows come in the order of their time.
    in_order: bool,
    properties: Arc<PlanProperties>,
}

impl SeriesWindowExec {
    /// Makes the operator over rows each of which has a time, in the order of those if `in_order`; its batches have `schema`: the columns of the input but for the codes, and
    /// one for each function.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        code: Option<usize>,
        codes: usize,
        windows: Vec<SeriesWindow>,
        in_order: bool,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, code, codes, windows, in_order, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SeriesWindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let kinds: Vec<_> = self.windows.iter().map(|window| window.kind).collect();
        let late = if self.in_order { "" } else { ", with late rows" };
        write!(f, "SeriesWindowExec: {kinds:?}{late}")
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
                let (windows, schema) = (self.windows.clone(), self.schema());
                Ok(Arc::new(Self::new(input, self.code, self.codes, windows, self.in_order, schema)))
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
        if !self.in_order {
            let answered = stream::once(async move {
                let late = LateRows::read(input, windows, (code, codes), memory).await?;
                late.answer(states, made).await
            });
            let answered = answered.try_flatten();
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, answered)));
        }
        let batches = input.map(move |batch| {
            let _held = &memory;
            let batch = batch?;
            let found = codes_of(&batch, code, codes)?;
            let width = made.fields().len() - windows.len();
            let mut columns = batch.columns()[..width].to_vec();
            for (window, state) in windows.iter().zip(&mut states) {
                let values = window.value.evaluate(&batch)?.into_array(batch.num_rows())?;
                let times = if window.needs_time() { Some(window.times(&batch)?) } else { None };
                columns.push(state.answer(&values, &found, times.as_ref().map(Times::values)));
            }
            Ok(RecordBatch::try_new(made.clone(), columns)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}
