//! An aggregate over windows of rows that lie in the order of the index.
//!
//! Sums, means, counts and extremes of doubles go over a short window value by value. Of a long one they take what is known of its
//! rows together: sums from the first row on, kept in twice the digits so that their differences are right, and the extremes of blocks.
//! Everything else asks DataFusion's accumulator, a window at a time.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, new_empty_array, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Rows from which on a window is long.
const LONG: usize = 128;

/// Rows of a block whose extremes are known.
const BLOCK: usize = 64;

/// Rows that are gone over before others may run.
const STEP_ROWS: usize = 1 << 20;

/// Memory of what is known of a row, in bytes, at most.
pub const KNOWN_ROW_BYTES: usize = size_of::<(f64, f64, u32)>();

/// Aggregates over doubles that go over a slice by themselves; the others by DataFusion's accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Mean,
    Least,
    Greatest,
    Other,
}

/// What is known of many rows together.
#[derive(Debug)]
enum Known {
    /// Nobody has asked yet.
    Unasked,
    /// There is nothing to know.
    Nothing,
    /// For each row the sum of all before it, in two parts, and how many values they have; one more at the end.
    Sums(Vec<(f64, f64, u32)>),
    /// The extreme of each block.
    Blocks(Vec<Option<f64>>),
}

/// The values of an aggregate, in the order of the index.
#[derive(Debug)]
pub struct Ordered {
    aggregate: Arc<AggregateFunctionExpr>,
    columns: Vec<ArrayRef>,
    /// The rows that pass the aggregate's condition, if it has one; those that do not are null in the columns.
    passes: Option<BooleanArray>,
    kind: Kind,
    known: Known,
}

impl Ordered {
    /// Makes the aggregate of arguments in their order; the last column says which rows pass its condition where it `is_filtered`.
    pub fn new(aggregate: Arc<AggregateFunctionExpr>, mut columns: Vec<ArrayRef>, is_filtered: bool) -> Self {
        let passes = if is_filtered { columns.pop() } else { None };
        let passes = passes.and_then(|passes| passes.as_boolean_opt().cloned());
        let kind = kind_of(&aggregate, &columns);
        Self { aggregate, columns, passes, kind, known: Known::Unasked }
    }

    /// Divides windows into runs that take about the same time.
    pub fn parts(&self, windows: &[Range<usize>]) -> Vec<Range<usize>> {
        let is_known = self.kind != Kind::Other && !matches!(self.known, Known::Nothing);
        let (mut parts, mut start, mut rows) = (Vec::new(), 0, 0);
        for (at, window) in windows.iter().enumerate() {
            rows += if is_known { window.len().min(LONG + window.len() / BLOCK) } else { window.len() + BLOCK };
            if rows >= STEP_ROWS {
                parts.push(start..at + 1);
                (start, rows) = (at + 1, 0);
            }
        }
        if start < windows.len() {
            parts.push(start..windows.len());
        }
        parts
    }

    /// Returns the aggregate of each window.
    ///
    /// # Errors
    ///
    /// Those of the accumulator.
    pub fn over(&mut self, windows: &[Range<usize>], data_type: &DataType) -> Result<ArrayRef> {
        if self.kind == Kind::Other || self.columns.is_empty() {
            return self.by_accumulator(windows, data_type);
        }
        if matches!(self.known, Known::Unasked) && windows.iter().any(|window| window.len() >= LONG) {
            self.known = self.learn();
        }
        let column = &self.columns[0];
        if self.kind == Kind::Count {
            let nulls = column.logical_nulls();
            let valid = |window: &Range<usize>| match (&self.known, &nulls) {
                (_, None) => window.len(),
                (Known::Sums(sums), _) => (sums[window.end].2 - sums[window.start].2) as usize,
                (_, Some(nulls)) => window.len() - nulls.slice(window.start, window.len()).null_count(),
            };
            return Ok(Arc::new(windows.iter().map(|window| Some(valid(window) as i64)).collect::<Int64Array>()));
        }
        let column = column.as_primitive::<Float64Type>();
        let of = |window: &Range<usize>| match &self.known {
            Known::Sums(sums) if window.len() >= LONG => self.by_sums(sums, window),
            Known::Blocks(blocks) if window.len() >= LONG => self.by_blocks(column, blocks, window),
            _ => self.fold(values(column, window.clone())),
        };
        Ok(Arc::new(windows.iter().map(of).collect::<Float64Array>()))
    }

