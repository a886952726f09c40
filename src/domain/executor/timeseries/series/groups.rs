//! Numbers of groups: of a symbol's code, and of the bucket that a time lies in.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::buckets::Buckets;
use crate::domain::executor::timeseries::keys::Times;
use datafusion::common::Result;
use std::collections::HashMap;

/// No group yet.
const NONE: u32 = u32::MAX;

/// The groups that were met, numbered in the order in which they were.
#[derive(Debug)]
pub struct Groups {
    /// Number of codes, one more than symbols: the last is NULL.
    codes: usize,
    buckets: Option<Buckets>,
    /// For each bucket, by its start, from where on its groups are in `numbers`; the bucket of rows without a time has none.
    known: HashMap<Option<i64>, usize>,
    /// The number of the group of each code, for one bucket after the other.
    numbers: Vec<u32>,
    /// For each group its bucket's start and its code.
    met: Vec<(Option<i64>, u32)>,
    /// The bucket that was looked at last: its start, its end and its place.
    last: Option<(i64, i64, usize)>,
}

impl Groups {
    /// Makes the groups of so many codes, by `buckets` too if there are any.
    pub fn new(codes: usize, buckets: Option<Buckets>) -> Self {
        Self { codes, buckets, known: HashMap::new(), numbers: Vec::new(), met: Vec::new(), last: None }
    }

    /// Returns the groups that were met.
    pub fn met(&self) -> &[(Option<i64>, u32)] {
        &self.met
    }

    /// Returns the memory that the numbers take, in bytes.
    pub fn bytes(&self) -> usize {
        self.numbers.capacity() * 4 + self.met.capacity() * 24 + self.known.capacity() * 32
    }

    /// Returns the start of the bucket that a time lies in, and its end.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a bucket that begins beyond what nanoseconds can hold.
    pub fn bucket_at(&self, time: i64) -> Result<(i64, i64)> {
        let start = self.buckets.as_ref().and_then(|buckets| buckets.start_ns(time));
        let start =
            start.ok_or_else(|| refused("the start of a bucket is beyond what nanoseconds can hold".to_owned()))?;
        Ok((start, self.buckets.as_ref().and_then(|buckets| buckets.next_ns(start)).unwrap_or(i64::MAX)))
    }

    /// Returns the numbers of the groups of a bucket, or of all rows without one, that have these codes.
    pub fn of_bucket(&mut self, bucket: Option<i64>, codes: &[u32]) -> Vec<u32> {
        let place = self.place(bucket);
        codes.iter().map(|code| self.number(place, bucket, *code)).collect()
    }

    /// Writes the number of the group of each row into `found`, by the rows' codes and times.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a bucket that begins beyond what nanoseconds can hold.
    pub fn find(&mut self, codes: &[u32], times: &Times, found: &mut Vec<u32>) -> Result<()> {
        found.clear();
        for (row, code) in codes.iter().enumerate() {
            let time = times.is_valid(row).then(|| times.values()[row]);
            let (bucket, place) = match (time, self.last) {
                (Some(time), Some((start, end, place))) if time >= start && time < end => (Some(start), place),
                (Some(time), _) => self.bucket_of(time)?,
                (None, _) => (None, self.place(None)),
            };
            let number = self.number(place, bucket, *code);
            found.push(number);
        }
        Ok(())
    }

    fn bucket_of(&mut self, time: i64) -> Result<(Option<i64>, usize)> {
        let (start, end) = self.bucket_at(time)?;
        let place = self.place(Some(start));
        self.last = Some((start, end, place));
        Ok((Some(start), place))
    }

    fn place(&mut self, bucket: Option<i64>) -> usize {
        let numbers = &mut self.numbers;
        *self.known.entry(bucket).or_insert_with(|| {
            numbers.resize(numbers.len() + self.codes, NONE);
            numbers.len() - self.codes
        })
    }

    fn number(&mut self, place: usize, bucket: Option<i64>, code: u32) -> u32 {
        let number = &mut self.numbers[place + code as usize];
        if *number == NONE {
            *number = self.met.len() as u32;
            self.met.push((bucket, code));
        }
        *number
    }

    /// Returns the number here of each group of `other`, which becomes known here too.
    pub fn take_in(&mut self, other: &Self) -> Vec<u32> {
        let met = other.met.iter();
        met.map(|(bucket, code)| {
            let place = self.place(*bucket);
            self.number(place, *bucket, *code)
        })
        .collect()
    }
}
