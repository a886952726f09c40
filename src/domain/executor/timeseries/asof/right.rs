//! The right side of a join by time: its rows as they arrived, with the codes of their keys and their times.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::asof::exprs::{AsOfExprs, evaluate};
use crate::domain::executor::timeseries::asof::index::TimeIndex;
use crate::domain::executor::timeseries::collected::Collected;
use crate::domain::executor::timeseries::keys::{KeyCodes, Times};
use crate::domain::storage::slice_bytes;
use arrow::buffer::ScalarBuffer;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Memory that a row takes while the index is made, in bytes: its code, its time and its number, twice.
const INDEX_ROW_BYTES: usize = 32;

/// The rows of a batch.
#[derive(Debug)]
pub struct RightBatch {
    /// The number of its first row.
    pub start: u32,
    /// The code of each row's key, `u32::MAX` without one.
    pub codes: ScalarBuffer<u32>,
    /// The time of each row.
    pub times: Times,
}

/// The whole side, shared by all that look rows up.
#[derive(Debug)]
pub struct Right {
    /// What is answered of its rows.
    pub rows: Collected,
    /// Its batches, in order of arrival.
    pub batches: Vec<RightBatch>,
    /// Number of codes.
    pub code_count: usize,
    /// Whether its rows arrived in order of time, and all have one.
    pub is_in_order: bool,
    index: OnceCell<Arc<TimeIndex>>,
    memory: MemoryReservation,
}

impl Right {
    /// Reads the side whole, and keeps the columns `answered`; those take memory where it `is_computed`, and are a table's own where
    /// not. Returns it with the codes of its keys.
    ///
    /// # Errors
    ///
    /// Those of the input and its expressions; where there is no memory for its codes and times; more rows than 32 bits count.
    pub async fn read(
        mut input: SendableRecordBatchStream,
        exprs: &AsOfExprs,
        (answered, is_computed): (&[usize], bool),
        memory: MemoryReservation,
    ) -> Result<(Self, KeyCodes)> {
        let mut codes = KeyCodes::new(exprs.key_types.clone(), exprs.null_safe.clone())?;
        let mut rows = Collected::new(Arc::new(input.schema().project(answered)?));
        let (mut batches, mut start, mut is_in_order, mut last) = (Vec::new(), 0_u32, true, i64::MIN);
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let count = batch.num_rows();
            if count == 0 {
                continue;
            }
            // The code of each row, and its time where it is not the column's own.
            memory.try_grow(count * 12)?;
            let row_codes = codes.codes(&evaluate(&exprs.keys[1], &batch)?, count)?;
            let times = Times::new(&evaluate(&exprs.times[1..], &batch)?[0], &exprs.time_type)?;
            is_in_order &= times.are_all_valid() && times.values()[0] >= last && times.values().is_sorted();
            last = times.values()[count - 1];
            batches.push(RightBatch { start, codes: row_codes, times });
            let next = u32::try_from(count).ok().and_then(|count| start.checked_add(count));
            start = next.ok_or_else(|| refused("the right side of a join by time has too many rows".to_owned()))?;
            let kept = batch.project(answered)?;
            if is_computed {
                memory
                    .try_grow(kept.columns().iter().map(|column| slice_bytes(column.as_ref())).sum::<u64>() as usize)?;
            }
            rows.push(kept);
        }
        // The codes, and a place for each in a few probes.
        memory.try_grow(codes.bytes() + codes.len() * 16)?;
        let code_count = codes.len();
        Ok((Self { rows, batches, code_count, is_in_order, index: OnceCell::new(), memory }, codes))
    }

    /// Returns its rows by key and time; they are put in that order when it is first asked for.
    ///
    /// # Errors
    ///
    /// Where there is no memory for it.
    pub async fn index(&self) -> Result<Arc<TimeIndex>> {
        self.index.get_or_try_init(|| self.make_index()).await.cloned()
    }

    async fn make_index(&self) -> Result<Arc<TimeIndex>> {
        let count = self.batches.iter().map(|batch| batch.codes.len()).sum::<usize>();
        self.memory.try_grow(count * INDEX_ROW_BYTES)?;
        let (mut codes, mut times, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        for batch in &self.batches {
            codes.extend_from_slice(&batch.codes);
            times.extend_from_slice(batch.times.values());
            valid.extend((0..batch.codes.len()).map(|row| batch.times.is_valid(row)));
            tokio::task::consume_budget().await;
        }
        Ok(Arc::new(TimeIndex::new(&codes, &times, |row| valid[row], self.code_count).await?))
    }
}
