//! What a scan hands out of each row: columns as they lie in memory, symbols by their codes, and numbers of rows.

use crate::domain::executor::scan::Nans;
use crate::domain::storage::{LoadedColumns, Segment, SegmentCodes, SymbolTable, without_signed_nans};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, resources_err};
use std::ops::Range;
use std::sync::Arc;

/// What is handed out of each row.
#[derive(Debug, Clone)]
pub struct Output {
    /// Names and types.
    pub schema: SchemaRef,
    /// Positions of columns in the table; one past its own is the row's number.
    pub columns: Vec<usize>,
    /// Columns of text by their codes, in the place of one of those or behind them.
    pub coded: Vec<CodedColumn>,
    /// What becomes of NaNs that have a sign.
    pub nans: Nans,
}

impl Output {
    /// Returns the positions of the columns in the table that are handed out as they lie.
    pub fn read_columns(&self) -> Vec<usize> {
        let is_coded = |place: &usize| self.coded.iter().any(|coded| coded.place == *place);
        let read = self.columns.iter().enumerate().filter(|(place, _)| !is_coded(place));
        read.map(|(_, column)| *column).collect()
    }

    /// Returns single rows of a segment, whose first row is the table's `first_row`.
    ///
    /// # Errors
    ///
    /// `Internal` where they do not have the schema.
    pub fn picked(
        &self,
        segment: &Segment,
        columns: &LoadedColumns,
        first_row: u64,
        rows: &UInt32Array,
    ) -> Result<RecordBatch> {
        let numbers = || {
            let numbers = rows.values().iter().map(|row| first_row + u64::from(*row));
            Arc::new(UInt64Array::from_iter_values(numbers)) as ArrayRef
        };
        self.batch((segment, columns), rows.len(), numbers, |column| Ok(take(column, rows, None)?))
    }

    /// Returns neighbouring rows of a segment, whose first row is the table's `first_row`, without a copy.
    ///
    /// # Errors
    ///
    /// `Internal` where they do not have the schema.
    pub fn slice(
        &self,
        segment: &Segment,
        columns: &LoadedColumns,
        first_row: u64,
        rows: Range<usize>,
    ) -> Result<RecordBatch> {
        let (offset, rows) = (rows.start, rows.len());
        let first = first_row + offset as u64;
        let numbers = || Arc::new(UInt64Array::from_iter_values(first..first + rows as u64)) as ArrayRef;
        self.batch((segment, columns), rows, numbers, |column| Ok(column.slice(offset, rows)))
    }

    fn batch(
        &self,
        (segment, columns): (&Segment, &LoadedColumns),
        rows: usize,
        numbers: impl Fn() -> ArrayRef,
        part: impl Fn(&ArrayRef) -> Result<ArrayRef>,
    ) -> Result<RecordBatch> {
        let coded = |place: usize| self.coded.iter().find(|coded| coded.place == place);
        let column = |(place, index): (usize, &usize)| match columns.get(*index) {
            _ if let Some(coded) = coded(place) => part(&coded.of(segment)?),
            Some(column) if self.nans == Nans::Unsigned && segment.has_signed_nan(*index) => {
                Ok(without_signed_nans(&part(column)?))
            }
            Some(column) => part(column),
            None => Ok(numbers()),
        };
        let mut columns = self.columns.iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        for coded in self.coded.iter().filter(|coded| coded.place >= self.columns.len()) {
            columns.push(part(&coded.of(segment)?)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// A column of text by its codes: a dictionary whose values all batches share.
#[derive(Debug, Clone)]
pub struct CodedColumn {
    /// Position in the table.
    pub column: usize,
    /// Position in what is handed out.
    pub place: usize,
    /// The codes of its values.
    pub symbols: Arc<SymbolTable>,
    /// The values.
    pub values: ArrayRef,
}

impl CodedColumn {
    /// Returns a segment's rows by their codes, without a copy.
    ///
    /// # Errors
    ///
    /// Those of [`codes_of`].
    pub fn of(&self, segment: &Segment) -> Result<ArrayRef> {
        let codes = codes_of(segment, self.column, &self.symbols)?;
        Ok(codes.column(&self.values, 0, segment.physical_rows()))
    }
}

/// Returns the codes of a segment; makes them where memory was short since the plan was made.
///
/// # Errors
///
/// `ResourcesExhausted` where it still is.
pub fn codes_of(segment: &Segment, column: usize, symbols: &Arc<SymbolTable>) -> Result<Arc<SegmentCodes>> {
    if segment.encode(column, symbols)
        && let Some(codes) = segment.codes(column, symbols)
    {
        return Ok(codes);
    }
    resources_err!("the codes of a column's symbols were given up while a query went by them; ask again")
}
