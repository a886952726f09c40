//! Window functions by symbol: a state for each symbol, and no sort where rows lie in the order of their time.
//!
//! Where some are late all rows are kept, as they lie, until all have come; their numbers are put in order of time (`late_rows`), and
//! answers go back to the places of their rows. So rows leave in the order in which they arrived either way.

use crate::domain::executor::timeseries::keys::Times;
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use crate::domain::executor::timeseries::series::exec::codes_of;
use crate::domain::executor::timeseries::series::late_rows::LateRows;
use crate::domain::executor::timeseries::series::window_states::{SeriesWindow, State};
use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fmt;

/// Window functions by code, over rows each of which has a time. Batches have the columns of the input but for the codes, and one for each
/// function.
#[derive(Debug)]
pub struct SeriesWindows {
    /// Position of the symbol's codes, the last column of the input; none where all rows are one series.
    pub code: Option<usize>,
    /// Number of codes, with that of NULL.
    pub codes: usize,
    /// The functions.
    pub windows: Vec<SeriesWindow>,
    /// Whether rows come in the order of their time.
    pub in_order: bool,
}

/// Window functions by code in a plan.
pub type SeriesWindowExec = OperatorExec<SeriesWindows>;

impl Operator for SeriesWindows {
    const NAME: &'static str = "SeriesWindowExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.windows.iter().map(|window| window.kind).collect();
        let late = if self.in_order { "" } else { ", with late rows" };
        write!(f, "{kinds:?}{late}")
    }

    fn run(&self, mut run: Run) -> Result<SendableRecordBatchStream> {
        let [input] = run.inputs()?;
        let Run { schema, memory, .. } = run;
        let mut states: Vec<State> = self.windows.iter().map(|window| State::new(window.kind, self.codes)).collect();
        memory.try_grow(states.iter().map(State::bytes).sum())?;
        let (windows, code, codes, made) = (self.windows.clone(), self.code, self.codes, schema.clone());
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
}
