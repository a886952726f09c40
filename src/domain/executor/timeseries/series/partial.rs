//! The groups and states of rows that follow each other.
//!
//! Rows of a live table arrive in order of time, so a bucket's rows arrive together: their states are kept by the codes of their symbols
//! (`Open`), small enough for a processor's cache, and put to the groups of the whole (`Partial`) when the next bucket begins. Rows out of
//! order, and buckets of few rows each, go to the groups one by one.
//!
//! Invariant: rows are put to the groups in the order of their arrival, which decides between equal times.

use crate::domain::executor::timeseries::buckets::Buckets;
use crate::domain::executor::timeseries::keys::Times;
use crate::domain::executor::timeseries::series::groups::Groups;
use crate::domain::executor::timeseries::series::kind::Kind;
use crate::domain::executor::timeseries::series::states::{GroupEnds, RowsOf, States};
use arrow::array::ArrayRef;
use datafusion::common::Result;
use std::ops::Range;

/// Rows that buckets have to have on average for states of their own.
const RUN_ROWS: i128 = 64;

/// The place of a code that has no row yet.
const NO_PLACE: u32 = u32::MAX;

/// The groups that were met, and their states.
#[derive(Debug)]
pub struct Partial {
    /// The groups.
    pub groups: Groups,
    /// How many rows each group has.
    pub rows: Vec<i64>,
    /// One for each aggregate.
    pub states: Vec<States>,
    open: Open,
    /// The numbers of rows' groups, of one batch after the other.
    found: Vec<u32>,
}

/// The bucket whose rows arrive now, or all rows where there are no buckets.
#[derive(Debug)]
struct Open {
    bucket: Option<i64>,
    /// Number of codes.
    codes: usize,
    /// How many rows each code has.
    rows: Vec<i64>,
    /// The codes that have rows, in the order in which they came.
    touched: Vec<u32>,
    /// For each code its place among the ends of the rows that are being taken in.
    places: Vec<u32>,
    ends: Vec<GroupEnds>,
    /// Whether a state asks for them.
    needs_ends: bool,
    states: Vec<States>,
}

impl Partial {
    /// Makes the states of `kinds` of so many codes, by `buckets` too if there are any.
    pub fn new(kinds: &[Kind], codes: usize, buckets: Option<Buckets>) -> Self {
        let states = || kinds.iter().map(|kind| States::new(*kind)).collect();
        let open = Open {
            bucket: None,
            codes,
            rows: vec![0; codes],
            touched: Vec::new(),
            places: vec![NO_PLACE; codes],
            ends: Vec::new(),
            needs_ends: kinds.iter().any(|kind| matches!(kind, Kind::First | Kind::Last)),
            states: states(),
        };
        Self { groups: Groups::new(codes, buckets), rows: Vec::new(), states: states(), open, found: Vec::new() }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        let states = self.states.iter().chain(&self.open.states).map(States::bytes).sum::<usize>();
        self.groups.bytes() + (self.rows.capacity() + 4 * self.open.rows.capacity()) * 8 + states
    }

    /// Takes rows in: their codes, their times where they are bucketed, and the arguments of each aggregate.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a bucket that begins beyond what nanoseconds can hold.
    pub fn add(&mut self, codes: &[u32], times: Option<&Times>, args: &[Vec<ArrayRef>]) -> Result<()> {
        let Some(times) = times else { return self.open.add(codes, 0..codes.len(), None, args) };
        if self.has_long_runs(times)? {
            return self.add_runs(codes, times.values(), args);
        }
        self.close();
        self.groups.find(codes, times, &mut self.found)?;
        let count = self.groups.met().len();
        self.rows.resize(count, 0);
        self.found.iter().for_each(|group| self.rows[*group as usize] += 1);
        let rows = RowsOf { groups: &self.found, range: 0..codes.len(), count, ends: None, ordered: None };
        self.states.iter_mut().zip(args).try_for_each(|(states, args)| states.add(&rows, args))
    }

    /// Returns whether times are in order, and buckets have many of them.
    fn has_long_runs(&self, times: &Times) -> Result<bool> {
        let (Some(first), Some(last)) = (times.values().first(), times.values().last()) else { return Ok(false) };
        if !times.are_all_valid() || !times.values().is_sorted() {
            return Ok(false);
        }
        let (start, end) = self.groups.bucket_at(*first)?;
        let width = (i128::from(end) - i128::from(start)).max(1);
        let buckets = (i128::from(*last) - i128::from(*first)) / width;
        Ok(buckets * RUN_ROWS <= times.values().len() as i128)
    }

    fn add_runs(&mut self, codes: &[u32], times: &[i64], args: &[Vec<ArrayRef>]) -> Result<()> {
        let mut from = 0;
        while from < times.len() {
            let (start, end) = self.groups.bucket_at(times[from])?;
            let rows = times[from..].partition_point(|time| *time < end).max(1);
            if self.open.bucket != Some(start) {
                self.close();
                self.open.bucket = Some(start);
            }
            let range = from..from + rows;
            self.open.add(&codes[range.clone()], range.clone(), Some(&times[range]), args)?;
            from += rows;
        }
        Ok(())
    }

    /// Puts the rows of the bucket that arrived last to the groups.
    pub fn close(&mut self) {
        let Open { bucket, rows, touched, states, .. } = &mut self.open;
        if touched.is_empty() {
            return;
        }
        let numbers = self.groups.of_bucket(*bucket, touched);
        let count = self.groups.met().len();
        self.rows.resize(count, 0);
        let pairs = || touched.iter().map(|code| *code as usize).zip(numbers.iter().map(|number| *number as usize));
        pairs().for_each(|(code, number)| self.rows[number] += std::mem::take(&mut rows[code]));
        for (to, from) in self.states.iter_mut().zip(states) {
            to.merge(from, pairs(), count);
            touched.iter().for_each(|code| from.reset(*code as usize));
        }
        touched.clear();
    }

    /// Takes in what arrived later, all of whose buckets are closed.
    pub fn merge(&mut self, later: &Self) {
        let to = self.groups.take_in(&later.groups);
        let count = self.groups.met().len();
        self.rows.resize(count, 0);
        let pairs = || to.iter().map(|group| *group as usize).enumerate();
        pairs().for_each(|(from, group)| self.rows[group] += later.rows[from]);
        for (states, more) in self.states.iter_mut().zip(&later.states) {
            states.merge(more, pairs(), count);
        }
    }
}

impl Open {
    fn add(
        &mut self,
        codes: &[u32],
        range: Range<usize>,
        ordered: Option<&[i64]>,
        args: &[Vec<ArrayRef>],
    ) -> Result<()> {
        for code in codes {
            let rows = &mut self.rows[*code as usize];
            if *rows == 0 {
                self.touched.push(*code);
            }
            *rows += 1;
        }
        if self.needs_ends {
            self.find_ends(codes);
        }
        let ends = self.needs_ends.then_some(self.ends.as_slice());
        let rows = RowsOf { groups: codes, range, count: self.codes, ends, ordered };
        let added = self.states.iter_mut().zip(args).try_for_each(|(states, args)| states.add(&rows, args));
        self.ends.drain(..).for_each(|ends| self.places[ends.group as usize] = NO_PLACE);
        added
    }

    fn find_ends(&mut self, codes: &[u32]) {
        for (row, code) in (0..).zip(codes) {
            let place = &mut self.places[*code as usize];
            match self.ends.get_mut(*place as usize) {
                Some(ends) => ends.last = row,
                None => {
                    *place = self.ends.len() as u32;
                    self.ends.push(GroupEnds { group: *code, first: row, last: row });
                }
            }
        }
    }
}
