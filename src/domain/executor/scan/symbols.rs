//! Looks for the rows of a few symbols by their codes.
//!
//! A filter for a few symbols compares small integers, reads nothing of the other columns for the rest of the rows, and takes out
//! what it found. Rows that it finds are few in each segment, so batches are put together of several.

use crate::domain::executor::scan::loading::loaded;
use crate::domain::executor::scan::output::{Output, codes_of};
use crate::domain::executor::scan::pieces::Piece;
use crate::domain::storage::SymbolTable;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use futures::stream::{self, Stream};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are looked through between two pauses.
const LOOKED_AT_ONCE: usize = 1 << 18;

/// Rows from which on a batch is handed out.
const BATCH_ROWS: usize = 8_192;

/// Rows that are compared before one of them is looked at.
const CHUNK: usize = 32;

/// Rows of a chunk in which one was found that are compared before each of them is looked at.
const FEW: usize = 8;

/// The symbols of a column whose rows alone are read.
#[derive(Debug, Clone)]
pub struct WantedSymbols {
    /// Position in the table.
    pub column: usize,
    symbols: Arc<SymbolTable>,
    /// Their codes, in order.
    codes: Arc<[u32]>,
}

impl WantedSymbols {
    /// Looks for values among those of a column; no row has those that are not found.
    pub fn new(column: usize, symbols: Arc<SymbolTable>, values: &[&str]) -> Self {
        let mut codes: Vec<u32> = values.iter().filter_map(|value| symbols.code_of(value)).collect();
        codes.sort_unstable();
        codes.dedup();
        Self { column, symbols, codes: codes.into() }
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.codes.len()
    }

    /// Returns the share of all rows that have one of them, as if every symbol had as many.
    pub fn share(&self) -> f64 {
        (self.codes.len() as f64 / self.symbols.count().max(1) as f64).min(1.0)
    }

    /// Returns the rows of part of a piece that have one of them.
    fn rows(&self, piece: &Piece, part: Range<usize>) -> Result<UInt32Array> {
        let codes = codes_of(&piece.segment, self.column, &self.symbols)?;
        let mut rows = Vec::new();
        match (&piece.picked, self.codes.as_ref()) {
            (_, []) => {}
            (Some(picked), wanted) => {
                let picked = picked.values()[part].iter();
                rows.extend(picked.filter(|row| wanted.binary_search(&codes.codes()[**row as usize]).is_ok()));
            }
            (None, [wanted]) => find_one(codes.codes(), part, *wanted, &mut rows),
            (None, wanted) => {
                let mut is_wanted = vec![false; wanted.last().map_or(0, |last| *last as usize + 1)];
                wanted.iter().for_each(|code| is_wanted[*code as usize] = true);
                find(codes.codes(), part, |code| is_wanted.get(code as usize) == Some(&true), &mut rows);
            }
        }
        if let Some(nulls) = codes.nulls() {
            rows.retain(|row| nulls.is_valid(*row as usize));
        }
        // A scan of picked rows has no deleted ones.
        if let Some(mask) = piece.segment.mask().filter(|_| piece.picked.is_none()) {
            rows.retain(|row| !mask.is_deleted(*row as usize));
        }
        Ok(rows.into())
    }
}

/// Finds the rows of a range that have a code.
fn find_one(codes: &[u32], range: Range<usize>, wanted: u32, rows: &mut Vec<u32>) {
    // Without a way out of the loops, which so become a few instructions.
    let has = |codes: &[u32]| codes.iter().fold(false, |found, code| found | (*code == wanted));
    let mut from = range.start;
    for chunk in codes[range].chunks(CHUNK) {
        if has(chunk) {
            for (at, few) in chunk.chunks(FEW).enumerate().filter(|(_, few)| has(few)) {
                let rows_of = (from + at * FEW) as u32..;
                rows.extend(rows_of.zip(few).filter(|(_, code)| **code == wanted).map(|(row, _)| row));
            }
        }
        from += chunk.len();
    }
}

/// Finds the rows of a range whose code is wanted. Every row is written down, and the next one over it unless it is wanted: nothing that
/// a processor could guess wrong.
fn find(codes: &[u32], range: Range<usize>, is_wanted: impl Fn(u32) -> bool, rows: &mut Vec<u32>) {
    let mut count = rows.len();
    rows.resize(count + range.len(), 0);
    for (row, code) in (range.start as u32..).zip(&codes[range]) {
        rows[count] = row;
        count += usize::from(is_wanted(*code));
    }
    rows.truncate(count);
}

/// Hands out the rows of pieces that have one of the symbols.
pub fn wanted_rows(
    pieces: Vec<Piece>,
    wanted: WantedSymbols,
    output: Output,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let parts: VecDeque<_> = pieces.into_iter().flat_map(parts).collect();
    let found: Vec<RecordBatch> = Vec::new();
    let read_columns: Arc<[usize]> = output.read_columns().into();
    stream::try_unfold((parts, found), move |(mut parts, mut found)| {
        let (wanted, output, read_columns) = (wanted.clone(), output.clone(), read_columns.clone());
        async move {
            let mut count = 0;
            while let Some((piece, part)) = parts.pop_front() {
                let rows = wanted.rows(&piece, part)?;
                if !rows.is_empty() {
                    let columns = loaded(&piece.segment, &read_columns).await?;
                    found.push(output.picked(&piece.segment, &columns, piece.first_row, &rows)?);
                }
                count += rows.len();
                if count >= BATCH_ROWS {
                    break;
                }
                tokio::task::consume_budget().await;
            }
            let batch = match found.as_slice() {
                [] => return Ok::<_, DataFusionError>(None),
                [only] => only.clone(),
                several => concat_batches(&output.schema, several)?,
            };
            Ok(Some((batch, (parts, Vec::new()))))
        }
    })
}

/// Divides a piece into parts that are looked through at once.
fn parts(piece: Piece) -> impl Iterator<Item = (Piece, Range<usize>)> {
    let Range { start, end } = match &piece.picked {
        Some(picked) => 0..picked.len(),
        None => piece.range.clone(),
    };
    (start..end).step_by(LOOKED_AT_ONCE).map(move |from| (piece.clone(), from..end.min(from + LOOKED_AT_ONCE)))
}
