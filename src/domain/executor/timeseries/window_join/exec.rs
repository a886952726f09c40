//! Runs a window join.
//!
//! The right side is put in order by key and time, and so are the values of its aggregates: the rows of a window then lie beside
//! each other, and an aggregate goes over a slice.

use crate::domain::executor::timeseries::asof::TimeIndex;
use crate::domain::executor::timeseries::collected::Collected;
use crate::domain::executor::timeseries::keys::{KeyCodes, Times};
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use crate::domain::executor::timeseries::window_join::ordered::{KNOWN_ROW_BYTES, Ordered};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The expressions of a window join, over the columns of their sides.
#[derive(Debug, Clone)]
pub struct WindowExprs {
    /// The keys of both sides.
    pub keys: [Vec<Arc<dyn PhysicalExpr>>; 2],
    /// The types under which keys are compared.
    pub key_types: Vec<DataType>,
    /// For each key whether NULL is equal to NULL.
    pub null_safe: Vec<bool>,
    /// The first and the last time of a window.
    pub window: [Arc<dyn PhysicalExpr>; 2],
    /// The time of the right side.
    pub time: Arc<dyn PhysicalExpr>,
    /// The type under which times are compared.
    pub time_type: DataType,
    /// Rows of the left side for which it is not true have an empty window.
    pub left_condition: Option<Arc<dyn PhysicalExpr>>,
    /// How many columns of the left side are answered.
    pub width: usize,
    /// The aggregates.
    pub aggregates: Vec<WindowAggregate>,
    /// Whether the row in force when the window opens belongs to it.
    pub prevailing: bool,
}

/// An aggregate over windows.
#[derive(Debug, Clone)]
pub struct WindowAggregate {
    /// The aggregate.
    pub function: Arc<AggregateFunctionExpr>,
    /// Its condition: FILTER (WHERE …).
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

/// A window join in a plan.
pub type WindowJoinExec = OperatorExec<WindowExprs>;

impl Operator for WindowExprs {
    const NAME: &'static str = "WindowJoinExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, aggregates) = (self.key_types.len(), self.aggregates.len());
        write!(f, "keys={keys}, aggregates={aggregates}, prevailing={}", self.prevailing)
    }

    fn run(&self, mut run: Run) -> Result<SendableRecordBatchStream> {
        let [left, right] = run.inputs()?;
        let Run { schema, memory, .. } = run;
        let (exprs, made) = (self.clone(), schema.clone());
        let joined = stream::once(async move {
            let join = Windows::build(right, exprs, made, memory).await?;
            Ok::<_, datafusion::error::DataFusionError>(stream::unfold(
                (join, left),
                |(mut join, mut left)| async move {
                    let made = match left.next().await? {
                        Ok(batch) => join.probe(&batch).await,
                        Err(error) => Err(error),
                    };
                    Some((made, (join, left)))
                },
            ))
        });
        let joined = joined.flat_map(|joined| match joined {
            Ok(batches) => batches.left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, joined)))
    }
}

struct Windows {
    exprs: WindowExprs,
    schema: SchemaRef,
    codes: KeyCodes,
    index: TimeIndex,
    aggregates: Vec<Ordered>,
    near: Vec<u32>,
    left_memory: MemoryReservation,
    _memory: MemoryReservation,
}

fn evaluate<'a>(
    exprs: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>,
    batch: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    exprs.into_iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

