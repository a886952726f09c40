//! Rows some of which are late: read whole, answered in the order of their times, handed out as they arrived.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::series::exec::codes_of;
use crate::domain::executor::timeseries::series::window_states::{SeriesWindow, State};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::stream::{self, Stream, StreamExt};

/// Rows that are answered between two pauses.
const ANSWERED_AT_ONCE: usize = 1 << 16;

/// Memory of a row, in bytes: its time, its code, its place in order of time, and the way back.
const ROW_BYTES: usize = 8 + 4 + 4 + 4;

/// Memory of a row for each function, in bytes: its value and its answer, each with what says that it is NULL.
const WINDOW_ROW_BYTES: usize = 18;

/// All rows.
pub struct LateRows {
    windows: Vec<SeriesWindow>,
    batches: Vec<RecordBatch>,
    codes: Vec<u32>,
    times: Vec<i64>,
    /// The values of each function, batch by batch.
    values: Vec<Vec<ArrayRef>>,
    memory: MemoryReservation,
}

impl LateRows {
    /// Reads all rows. `code` is where their codes are, and how many there may be.
    ///
    /// # Errors
    ///
    /// Those of the input and of expressions; where there is no memory; more rows than 32 bits count.
    pub async fn read(
        mut input: SendableRecordBatchStream,
        windows: Vec<SeriesWindow>,
        code: (Option<usize>, usize),
        memory: MemoryReservation,
    ) -> Result<Self> {
        let values = windows.iter().map(|_| Vec::new()).collect();
        let (batches, codes, times) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = Self { windows, batches, codes, times, values, memory };
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let rows = batch.num_rows();
            all.memory.try_grow(rows * (ROW_BYTES + WINDOW_ROW_BYTES * all.windows.len()))?;
            all.codes.extend_from_slice(&codes_of(&batch, code.0, code.1)?);
            if let Some(window) = all.windows.first() {
                // Where it is only their order that counts, times need not be ones that nanoseconds can hold.
                let times = match all.windows.iter().any(SeriesWindow::needs_time) {
                    true => window.times(&batch)?,
                    false => window.places_in_time(&batch)?,
                };
                all.times.extend_from_slice(times.values());
            }
            for (window, values) in all.windows.iter().zip(&mut all.values) {
                values.push(window.value.evaluate(&batch)?.into_array(rows)?);
            }
            all.batches.push(batch);
        }
        match u32::try_from(all.codes.len()) {
            Ok(_) => Ok(all),
            Err(_) => Err(refused("a window has too many rows".to_owned())),
        }
    }

    /// Answers each function by its states; batches have `schema`.
    ///
    /// # Errors
    ///
    /// arrow's.
    pub async fn answer(
        self,
        states: Vec<State>,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + 'static> {
        let order = in_order_of_time(&self.times);
        let mut places = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(row, place)| places[*row as usize] = place);
        let mut answers = Vec::with_capacity(states.len());
        for ((window, mut state), values) in self.windows.iter().zip(states).zip(&self.values) {
            // Nothing can be put together of no batches, and there is nobody to answer.
            if values.is_empty() {
                continue;
            }
            let values = concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
            let mut parts: Vec<ArrayRef> = Vec::new();
            for rows in order.chunks(ANSWERED_AT_ONCE) {
                let codes: Vec<u32> = rows.iter().map(|row| self.codes[*row as usize]).collect();
                let time = |row: &u32| self.times[*row as usize];
                let times: Option<Vec<i64>> = window.needs_time().then(|| rows.iter().map(time).collect());
                let values = take(&values, &UInt32Array::from(rows.to_vec()), None)?;
                parts.push(state.answer(&values, &codes, times.as_deref()));
                tokio::task::consume_budget().await;
            }
            answers.push(match parts.is_empty() {
                true => values,
                false => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
            });
        }
        let (places, memory) = (UInt32Array::from(places), self.memory);
        let width = schema.fields().len() - answers.len();
        let mut from = 0;
        Ok(stream::iter(self.batches).map(move |batch| {
            let _held = &memory;
            let places = places.slice(from, batch.num_rows());
            from += batch.num_rows();
            let mut columns = batch.columns()[..width].to_vec();
            for answers in &answers {
                columns.push(take(answers, &places, None)?);
            }
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        }))
    }
}

/// Returns the numbers of rows in the order of their times, those of one time as they arrived.
///
/// Most rows are not late: only those before which a later one came are sorted, and merged with the others.
fn in_order_of_time(times: &[i64]) -> Vec<u32> {
    let (mut in_order, mut late): (Vec<u32>, Vec<u32>) = (Vec::with_capacity(times.len()), Vec::new());
    let mut reached = i64::MIN;
    for (row, time) in (0..).zip(times) {
        if *time >= reached {
            reached = *time;
            in_order.push(row);
        } else {
            late.push(row);
        }
    }
    if late.is_empty() {
        return in_order;
    }
    let key = |row: u32| (times[row as usize], row);
    late.sort_unstable_by_key(|row| key(*row));
    let mut merged = Vec::with_capacity(times.len());
    let mut late = late.into_iter().peekable();
    for row in in_order {
        while let Some(before) = late.next_if(|late| key(*late) < key(row)) {
            merged.push(before);
        }
        merged.push(row);
    }
    merged.extend(late);
    merged
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::series::late_rows::in_order_of_time;

    #[test]
    fn late_rows_go_to_their_places_and_equal_times_stay() {
        assert_eq!(in_order_of_time(&[]), [0; 0]);
        assert_eq!(in_order_of_time(&[1, 2, 2, 5]), [0, 1, 2, 3]);
        assert_eq!(in_order_of_time(&[5, 1, 5, 3, 1, 9, 5]), [1, 4, 3, 0, 2, 6, 5]);
        let times: Vec<i64> = (0..1_000).map(|n| n * 7_919 % 101).collect();
        let mut expected: Vec<u32> = (0..1_000).collect();
        expected.sort_by_key(|row| times[*row as usize]);
        assert_eq!(in_order_of_time(&times), expected);
    }
}
