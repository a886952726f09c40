//! The states of aggregates, one for each group.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::series::kind::Kind;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::{Result, internal_err};
use std::ops::Range;
use std::sync::Arc;

/// The states of one aggregate.
///
/// How many rows a group has is known to whoever keeps the groups; here are counted only those whose arguments are NULL. A state without
/// a value is one that no value loses to, so that most loops ask nothing before they go on.
#[derive(Debug)]
pub struct States {
    kind: Kind,
    doubles: Vec<f64>,
    weights: Vec<f64>,
    /// Whole numbers, sums of them that 64 bits hold so far, or times of the first or last row.
    wholes: Vec<i64>,
    /// What sums of whole numbers came to before.
    sums: Vec<i128>,
    /// What `wholes` may have come to at most, for sums.
    bound: u64,
    /// Whether there was a first or last row.
    seen: Vec<bool>,
    /// The greatest time so far, for first and last rows.
    reached: i64,
    /// Rows without a value; empty where there was none.
    missing: Vec<i64>,
}

/// Rows of a batch that are taken in together.
#[derive(Debug, Clone)]
pub struct RowsOf<'a> {
    /// The number of the group of each row.
    pub groups: &'a [u32],
    /// Where the rows lie in the arguments.
    pub range: Range<usize>,
    /// Number of groups by now.
    pub count: usize,
    /// The first and the last row of each group that has some, where they are known.
    pub ends: Option<&'a [GroupEnds]>,
    /// Their times, where those are known to be in order.
    pub ordered: Option<&'a [i64]>,
}

