//! Runs of rows of a segment, and the batches that they are handed out in.

use crate::domain::executor::scan::output::Output;
use crate::domain::storage::{LoadedColumns, Segment};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::common::{Result, ScalarValue};
use std::ops::Range;
use std::sync::Arc;

/// Consecutive rows of a segment.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Number of the segment's first row in the table, with the deleted ones before it.
    pub first_row: u64,
    /// Where in the segment the rows lie.
    pub range: Range<usize>,
    /// How many of those are left.
    pub rows: usize,
    /// The rows that are read alone, if not all are; there are no deleted ones then.
    pub picked: Option<UInt32Array>,
}

impl Piece {
    /// Returns the values of a column, in whose order the segment is, in the first and the last row.
    pub fn ends(&self, column: usize) -> Option<[ScalarValue; 2]> {
        let at = |values: &ArrayRef, row: usize| ScalarValue::try_from_array(values, row).ok();
        let is_whole = self.range == (0..self.segment.physical_rows());
        // In memory the values are at hand; elsewhere the bounds of a column in order are the same.
        if is_whole && !self.segment.columns().are_in_memory(&[column]) {
            let bounds = self.segment.bounds(column)?;
            return Some([at(bounds, 0)?, at(bounds, 1)?]);
        }
        let values = self.segment.column(column).ok()?;
        Some([at(&values, self.range.start)?, at(&values, self.range.end.checked_sub(1)?)?])
    }
}

/// Splits `pieces` into up to `count` runs of about as many rows.
pub fn partition(pieces: Vec<Piece>, count: usize) -> Vec<Vec<Piece>> {
    let rows: usize = pieces.iter().map(|piece| piece.rows).sum();
    let share = rows.div_ceil(count.max(1)).max(1);
    let mut partitions = vec![Vec::new()];
    let mut filled = 0;
    for piece in pieces {
        if filled >= share * partitions.len() {
            partitions.push(Vec::new());
        }
        filled += piece.rows;
        partitions.last_mut().expect("there is always a partition").push(piece);
    }
    partitions
}

/// Runs between deleted rows up to which a batch is handed out in slices rather than copied.
const RUNS_MAX: usize = 8;

/// Part of a piece, as long as one batch may be.
pub struct Slice {
    segment: Arc<Segment>,
    columns: Arc<LoadedColumns>,
    first_row: u64,
    /// Where in the segment it lies.
    range: Range<usize>,
    /// Whether some rows in there are deleted.
    masked: bool,
    /// The rows of the segment that are read alone.
    picked: Option<UInt32Array>,
}

/// Divides a piece, whose columns are in memory, into batches of so many rows.
pub fn slices(piece: Piece, columns: Arc<LoadedColumns>, batch_rows: usize) -> impl Iterator<Item = Slice> + Send {
    let Range { start, end } = match &piece.picked {
        Some(picked) => 0..picked.len(),
        None => piece.range.clone(),
    };
    (start..end).step_by(batch_rows).flat_map(move |from| {
        let window = from..end.min(from.saturating_add(batch_rows));
        let picked = piece.picked.as_ref().map(|picked| picked.slice(from, window.len()));
        let slice = |range, masked| {
            let (segment, columns, picked) = (piece.segment.clone(), columns.clone(), picked.clone());
            Slice { segment, columns, first_row: piece.first_row, range, masked, picked }
        };
        match piece.segment.mask().filter(|_| piece.picked.is_none()).map(|mask| mask.runs(window.clone())) {
            None => vec![slice(window, false)],
            Some(runs) if runs.len() <= RUNS_MAX => runs.into_iter().map(|run| slice(run, false)).collect(),
            Some(_) => vec![slice(window, true)],
        }
    })
}

impl Slice {
    /// Returns the rows.
    ///
    /// # Errors
    ///
    /// `Internal` where they do not have the schema.
    pub fn batch(self, output: &Output) -> Result<RecordBatch> {
        if let Some(picked) = &self.picked {
            return output.picked(&self.segment, &self.columns, self.first_row, picked);
        }
        let offset = self.range.start;
        let batch = output.slice(&self.segment, &self.columns, self.first_row, self.range.clone())?;
        match self.segment.mask().filter(|_| self.masked) {
            Some(mask) => Ok(mask.filter(&batch, offset)?),
            None => Ok(batch),
        }
    }
}
