//! Looks up the right row of each left row.
//!
//! Where both sides come in order of time, one walk over both is enough: the last row of each key so far is what is in force
//! (backward joins). Everything else searches in the index of the right side.
//!
//! Invariant of the walk: all rows of the right side before `next` have been seen, and no row of the left side that is still to come
//! is earlier than `reached`. A left row that is leaves the walk for the index, for good.

use crate::domain::executor::timeseries::asof::index::TimeIndex;
use crate::domain::executor::timeseries::asof::node::{AsOfSpec, Direction};
use crate::domain::executor::timeseries::asof::right::Right;
use crate::domain::executor::timeseries::collected::NO_ROW;
use crate::domain::executor::timeseries::keys::Times;
use datafusion::common::Result;
use std::ops::Range;
use std::sync::Arc;

/// Rows from which on a walk looks back from where it is to go.
const JUMP_ROWS: usize = 8_192;

/// Looks rows up for batches of the left side that come one after the other; several may share a right side.
#[derive(Debug)]
pub struct Probe {
    right: Arc<Right>,
    spec: AsOfSpec,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Walk(Walk),
    Search(Search),
}

impl Probe {
    /// Makes a probe of `right`.
    ///
    /// # Errors
    ///
    /// Where there is no memory for an index.
    pub async fn new(right: Arc<Right>, spec: AsOfSpec) -> Result<Self> {
        let way = match spec.direction {
            Direction::Backward if right.is_in_order => Way::Walk(Walk::new(&right)),
            _ => Way::Search(Search::new(&right).await?),
        };
        Ok(Self { right, spec, way })
    }

    /// Returns the row of the right side for each row of a batch, by the codes of their keys and their times.
    ///
    /// # Errors
    ///
    /// Where there is no memory for an index.
    pub async fn rows(&mut self, codes: &[u32], times: &Times, may_match: impl Fn(usize) -> bool) -> Result<Vec<u32>> {
        if let Way::Walk(walk) = &mut self.way {
            if walk.can_follow(times) {
                return Ok(walk.rows(&self.right, self.spec, codes, times, may_match));
            }
            self.way = Way::Search(Search::new(&self.right).await?);
        }
        let Way::Search(search) = &mut self.way else { return Ok(Vec::new()) };
        let find = |(row, code): (usize, &u32)| match may_match(row) && times.is_valid(row) {
            true => search.find(self.spec, *code, times.values()[row]).unwrap_or(NO_ROW),
            false => NO_ROW,
        };
        Ok(codes.iter().enumerate().map(find).collect())
    }
}

/// One walk over both sides.
#[derive(Debug)]
struct Walk {
    /// The batch and the row of the right side that come next.
    next: (usize, usize),
    /// The last row of each code so far; behind them none, for rows of the left side without a key, and a place for what nobody reads.
    last: Vec<u32>,
    /// The time that the left side has reached.
    reached: i64,
    /// For each code the last jump that met it, and the number of jumps.
    met: Vec<u32>,
    jumps: u32,
}

impl Walk {
    fn new(right: &Right) -> Self {
        Self {
            next: (0, 0),
            last: vec![NO_ROW; right.code_count + 2],
            reached: i64::MIN,
            met: vec![0; right.code_count],
            jumps: 0,
        }
    }

    fn can_follow(&self, times: &Times) -> bool {
        let values = times.values();
        times.are_all_valid() && values.first().is_none_or(|first| *first >= self.reached) && values.is_sorted()
    }

    fn rows(
        &mut self,
        right: &Right,
        spec: AsOfSpec,
        codes: &[u32],
        times: &Times,
        may_match: impl Fn(usize) -> bool,
    ) -> Vec<u32> {
        if let Some(end) = times.values().first().and_then(|first| first.checked_sub(i64::from(spec.strict))) {
            self.jump(right, end);
        }
        let mut found = vec![NO_ROW; codes.len()];
        let mut row = 0;
        while let Some(batch) = right.batches.get(self.next.0).filter(|_| row < codes.len()) {
            let at = self.next.1;
            let rights = Rows { times: &batch.times.values()[at..], codes: &batch.codes[at..] };
            let lefts = Rows { times: &times.values()[row..], codes: &codes[row..] };
            let first = batch.start + at as u32;
            let (left, gone) = match spec.strict {
                true => merge(lefts, rights, first, |right, left| right < left, &mut self.last, &mut found[row..]),
                false => merge(lefts, rights, first, |right, left| right <= left, &mut self.last, &mut found[row..]),
            };
            row += left;
            self.next = if at + gone < batch.codes.len() { (self.next.0, at + gone) } else { (self.next.0 + 1, 0) };
        }
        // Behind the last row of the right side.
        for (found, code) in found[row..].iter_mut().zip(&codes[row..]) {
            *found = self.last[(*code as usize).min(right.code_count)];
        }
        found.iter_mut().enumerate().filter(|(row, _)| !may_match(*row)).for_each(|(_, found)| *found = NO_ROW);
        self.reached = times.values().last().copied().unwrap_or(self.reached);
        if let Some(tolerance) = spec.tolerance {
            for (last, time) in found.iter_mut().zip(times.values()).filter(|(last, _)| **last != NO_ROW) {
                if time_of(right, *last).abs_diff(*time) > tolerance.unsigned_abs() {
                    *last = NO_ROW;
                }
            }
        }
        found
    }
}

