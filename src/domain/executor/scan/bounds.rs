//! What a scan knows of its columns by the bounds of their segments.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::scan::pieces::{Piece, partition};
use crate::domain::executor::top_rows::First;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::ScalarValue;
use datafusion::physical_plan::ExecutionPlan;
use std::cmp::Ordering;

/// Near and far bound of a segment, and how many rows it has at least.
type Known = (ScalarValue, ScalarValue, usize);

impl ScanExec {
    /// Returns the same scan without the segments that cannot hold one of the first rows by column `at`; none where all may.
    pub fn with_first(&self, at: usize, first: First) -> Option<Self> {
        let column = *self.columns.get(at)?;
        let data_type = self.schema().field(at).data_type().clone();
        if !(data_type.is_temporal() || data_type.is_integer()) || !self.coded.is_empty() || self.wanted.is_some() {
            return None;
        }
        let pieces = || self.partitions.iter().flatten();
        let mut known = Vec::new();
        for piece in pieces() {
            let nulls = piece.segment.null_count(column);
            if nulls > 0 && first.nulls_first {
                return None;
            }
            // Without a value a segment has no bounds, and nothing to give.
            let Some(bounds) = piece.segment.bounds(column) else { continue };
            let bound = |row| ScalarValue::try_from_array(bounds, row).ok();
            let (least, most) = (bound(0)?, bound(1)?);
            let (near, far) = if first.descending { (most, least) } else { (least, most) };
            known.push((near, far, piece.rows.saturating_sub(nulls)));
        }
        let last = furthest_needed(known, first)?;
        let is_needed = |piece: &&Piece| {
            let near = piece.segment.bounds(column);
            let near = near.map(|bounds| ScalarValue::try_from_array(bounds, usize::from(first.descending)));
            near.is_some_and(|near| near.map_or(true, |near| !first.is_before(&last, &near)))
        };
        let nearest = |piece: &Piece| nearest(piece, column, first);
        let partitions: Vec<Vec<Piece>> =
            self.partitions.iter().map(|pieces| pieces.iter().filter(is_needed).map(nearest).collect()).collect();
        let left: usize = partitions.iter().flatten().map(|piece| piece.rows).sum();
        if left == self.rows_max() {
            return None;
        }
        Some(self.with_partitions(partitions))
    }

    /// Returns times, in nanoseconds, before and behind which there is no row, for a column of times.
    pub fn time_range_ns(&self, at: usize) -> Option<[i64; 2]> {
        let column = *self.columns.get(at)?;
        let mut range: Option<[i64; 2]> = None;
        for piece in self.partitions.iter().flatten() {
            let Some(bounds) = piece.segment.bounds(column) else { continue };
            let bounds = cast(bounds, &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?;
            let bounds = bounds.as_primitive_opt::<TimestampNanosecondType>()?;
            let (least, most) = (bounds.value(0), bounds.value(1));
            range = Some(range.map_or([least, most], |[low, high]| [low.min(least), high.max(most)]));
        }
        range
    }

    /// Returns whether the rows lie in the order of a column of times, and each has one.
    pub fn is_in_order(&self, at: usize) -> bool {
        let Some(column) = self.columns.get(at).copied() else { return false };
        let mut last: Option<ScalarValue> = None;
        for piece in self.partitions.iter().flatten() {
            if piece.segment.null_count(column) > 0 || !piece.segment.is_in_order(column) {
                return false;
            }
            let Some([first, end]) = piece.ends(column) else { return false };
            if last.is_some_and(|last| last > first) {
                return false;
            }
            last = Some(end);
        }
        true
    }

    /// Returns whether every row has a value of a column.
    pub fn has_no_nulls(&self, at: usize) -> bool {
        let Some(column) = self.columns.get(at) else { return false };
        let has_none = |piece: &Piece| {
            *column < piece.segment.columns().schema().fields().len() && piece.segment.null_count(*column) == 0
        };
        self.partitions.iter().flatten().all(has_none)
    }

    /// Returns the same scan with its rows in up to `count` partitions, in their order.
    pub fn in_partitions(&self, count: usize) -> Self {
        let pieces = self.partitions.iter().flatten().cloned().collect();
        self.with_partitions(partition(pieces, count))
    }

    /// Returns the same scan with all rows in one partition.
    pub fn in_one_partition(&self) -> Self {
        let pieces = self.partitions.iter().flatten().cloned().collect();
        self.with_partitions(vec![pieces])
    }

    /// Returns the exact bounds of a column of times or whole numbers, where every row of every segment is read.
    pub(super) fn bounds(&self, at: usize) -> Option<[ScalarValue; 2]> {
        let column = *self.columns.get(at)?;
        let is_known = self.schema().field(at).data_type().is_temporal();
        let is_whole = |piece: &Piece| piece.segment.mask().is_none() && piece.rows == piece.segment.physical_rows();
        if !is_known || self.wanted.is_some() || !self.partitions.iter().flatten().all(is_whole) {
            return None;
        }
        let mut bounds: Option<[ScalarValue; 2]> = None;
        for piece in self.partitions.iter().flatten() {
            let Some(of) = piece.segment.bounds(column) else { continue };
            let of = [0, 1].map(|row| ScalarValue::try_from_array(of, row).ok());
            let [Some(least), Some(most)] = of else { return None };
            bounds = Some(match bounds {
                None => [least, most],
                Some([low, high]) => {
                    let low = if least < low { least } else { low };
                    [low, if most > high { most } else { high }]
                }
            });
        }
        bounds
    }
}

/// Returns those rows of a piece in the order of a column of times that may be among the first, with all that are equal to the last of them.
fn nearest(piece: &Piece, column: usize, first: First) -> Piece {
    let segment = &piece.segment;
    let is_plain = segment.mask().is_none() && piece.picked.is_none() && segment.null_count(column) == 0;
    let whole = piece.clone();
    if !is_plain || first.rows == 0 || piece.range.len() <= first.rows || !segment.is_in_order(column) {
        return whole;
    }
    let Ok(values) = segment.column(column) else { return whole };
    let Ok(times) = cast(&values.slice(piece.range.start, piece.range.len()), &DataType::Int64) else { return whole };
    let times = times.as_primitive::<Int64Type>().values();
    let (from, to) = match first.descending {
        true => {
            let last = times[times.len() - first.rows];
            (times.partition_point(|time| *time < last), times.len())
        }
        false => {
            let last = times[first.rows - 1];
            (0, times.partition_point(|time| *time <= last))
        }
    };
    Piece { range: piece.range.start + from..piece.range.start + to, rows: to - from, ..whole }
}

/// Returns the value behind which no row is needed; none where all segments together have too few rows.
fn furthest_needed(mut known: Vec<Known>, first: First) -> Option<ScalarValue> {
    known.sort_by(|(a, ..), (b, ..)| match (first.is_before(a, b), first.is_before(b, a)) {
        (true, _) => Ordering::Less,
        (_, true) => Ordering::Greater,
        _ => Ordering::Equal,
    });
    let (mut rows, mut last): (usize, Option<ScalarValue>) = (0, None);
    for (_, far, more) in known {
        if rows >= first.rows {
            break;
        }
        rows += more;
        last = Some(match last {
            Some(last) if !first.is_before(&last, &far) => last,
            _ => far,
        });
    }
    last.filter(|_| rows >= first.rows)
}
