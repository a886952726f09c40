//! The states of aggregates, one for each group.

use crate::domain::executor::error::refused;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, internal_err};
use std::sync::Arc;

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The rows, or those with a value.
    Count,
    /// The sum of doubles.
    Sum,
    /// The sum of whole numbers, right or an error.
    WholeSum,
    /// The mean of doubles.
    Mean,
    /// The least double.
    Least,
    /// The greatest double.
    Greatest,
    /// The least whole number.
    WholeLeast,
    /// The greatest whole number.
    WholeGreatest,
    /// The mean of doubles with weights.
    WeightedMean,
    /// The double of the row with the least time.
    First,
    /// The double of the row with the greatest time.
    Last,
}

/// The states of one aggregate.
#[derive(Debug)]
pub struct States {
    kind: Kind,
    doubles: Vec<f64>,
    weights: Vec<f64>,
    wholes: Vec<i64>,
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl States {
    /// Makes states of no group.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            doubles: Vec::new(),
            weights: Vec::new(),
            wholes: Vec::new(),
            sums: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        (self.doubles.capacity() + self.weights.capacity() + self.wholes.capacity() + self.counts.capacity()) * 8
            + self.sums.capacity() * 16
    }

    fn grow(&mut self, groups: usize) {
        use Kind::{Count, First, Greatest, Last, Least, Mean, Sum, WeightedMean, WholeGreatest, WholeLeast, WholeSum};
        self.counts.resize(groups, 0);
        match self.kind {
            Count => {}
            Sum | Mean => self.doubles.resize(groups, 0.0),
            Least | Greatest => self.doubles.resize(groups, f64::NAN),
            WeightedMean => {
                self.doubles.resize(groups, 0.0);
                self.weights.resize(groups, 0.0);
            }
            WholeSum => self.sums.resize(groups, 0),
            WholeLeast => self.wholes.resize(groups, i64::MAX),
            WholeGreatest => self.wholes.resize(groups, i64::MIN),
            First | Last => {
                self.doubles.resize(groups, 0.0);
                self.wholes.resize(groups, 0);
            }
        }
    }

    /// Takes rows in. `found` are the numbers of their groups, of which there are `groups` by now.
    ///
    /// # Errors
    ///
    /// `Internal` for arguments of other types than the kind takes.
    pub fn add(&mut self, found: &[u32], groups: usize, args: &[ArrayRef]) -> Result<()> {
        self.grow(groups);
        let valid = |row: usize| args.iter().all(|arg| arg.is_valid(row));
        let has_nulls = args.iter().any(|arg| arg.null_count() > 0);
        let rows = found.iter().map(|group| *group as usize).enumerate();
        let rows = rows.filter(|(row, _)| !has_nulls || valid(*row));
        match (self.kind, args) {
            (Kind::Count, _) => rows.for_each(|(_, group)| self.counts[group] += 1),
            (Kind::Sum | Kind::Mean, [values]) if !has_nulls => {
                for (value, group) in doubles(values)?.iter().zip(found) {
                    self.doubles[*group as usize] += value;
                    self.counts[*group as usize] += 1;
                }
            }
            (Kind::Sum | Kind::Mean, [values]) => {
                let values = doubles(values)?;
                rows.for_each(|(row, group)| {
                    self.doubles[group] += values[row];
                    self.counts[group] += 1;
                });
            }
            (Kind::WholeSum, [values]) => {
                let values = wholes(values)?;
                rows.for_each(|(row, group)| {
                    self.sums[group] += i128::from(values[row]);
                    self.counts[group] += 1;
                });
            }
            (Kind::Least | Kind::Greatest, [values]) => {
                let values = doubles(values)?;
                let kind = self.kind;
                rows.for_each(|(row, group)| {
                    let before = self.doubles[group];
                    if self.counts[group] == 0 || wins(kind, values[row], before) {
                        self.doubles[group] = values[row];
                    }
                    self.counts[group] += 1;
                });
            }
            (Kind::WholeLeast | Kind::WholeGreatest, [values]) => {
                let (values, is_least) = (wholes(values)?, self.kind == Kind::WholeLeast);
                rows.for_each(|(row, group)| {
                    let (before, value) = (self.wholes[group], values[row]);
                    self.wholes[group] = if is_least { before.min(value) } else { before.max(value) };
                    self.counts[group] += 1;
                });
            }
            (Kind::WeightedMean, [values, weights]) => {
                let (values, weights) = (doubles(values)?, doubles(weights)?);
                rows.for_each(|(row, group)| {
                    self.doubles[group] += values[row] * weights[row];
                    self.weights[group] += weights[row];
                });
            }
            (Kind::First | Kind::Last, [values, times]) => {
                let (values, times) = (doubles(values)?, wholes(times)?);
                let is_last = self.kind == Kind::Last;
                rows.for_each(|(row, group)| {
                    let (time, before) = (times[row], self.wholes[group]);
                    if self.counts[group] == 0 || if is_last { time >= before } else { time < before } {
                        (self.doubles[group], self.wholes[group]) = (values[row], time);
                    }
                    self.counts[group] += 1;
                });
            }
            _ => return internal_err!("an aggregate has lost an argument"),
        }
        Ok(())
    }