impl Windows {
    async fn build(
        mut input: SendableRecordBatchStream,
        exprs: WindowExprs,
        schema: SchemaRef,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let mut codes = KeyCodes::new(exprs.key_types.clone(), exprs.null_safe.clone())?;
        let (mut row_codes, mut row_times, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        let mut values: Vec<Vec<RecordBatch>> = vec![Vec::new(); exprs.aggregates.len()];
        while let Some(batch) = input.next().await {
            let batch = batch?;
            memory.try_grow(batch.num_rows() * 40)?;
            row_codes.extend_from_slice(&codes.codes(&evaluate(&exprs.keys[1], &batch)?, batch.num_rows())?);
            let times = Times::new(&evaluate([&exprs.time], &batch)?[0], &exprs.time_type)?;
            row_times.extend_from_slice(times.values());
            valid.extend((0..batch.num_rows()).map(|row| times.is_valid(row)));
            for (aggregate, values) in exprs.aggregates.iter().zip(&mut values) {
                let columns = arguments(aggregate, &batch)?;
                memory.try_grow(2 * columns.get_array_memory_size())?;
                values.push(columns);
            }
        }
        let index = TimeIndex::new(&row_codes, &row_times, |row| valid[row], codes.len()).await?;
        memory.try_grow(index.rows().len() * KNOWN_ROW_BYTES * values.len())?;
        let mut aggregates = Vec::with_capacity(values.len());
        for (WindowAggregate { function, filter }, values) in exprs.aggregates.iter().zip(values) {
            let columns = match values.first() {
                Some(first) => {
                    let mut all = Collected::new(first.schema());
                    values.into_iter().for_each(|batch| all.push(batch));
                    all.rows(index.rows())?
                }
                None => Vec::new(),
            };
            aggregates.push(Ordered::new(function.clone(), columns, filter.is_some()));
        }
        let near = vec![0; codes.len()];
        let left_memory = memory.new_empty();
        Ok(Self { exprs, schema, codes, index, aggregates, near, left_memory, _memory: memory })
    }

    /// Joins a batch of the left side. It lets others run between windows, of which one may be as long as the right side.
    async fn probe(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let codes = self.codes.codes(&evaluate(&self.exprs.keys[0], batch)?, rows)?;
        // The keys of the left side are known from then on, too.
        self.left_memory.try_resize(self.codes.bytes())?;
        let ends = evaluate(&self.exprs.window, batch)?;
        let [low, high] = [Times::new(&ends[0], &self.exprs.time_type)?, Times::new(&ends[1], &self.exprs.time_type)?];
        let condition = evaluate(&self.exprs.left_condition, batch)?.pop();
        let passes = |row: usize| {
            condition
                .as_ref()
                .map(|condition| condition.as_boolean())
                .is_none_or(|condition| condition.is_valid(row) && condition.value(row))
        };
        let mut windows = Vec::with_capacity(rows);
        for (row, code) in codes.iter().enumerate() {
            let has_window = low.is_valid(row) && high.is_valid(row) && passes(row);
            windows.push(if has_window { self.window(*code, low.values()[row], high.values()[row]) } else { 0..0 });
        }
        let width = self.exprs.width;
        let mut columns = batch.columns()[..width].to_vec();
        for (aggregate, field) in self.aggregates.iter_mut().zip(&self.schema.fields()[width..]) {
            let mut parts = Vec::new();
            for part in aggregate.parts(&windows) {
                parts.push(aggregate.over(&windows[part], field.data_type())?);
                tokio::task::yield_now().await;
            }
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(match parts.is_empty() {
                true => new_empty_array(field.data_type()),
                false => concat(&parts)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Returns the places of a window.
    fn window(&mut self, code: u32, low: i64, high: i64) -> Range<usize> {
        let group = self.index.group(code);
        if group.is_empty() {
            return 0..0;
        }
        let near = &mut self.near[code as usize];
        let mut start = self.index.search(&group, low, false, *near as usize);
        *near = start as u32;
        let end = self.index.search(&group, high, true, start).max(start);
        // The row in force when the window opens; one exactly at the start is that row.
        let opens_at_row = start < group.end && self.index.times()[start] == low;
        if self.exprs.prevailing && !opens_at_row && start > group.start && low <= high {
            start -= 1;
        }
        start..end
    }
}

/// Returns the arguments of an aggregate; of rows that do not pass its condition they are null. Behind them stands which pass, where it
/// has a condition.
fn arguments(aggregate: &WindowAggregate, batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = evaluate(&aggregate.function.expressions(), batch)?;
    if let Some(filter) = &aggregate.filter {
        let passes = filter.evaluate(batch)?.into_array(batch.num_rows())?;
        let fails: BooleanArray = passes.as_boolean().iter().map(|passes| Some(passes != Some(true))).collect();
        for column in &mut columns {
            *column = arrow::compute::nullif(column, &fails)?;
        }
        columns.push(Arc::new(arrow::compute::not(&fails)?));
    }
    let fields: Vec<_> =
        columns.iter().enumerate().map(|(at, column)| (format!("a{at}"), column.clone(), true)).collect();
    Ok(RecordBatch::try_from_iter_with_nullable(fields)?)
}