    /// Finds out what makes long windows cheap; nothing where a value that is no number would spoil it.
    fn learn(&self) -> Known {
        let column = &self.columns[0];
        match self.kind {
            Kind::Count => {
                let nulls = column.logical_nulls();
                let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                let mut sums = vec![(0.0, 0.0, 0)];
                let mut count = 0;
                sums.extend((0..column.len()).map(|row| {
                    count += u32::from(is_valid(row));
                    (0.0, 0.0, count)
                }));
                Known::Sums(sums)
            }
            Kind::Sum | Kind::Mean => {
                let column = column.as_primitive::<Float64Type>();
                let mut sums = Vec::with_capacity(column.len() + 1);
                let (mut high, mut low, mut count) = (0.0_f64, 0.0_f64, 0);
                sums.push((high, low, count));
                for value in column {
                    if let Some(value) = value {
                        // The exact error of the sum (Knuth, TwoSum).
                        let sum = high + value;
                        let part = sum - high;
                        low += (high - (sum - part)) + (value - part);
                        high = sum;
                        count += 1;
                    }
                    sums.push((high, low, count));
                }
                if (high + low).is_finite() { Known::Sums(sums) } else { Known::Nothing }
            }
            Kind::Least | Kind::Greatest => {
                let column = column.as_primitive::<Float64Type>();
                let blocks = (0..column.len()).step_by(BLOCK);
                Known::Blocks(
                    blocks.map(|from| self.fold(values(column, from..(from + BLOCK).min(column.len())))).collect(),
                )
            }
            Kind::Other => Known::Nothing,
        }
    }

    fn by_sums(&self, sums: &[(f64, f64, u32)], window: &Range<usize>) -> Option<f64> {
        let (to, from) = (sums[window.end], sums[window.start]);
        let (sum, count) = ((to.0 - from.0) + (to.1 - from.1), to.2 - from.2);
        (count > 0).then(|| if self.kind == Kind::Mean { sum / f64::from(count) } else { sum })
    }

    fn by_blocks(&self, column: &Float64Array, blocks: &[Option<f64>], window: &Range<usize>) -> Option<f64> {
        let (first, last) = (window.start.div_ceil(BLOCK), window.end / BLOCK);
        let inner = blocks[first..last].iter().copied().flatten();
        let ends = values(column, window.start..first * BLOCK).chain(values(column, last * BLOCK..window.end));
        self.fold(inner.chain(ends))
    }

    fn fold(&self, values: impl Iterator<Item = f64>) -> Option<f64> {
        match self.kind {
            // NaN is above all numbers.
            Kind::Least => values.min_by(order),
            Kind::Greatest => values.max_by(order),
            _ => {
                let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
                (count > 0).then(|| if self.kind == Kind::Mean { sum / f64::from(count) } else { sum })
            }
        }
    }

    fn by_accumulator(&self, windows: &[Range<usize>], data_type: &DataType) -> Result<ArrayRef> {
        if windows.is_empty() {
            return Ok(new_empty_array(data_type));
        }
        let empty: Vec<ArrayRef>;
        let columns = match self.columns.is_empty() {
            false => &self.columns,
            true => {
                let types = self.aggregate.expressions().into_iter();
                empty = types.map(|_| new_null_array(&DataType::Null, 0)).collect();
                &empty
            }
        };
        let of = |window: &Range<usize>| {
            let mut accumulator = self.aggregate.create_accumulator()?;
            if !window.is_empty() {
                let of_window = |column: &ArrayRef| column.slice(window.start, window.len());
                let values = columns.iter().map(of_window);
                let values = match &self.passes {
                    // An aggregate may keep the NULLs that it is given.
                    Some(passes) => {
                        let passes = passes.slice(window.start, window.len());
                        values.map(|column| Ok(filter(&column, &passes)?)).collect::<Result<Vec<_>>>()?
                    }
                    None => values.collect(),
                };
                accumulator.update_batch(&values)?;
            }
            accumulator.evaluate()
        };
        let values = windows.iter().map(of).collect::<Result<Vec<ScalarValue>>>()?;
        ScalarValue::iter_to_array(values)
    }
}

fn values(column: &Float64Array, rows: Range<usize>) -> impl Iterator<Item = f64> {
    rows.filter(|row| column.is_valid(*row)).map(|row| column.value(row))
}

fn kind_of(aggregate: &AggregateFunctionExpr, columns: &[ArrayRef]) -> Kind {
    let [column] = columns else { return Kind::Other };
    let is_double = *column.data_type() == DataType::Float64;
    match aggregate.fun().name() {
        _ if aggregate.is_distinct() => Kind::Other,
        "count" => Kind::Count,
        "sum" if is_double => Kind::Sum,
        "avg" if is_double => Kind::Mean,
        "min" if is_double => Kind::Least,
        "max" if is_double => Kind::Greatest,
        _ => Kind::Other,
    }
}

fn order(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}