/// The first and the last row of a group among some rows, counted from the first of those.
#[derive(Debug, Clone, Copy)]
pub struct GroupEnds {
    /// The group.
    pub group: u32,
    /// Its first row.
    pub first: u32,
    /// Its last row.
    pub last: u32,
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
            bound: 0,
            seen: Vec::new(),
            reached: i64::MIN,
            missing: Vec::new(),
        }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        let eights =
            [self.doubles.capacity(), self.weights.capacity(), self.wholes.capacity(), self.missing.capacity()];
        eights.iter().sum::<usize>() * 8 + self.sums.capacity() * 16 + self.seen.capacity()
    }

    fn grow(&mut self, groups: usize) {
        use Kind::{Count, First, Greatest, Last, Least, Mean, Sum, WeightedMean, WholeGreatest, WholeLeast, WholeSum};
        match self.kind {
            Count => {}
            Sum | Mean | Least | Greatest => self.doubles.resize(groups, empty_double(self.kind)),
            WeightedMean => {
                self.doubles.resize(groups, 0.0);
                self.weights.resize(groups, 0.0);
            }
            WholeSum => {
                self.wholes.resize(groups, 0);
                self.sums.resize(groups, 0);
            }
            WholeLeast | WholeGreatest => self.wholes.resize(groups, empty_whole(self.kind)),
            First | Last => {
                self.doubles.resize(groups, 0.0);
                self.wholes.resize(groups, 0);
                self.seen.resize(groups, false);
            }
        }
        if !self.missing.is_empty() {
            self.missing.resize(groups, 0);
        }
    }

    /// Forgets what it knows of a group.
    pub fn reset(&mut self, group: usize) {
        put(&mut self.doubles, group, empty_double(self.kind));
        put(&mut self.wholes, group, empty_whole(self.kind));
        put(&mut self.weights, group, 0.0);
        put(&mut self.sums, group, 0);
        put(&mut self.seen, group, false);
        put(&mut self.missing, group, 0);
    }

    /// Takes rows in.
    ///
    /// # Errors
    ///
    /// `Internal` for arguments of other types than the kind takes.
    pub fn add(&mut self, rows: &RowsOf<'_>, args: &[ArrayRef]) -> Result<()> {
        self.grow(rows.count);
        // A column of nulls alone has no mask.
        let nulls =
            args.iter().fold(None, |nulls, arg| NullBuffer::union(nulls.as_ref(), arg.logical_nulls().as_ref()));
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            None => self.add_all(rows, args),
            Some(nulls) => self.add_some(rows, args, &nulls),
        }
    }

    /// Takes rows in run by run, but for those whose arguments are NULL.
    fn add_some(&mut self, rows: &RowsOf<'_>, args: &[ArrayRef], nulls: &NullBuffer) -> Result<()> {
        self.missing.resize(rows.count, 0);
        let nulls = nulls.slice(rows.range.start, rows.range.len());
        rows.groups.iter().enumerate().filter(|(row, _)| nulls.is_null(*row)).for_each(|(_, group)| {
            self.missing[*group as usize] += 1;
        });
        for (from, to) in nulls.valid_slices() {
            let range = rows.range.start + from..rows.range.start + to;
            let run = RowsOf { groups: &rows.groups[from..to], range, count: rows.count, ends: None, ordered: None };
            self.add_all(&run, args)?;
        }
        Ok(())
    }

    fn add_all(&mut self, rows: &RowsOf<'_>, args: &[ArrayRef]) -> Result<()> {
        let groups = rows.groups.iter().map(|group| *group as usize);
        let range = rows.range.clone();
        match (self.kind, args) {
            (Kind::Count, _) => {}
            (Kind::Sum | Kind::Mean, [values]) => {
                let values = &doubles(values)?[range];
                groups.zip(values).for_each(|(group, value)| self.doubles[group] += value);
            }
            (Kind::WholeSum, [values]) => self.add_wholes(rows.groups, &wholes(values)?[range]),
            // What a comparison cannot decide is decided with care.
            (Kind::Least, [values]) => groups.zip(&doubles(values)?[range]).for_each(|(group, value)| {
                let before = &mut self.doubles[group];
                let stays = *value >= *before;
                if !stays && wins(Kind::Least, *value, *before) {
                    *before = *value;
                }
            }),
            (Kind::Greatest, [values]) => groups.zip(&doubles(values)?[range]).for_each(|(group, value)| {
                let before = &mut self.doubles[group];
                let stays = *value <= *before;
                if !stays && wins(Kind::Greatest, *value, *before) {
                    *before = *value;
                }
            }),
            (Kind::WholeLeast, [values]) => groups
                .zip(&wholes(values)?[range])
                .for_each(|(group, value)| self.wholes[group] = self.wholes[group].min(*value)),
            (Kind::WholeGreatest, [values]) => groups
                .zip(&wholes(values)?[range])
                .for_each(|(group, value)| self.wholes[group] = self.wholes[group].max(*value)),
            (Kind::WeightedMean, [values, weights]) => {
                let rows = doubles(values)?[range.clone()].iter().zip(&doubles(weights)?[range]);
                groups.zip(rows).for_each(|(group, (value, weight))| {
                    self.doubles[group] += value * weight;
                    self.weights[group] += weight;
                });
            }
            (Kind::First | Kind::Last, [values, times]) => {
                self.add_ends(rows, &doubles(values)?[range.clone()], &wholes(times)?[range]);
            }
            _ => return internal_err!("an aggregate has lost an argument"),
        }
        Ok(())
    }

    /// Adds whole numbers up in 64 bits as long as it is certain that those hold the sums.
    fn add_wholes(&mut self, groups: &[u32], values: &[i64]) {
        // Every value lies between this and its negative, less one.
        let most = values.iter().fold(0, |most, value| most | (value ^ (value >> 63))).cast_unsigned();
        let more = (most + 1).checked_mul(values.len() as u64).filter(|more| *more < 1 << 62);
        let rows = groups.iter().map(|group| *group as usize).zip(values);
        let Some(more) = more else {
            rows.for_each(|(group, value)| self.sums[group] += i128::from(*value));
            return;
        };
        if self.bound + more >= 1 << 62 {
            // Of a few rows their groups alone are looked at: there may be very many.
            if values.len() < self.sums.len() {
                rows.for_each(|(group, value)| self.sums[group] += i128::from(*value));
                return;
            }
            for (sum, part) in self.sums.iter_mut().zip(&mut self.wholes) {
                *sum += i128::from(std::mem::take(part));
            }
            self.bound = 0;
        }
        self.bound += more;
        rows.for_each(|(group, value)| self.wholes[group] += value);
    }

    /// Keeps the first or the last row of each group.
    fn add_ends(&mut self, rows: &RowsOf<'_>, values: &[f64], times: &[i64]) {
        let is_last = self.kind == Kind::Last;
        let is_known = rows.ordered.is_some_and(|known| std::ptr::eq(known, times));
        let goes_on = times.first().is_none_or(|first| *first >= self.reached) && (is_known || times.is_sorted());
        let latest = if goes_on { times.last() } else { times.iter().max() };
        self.reached = latest.map_or(self.reached, |latest| self.reached.max(*latest));
        if let Some(ends) = rows.ends.filter(|_| goes_on) {
            for GroupEnds { group, first, last } in ends {
                let (group, row) = (*group as usize, if is_last { *last } else { *first } as usize);
                if is_last || !self.seen[group] {
                    (self.doubles[group], self.wholes[group], self.seen[group]) = (values[row], times[row], true);
                }
            }
            return;
        }
        for ((group, value), time) in rows.groups.iter().zip(values).zip(times) {
            let group = *group as usize;
            let before = self.wholes[group];
            let takes = if is_last { *time >= before } else { *time < before };
            if !self.seen[group] || takes {
                (self.doubles[group], self.wholes[group], self.seen[group]) = (*value, *time, true);
            }
        }
    }

    /// Takes in the states of rows that arrived later: of each pair the first is a group there, the second the same group here.
    pub fn merge(&mut self, other: &Self, pairs: impl Iterator<Item = (usize, usize)>, groups: usize) {
        self.grow(groups);
        self.reached = self.reached.max(other.reached);
        if !other.missing.is_empty() {
            self.missing.resize(groups, 0);
        }
        for (from, group) in pairs {
            if let Some(missing) = other.missing.get(from) {
                self.missing[group] += missing;
            }
            match self.kind {
                Kind::Count => {}
                Kind::Sum | Kind::Mean => self.doubles[group] += other.doubles[from],
                Kind::WholeSum => self.sums[group] += other.sums[from] + i128::from(other.wholes[from]),
                Kind::Least | Kind::Greatest => {
                    if wins(self.kind, other.doubles[from], self.doubles[group]) {
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
                    if other.seen[from] && (!self.seen[group] || takes) {
                        (self.doubles[group], self.wholes[group]) = (other.doubles[from], time);
                        self.seen[group] = true;
                    }
                }
            }
        }
    }

    /// Returns the answer of each group; `rows` are how many each has.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a sum that 64 bits cannot hold.
    pub fn finish(mut self, rows: &[i64]) -> Result<ArrayRef> {
        self.grow(rows.len());
        let count = |group: usize| rows[group] - self.missing.get(group).copied().unwrap_or(0);
        let is_some = |group: usize| count(group) > 0;
        let all = 0..rows.len();
        Ok(match self.kind {
            Kind::Count => Arc::new(all.map(count).collect::<Int64Array>()),
            Kind::Sum | Kind::Least | Kind::Greatest | Kind::First | Kind::Last => {
                Arc::new(all.map(|group| is_some(group).then(|| self.doubles[group])).collect::<Float64Array>())
            }
            Kind::Mean => {
                let mean = |group: usize| is_some(group).then(|| self.doubles[group] / count(group) as f64);
                Arc::new(all.map(mean).collect::<Float64Array>())
            }
            Kind::WholeLeast | Kind::WholeGreatest => {
                Arc::new(all.map(|group| is_some(group).then(|| self.wholes[group])).collect::<Int64Array>())
            }
            Kind::WholeSum => {
                let sum = |group: usize| {
                    let sum = self.sums[group] + i128::from(self.wholes[group]);
                    let narrow = is_some(group).then(|| i64::try_from(sum)).transpose();
                    narrow.map_err(|_| refused(format!("the sum {sum} does not fit into Int64")))
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

/// Puts a value in a place, where there is one.
fn put<T>(values: &mut [T], place: usize, value: T) {
    if let Some(at) = values.get_mut(place) {
        *at = value;
    }
}

/// Returns the double that any other takes the place of, or that adds nothing.
fn empty_double(kind: Kind) -> f64 {
    match kind {
        Kind::Least => f64::NAN,
        Kind::Greatest => f64::NEG_INFINITY,
        _ => 0.0,
    }
}

/// Returns the whole number that any other takes the place of, or that adds nothing.
fn empty_whole(kind: Kind) -> i64 {
    match kind {
        Kind::WholeLeast => i64::MAX,
        Kind::WholeGreatest => i64::MIN,
        _ => 0,
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
