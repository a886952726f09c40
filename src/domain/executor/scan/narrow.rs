//! Leaves out rows that cannot be part of an answer: outside of the times that a filter asks for, or not the last of their symbol.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::scan::pieces::Piece;
use crate::domain::storage::Segment;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use std::ops::Range;

/// The times of a column that may pass: from the first, and before the second where there is one.
pub struct TimeBounds {
    column: usize,
    from: i64,
    before: Option<i64>,
}

/// Reads what filters, all of which have to hold, say of columns of times.
pub fn time_bounds(filters: &[Expr], schema: &SchemaRef) -> Vec<TimeBounds> {
    filters.iter().filter_map(|filter| time_bound(filter, schema)).collect()
}

fn time_bound(filter: &Expr, schema: &SchemaRef) -> Option<TimeBounds> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (column, op, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap()?, value),
        _ => return None,
    };
    let index = schema.index_of(&column.name).ok()?;
    // A literal of another unit or zone has been cast to the column's, or the column to it: then it is no column here.
    if !matches!(schema.field(index).data_type(), DataType::Timestamp(..))
        || *schema.field(index).data_type() != value.data_type()
    {
        return None;
    }
    let ScalarValue::Int64(Some(at)) = value.cast_to(&DataType::Int64).ok()? else { return None };
    let (from, before) = match op {
        Operator::GtEq => (at, None),
        Operator::Gt => (at.checked_add(1)?, None),
        Operator::Lt => (i64::MIN, Some(at)),
        Operator::LtEq => (i64::MIN, Some(at.checked_add(1)?)),
        Operator::Eq => (at, Some(at.checked_add(1)?)),
        _ => return None,
    };
    Some(TimeBounds { column: index, from, before })
}

/// Returns those of the rows of a segment that lie within all bounds by columns that are in order, and maybe more.
pub fn narrowed(segment: &Segment, range: Range<usize>, bounds: &[TimeBounds]) -> Range<usize> {
    let mut range = range;
    for bounds @ TimeBounds { column, from, before } in bounds {
        if segment.null_count(*column) > 0 || !segment.is_in_order(*column) || all_within(segment, bounds) {
            continue;
        }
        let Ok(times) = segment.column(*column) else { continue };
        let Ok(times) = cast(&times.slice(range.start, range.len()), &DataType::Int64) else { continue };
        let times = times.as_primitive::<Int64Type>().values();
        let start = times.partition_point(|time| time < from);
        let end = before.map_or(times.len(), |before| times.partition_point(|time| *time < before));
        range = range.start + start..range.start + end.max(start);
    }
    range
}

/// Returns whether all rows of a segment are known to lie within bounds without a look at them, where that would mean reading them.
fn all_within(segment: &Segment, TimeBounds { column, from, before }: &TimeBounds) -> bool {
    if segment.columns().are_in_memory(&[*column]) {
        return false;
    }
    let ends = segment.bounds(*column).and_then(|ends| cast(ends, &DataType::Int64).ok());
    ends.is_some_and(|ends| {
        let ends = ends.as_primitive::<Int64Type>();
        ends.value(0) >= *from && before.is_none_or(|before| ends.value(1) < before)
    })
}

impl ScanExec {
    /// Returns the same scan of the last rows of the symbols of column `key`, wherever a segment is read whole and has no deleted rows;
    /// `times`, if given, is a column by which its rows have to be in order. Of a table in that order, or where any row of a symbol
    /// does, one segment gives the row of a symbol. None where that is nowhere.
    pub fn of_last_rows(&self, key: usize, times: Option<usize>) -> Option<Self> {
        let is_ordered = times.is_none_or(|times| self.is_in_order(times));
        let key = *self.columns.get(key)?;
        // The last row of a symbol may not be one of those that are read, unless it is read for its symbol.
        if self.wanted.as_ref().is_some_and(|wanted| wanted.column != key) {
            return None;
        }
        let symbols = self.table.symbols(key)?;
        let times = match times {
            Some(at) => Some(*self.columns.get(at)?),
            None => None,
        };
        // For each symbol, and behind them for NULL, whether a later segment has it.
        let mut is_found = vec![false; symbols.values().len() + 1];
        let mut is_less = false;
        let mut last = |piece: &Piece| {
            let segment = &piece.segment;
            let is_whole = segment.mask().is_none() && piece.rows == segment.physical_rows() && piece.picked.is_none();
            let is_in_order = times.is_none_or(|times| segment.null_count(times) == 0 && segment.is_in_order(times));
            let codes = segment.codes(key, &symbols).filter(|_| is_whole && is_in_order);
            let Some(codes) = codes else { return Some(piece.clone()) };
            let Some(rows) = codes.last_rows() else { return Some(piece.clone()) };
            is_less = true;
            let null = is_found.len() - 1;
            let code = |row: usize| if codes.is_null(row) { null } else { codes.codes()[row] as usize };
            let is_new = |row: &&u32| !std::mem::replace(&mut is_found[code(**row as usize)], true);
            let picked = match is_ordered {
                true => rows.values().iter().filter(is_new).copied().collect(),
                false => rows.clone(),
            };
            let rows = picked.len();
            (rows > 0).then(|| Piece { picked: Some(picked), rows, ..piece.clone() })
        };
        let mut partitions: Vec<Vec<Piece>> = Vec::with_capacity(self.partitions.len());
        for pieces in self.partitions.iter().rev() {
            let mut left: Vec<Piece> = pieces.iter().rev().filter_map(&mut last).collect();
            left.reverse();
            partitions.push(left);
        }
        partitions.reverse();
        is_less.then(|| self.with_partitions(partitions))
    }
}
