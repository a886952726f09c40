//! Numbers of groups: of a symbol's code, and of the bucket that a time lies in.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::buckets::Buckets;
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
    /// For each bucket, by its start, where its groups are in `numbers`; the bucket of rows without a time has none.
    known: HashMap<Option<i64>, usize>,
    /// For each bucket and code the number of its group.
    numbers: Vec<Vec<u32>>,
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
        self.numbers.len() * self.codes * 4 + self.met.capacity() * 24
    }

    /// Writes the number of the group of each row into `found`. `codes` are the rows' codes; `times` their times, none where the rows
    /// are not bucketed.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a bucket that begins beyond what nanoseconds can hold.
    pub fn find(&mut self, codes: &[u32], times: Option<Rows<'_>>, found: &mut Vec<u32>) -> Result<()> {
        found.clear();
        let Some(times) = times else {
            let place = self.place(None);
            for code in codes {
                let number = self.number(place, None, *code);
                found.push(number);
            }
            return Ok(());
        };
        for (row, code) in codes.iter().enumerate() {
            let time = (times.is_valid)(row).then(|| times.ns[row]);
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
        let start = self.buckets.as_ref().and_then(|buckets| buckets.start_ns(time));
        let start =
            start.ok_or_else(|| refused("the start of a bucket is beyond what nanoseconds can hold".to_owned()))?;
        let end = self.buckets.as_ref().and_then(|buckets| buckets.next_ns(start)).unwrap_or(i64::MAX);
        let place = self.place(Some(start));
        self.last = Some((start, end, place));
        Ok((Some(start), place))
    }

    fn place(&mut self, bucket: Option<i64>) -> usize {
        let numbers = &mut self.numbers;
        *self.known.entry(bucket).or_insert_with(|| {
            numbers.push(vec![NONE; self.codes]);
            numbers.len() - 1
        })
    }

    fn number(&mut self, place: usize, bucket: Option<i64>, code: u32) -> u32 {
        let number = &mut self.numbers[place][code as usize];
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

/// Times of rows in nanoseconds, and which rows have one.
pub struct Rows<'a> {
    /// The times.
    pub ns: &'a [i64],
    /// Whether a row has one.
    pub is_valid: &'a dyn Fn(usize) -> bool,
}
