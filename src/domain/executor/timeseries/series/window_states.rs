//! What window functions by symbol compute, and their states.

use crate::domain::executor::timeseries::keys::Times;
use crate::domain::executor::timeseries::series::rolling::Rolling;
use crate::domain::executor::timeseries::windows::{Running, Step};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
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

impl SeriesWindow {
    /// Returns whether the function needs the time of a row beside its place.
    pub fn needs_time(&self) -> bool {
        matches!(self.kind, WindowKind::Step(step) if step.needs_time())
    }

    /// Returns the times of rows, in nanoseconds.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for times that nanoseconds cannot hold.
    pub fn times(&self, batch: &RecordBatch) -> Result<Times> {
        let times = self.time.evaluate(batch)?.into_array(batch.num_rows())?;
        Times::new(&times, &DataType::Timestamp(TimeUnit::Nanosecond, None))
    }

    /// Returns the times of rows in the unit of their column.
    ///
    /// # Errors
    ///
    /// arrow's, for what is no time.
    pub fn places_in_time(&self, batch: &RecordBatch) -> Result<Times> {
        let times = self.time.evaluate(batch)?.into_array(batch.num_rows())?;
        Times::new(&times, times.data_type())
    }
}

/// The states of one function, one for each code.
pub enum State {
    /// From row to row.
    Step(Step, Vec<Running>),
    /// Of the last rows, their mean or their sum.
    Rolling(Rolling, bool),
}

impl State {
    /// Makes the states of a function.
    pub fn new(kind: WindowKind, codes: usize) -> Self {
        match kind {
            WindowKind::Step(step) => Self::Step(step, vec![Running::default(); codes]),
            WindowKind::RollingMean(before) => Self::Rolling(Rolling::new(codes, before + 1), true),
            WindowKind::RollingSum(before) => Self::Rolling(Rolling::new(codes, before + 1), false),
        }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Step(_, running) => running.capacity() * size_of::<Running>(),
            Self::Rolling(rolling, _) => rolling.bytes(),
        }
    }

    /// Takes rows in, in the order of their times, and returns the answer of each: of its value, a double, its code, and its time where the
    /// function needs it.
    pub fn answer(&mut self, values: &ArrayRef, codes: &[u32], times: Option<&[i64]>) -> ArrayRef {
        let values = values.as_primitive::<Float64Type>();
        let value = |row: usize| values.is_valid(row).then(|| values.value(row));
        match self {
            Self::Step(step, running) if let Some(times) = times => {
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
                    return Arc::new(Float64Array::from(answers.collect::<Vec<_>>()));
                }
                let answers = codes.iter().enumerate().map(|(row, code)| {
                    let (sum, count) = rolling.next(*code as usize, value(row));
                    (count > 0).then(|| answer((sum, count)))
                });
                Arc::new(answers.collect::<Float64Array>())
            }
        }
    }
}