/// The times of rows, in order, and the codes of their keys.
#[derive(Clone, Copy)]
struct Rows<'a> {
    times: &'a [i64],
    codes: &'a [u32],
}

/// Walks over both sides as far as both have rows: writes for each left row the last right row of its code into `found`. `first` is the
/// number of the first right row, and `precedes` says whether a right row is in force at a left row's time. Returns how many rows of each
/// side are done.
///
/// Which side has the next row is as good as random, so nothing is decided by a branch: every step writes what either side would, the
/// other one's to a place that is written again or never read. A function of its own, so that all it needs stays in registers.
#[inline(never)]
fn merge(
    left: Rows<'_>,
    right: Rows<'_>,
    first: u32,
    precedes: impl Fn(i64, i64) -> bool,
    last: &mut [u32],
    found: &mut [u32],
) -> (usize, usize) {
    let none = last.len() - 2;
    let nowhere = none + 1;
    let (mut row, mut at) = (0, 0);
    while row < left.times.len() && at < right.times.len() {
        let is_right = precedes(right.times[at], left.times[row]);
        found[row] = last[(left.codes[row] as usize).min(none)];
        let code = right.codes[at] as usize;
        last[if is_right && code < none { code } else { nowhere }] = first + at as u32;
        at += usize::from(is_right);
        row += usize::from(!is_right);
    }
    (row, at)
}

impl Walk {
    /// Goes on to the first row of the right side behind `end`, of which the last rows of all codes lie close before: other cores have
    /// joined the rows between.
    fn jump(&mut self, right: &Right, end: i64) {
        let mut to = self.next;
        while let Some(batch) = right.batches.get(to.0) {
            let times = batch.times.values();
            if times.last().is_some_and(|last| *last > end) {
                to.1 += times[to.1..].partition_point(|time| *time <= end);
                break;
            }
            to = (to.0 + 1, 0);
        }
        let number = |(batch, row): (usize, usize)| right.batches.get(batch).map(|batch| batch.start as usize + row);
        let distance = number(self.next).map(|from| number(to).unwrap_or(usize::MAX) - from);
        if distance.is_none_or(|distance| distance < JUMP_ROWS) {
            return;
        }
        self.jumps = self.jumps.wrapping_add(1);
        let mut missing = right.code_count;
        for at in (self.next.0..=to.0).rev() {
            let Some(batch) = right.batches.get(at) else { continue };
            let from = if at == self.next.0 { self.next.1 } else { 0 };
            let end = if at == to.0 { to.1 } else { batch.codes.len() };
            for row in (from..end).rev() {
                let code = batch.codes[row] as usize;
                if self.met.get(code).is_some_and(|met| *met != self.jumps) {
                    (self.met[code], self.last[code]) = (self.jumps, batch.start + row as u32);
                    missing -= 1;
                }
                if missing == 0 {
                    self.next = to;
                    return;
                }
            }
        }
        self.next = to;
    }
}

fn time_of(right: &Right, row: u32) -> i64 {
    let at = right.batches.partition_point(|batch| batch.start <= row) - 1;
    right.batches[at].times.values()[(row - right.batches[at].start) as usize]
}

/// Searches in the index.
#[derive(Debug)]
struct Search {
    index: Arc<TimeIndex>,
    /// For each code where its last row was found.
    near: Vec<u32>,
}

impl Search {
    async fn new(right: &Right) -> Result<Self> {
        Ok(Self { index: right.index().await?, near: vec![0; right.code_count] })
    }

    /// Returns the row of the right side that is in force for a key at a time.
    fn find(&mut self, spec: AsOfSpec, code: u32, time: i64) -> Option<u32> {
        let near = *self.near.get(code as usize)? as usize;
        let group = self.index.group(code);
        let AsOfSpec { direction, strict, tolerance, .. } = spec;
        let place = match direction {
            Direction::Backward => self.before(&group, time, strict, near),
            Direction::Forward => self.after(&group, time, strict, near),
            Direction::Nearest => {
                match (self.before(&group, time, strict, near), self.after(&group, time, strict, near)) {
                    (Some(before), Some(after)) => {
                        let distance = |place: usize| self.index.times()[place].abs_diff(time);
                        Some(if distance(before) <= distance(after) { before } else { after })
                    }
                    (before, after) => before.or(after),
                }
            }
        }?;
        self.near[code as usize] = place as u32;
        let is_near = |most: i64| self.index.times()[place].abs_diff(time) <= most.unsigned_abs();
        tolerance.is_none_or(is_near).then(|| self.index.row(place))
    }

    fn before(&self, group: &Range<usize>, time: i64, strict: bool, near: usize) -> Option<usize> {
        let end = self.index.search(group, time, !strict, near);
        (end > group.start).then(|| end - 1)
    }

    fn after(&self, group: &Range<usize>, time: i64, strict: bool, near: usize) -> Option<usize> {
        let first = self.index.search(group, time, strict, near);
        (first < group.end).then_some(first)
    }
}