    /// Takes in the states of rows that arrived later; `to` are the numbers here of their groups.
    pub fn merge(&mut self, other: &Self, to: &[u32], groups: usize) {
        self.grow(groups);
        for (from, group) in to.iter().enumerate() {
            let group = *group as usize;
            let more = other.counts[from];
            if more == 0 && self.kind != Kind::WeightedMean {
                continue;
            }
            let is_new = self.counts[group] == 0;
            self.counts[group] += more;
            match self.kind {
                Kind::Count => {}
                Kind::Sum | Kind::Mean => self.doubles[group] += other.doubles[from],
                Kind::WholeSum => self.sums[group] += other.sums[from],
                Kind::Least | Kind::Greatest => {
                    if is_new || wins(self.kind, other.doubles[from], self.doubles[group]) {
                        self.doubles[group] = other.doubles[from];
                    }
                }
                Kind::WholeLeast => self.wholes[group] = self.wholes[group].min(other.wholes[from]),
                Kind::WholeGreatest => self.wholes[group] = self.wholes[group].max(other.wholes[from]),
                Kind::WeightedMean => {
                    self.doubles[group] += other.doubles[from];
                    self.weights[group] += other.weights[from];
                }
                Kind::First | Kind::Last => {
                    let (time, before) = (other.wholes[from], self.wholes[group]);
                    let takes = if self.kind == Kind::Last { time >= before } else { time < before };
                    if is_new || takes {
                        (self.doubles[group], self.wholes[group]) = (other.doubles[from], time);
                    }
                }
            }
        }
    }

    /// Returns the answer of each group.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a sum that 64 bits cannot hold.
    pub fn finish(mut self, groups: usize) -> Result<ArrayRef> {
        self.grow(groups);
        let is_some = |group: usize| self.counts[group] > 0;
        let all = 0..groups;
        Ok(match self.kind {
            Kind::Count => Arc::new(Int64Array::from(self.counts)),
            Kind::Sum | Kind::Least | Kind::Greatest | Kind::First | Kind::Last => {
                Arc::new(all.map(|group| is_some(group).then(|| self.doubles[group])).collect::<Float64Array>())
            }
            Kind::Mean => {
                let mean = |group: usize| is_some(group).then(|| self.doubles[group] / self.counts[group] as f64);
                Arc::new(all.map(mean).collect::<Float64Array>())
            }
            Kind::WholeLeast | Kind::WholeGreatest => {
                Arc::new(all.map(|group| is_some(group).then(|| self.wholes[group])).collect::<Int64Array>())
            }
            Kind::WholeSum => {
                let sum = |group: usize| {
                    let sum = is_some(group).then(|| i64::try_from(self.sums[group]));
                    sum.transpose()
                        .map_err(|_| refused(format!("the sum {} does not fit into Int64", self.sums[group])))
                };
                Arc::new(all.map(sum).collect::<Result<Int64Array>>()?)
            }
            Kind::WeightedMean => {
                let mean =
                    |group: usize| (self.weights[group] != 0.0).then(|| self.doubles[group] / self.weights[group]);
                Arc::new(all.map(mean).collect::<Float64Array>())
            }
        })
    }
}

/// Returns whether a value takes the place of one before; NaN is above all numbers.
fn wins(kind: Kind, value: f64, before: f64) -> bool {
    match kind {
        Kind::Least => value < before || (before.is_nan() && !value.is_nan()),
        _ => value > before || (value.is_nan() && !before.is_nan()),
    }
}

fn doubles(values: &ArrayRef) -> Result<&[f64]> {
    match values.as_primitive_opt::<Float64Type>() {
        Some(values) => Ok(values.values()),
        None => internal_err!("an aggregate of doubles got {}", values.data_type()),
    }
}

fn wholes(values: &ArrayRef) -> Result<&[i64]> {
    match values.as_primitive_opt::<Int64Type>() {
        Some(values) => Ok(values.values()),
        None => internal_err!("an aggregate of whole numbers got {}", values.data_type()),
    }
}

/// Returns the kind of an aggregate by its name and the types of its arguments; none for one that is DataFusion's.
pub fn kind_of(name: &str, types: &[DataType]) -> Option<Kind> {
    use DataType::{Float64, Int64, Timestamp};
    Some(match (name, types) {
        ("count", [_]) => Kind::Count,
        ("sum", [Float64]) => Kind::Sum,
        ("sum", [Int64]) => Kind::WholeSum,
        ("avg", [Float64]) => Kind::Mean,
        ("min", [Float64]) => Kind::Least,
        ("max", [Float64]) => Kind::Greatest,
        ("min", [Int64]) => Kind::WholeLeast,
        ("max", [Int64]) => Kind::WholeGreatest,
        ("vwap", [Float64, Float64]) => Kind::WeightedMean,
        ("first", [Float64, Timestamp(..)]) => Kind::First,
        ("last", [Float64, Timestamp(..)]) => Kind::Last,
        _ => return None,
    })
}
