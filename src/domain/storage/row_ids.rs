//! The ids of a segment's rows: runs of consecutive numbers.
//!
//! A row gets its id when it arrives, one more than the row before it in its table, and keeps it for as long as it exists:
//! through UPDATE, ALTER and compaction. So ids ascend within a segment and from segment to segment, and what a change was
//! about can be named without saying where its rows lie.

use crate::ports::{MemoryAccount, Reservation};
use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

/// Ids of rows, in the order of the rows. Clones share them.
#[derive(Debug, Clone)]
pub struct RowIds(Runs);

#[derive(Debug, Clone)]
enum Runs {
    /// As rows arrive.
    One(Range<u64>),
    /// What is left after some were deleted and the others put together.
    Several(Arc<Several>),
}

/// More than one run, in the form that takes less.
#[derive(Debug)]
struct Several {
    form: Form,
    memory: Reservation,
}

#[derive(Debug)]
enum Form {
    List(Vec<Range<u64>>),
    /// A bit for each id from `first` on: where every second row was deleted, a list would take as much as two columns.
    Bits {
        first: u64,
        bits: BooleanBuffer,
    },
}

impl RowIds {
    /// Makes the ids of `rows` rows from `first` on.
    pub fn consecutive(first: u64, rows: usize) -> Self {
        Self(Runs::One(first..first + rows as u64))
    }

    /// Makes ids of runs; neighbours are joined. Runs that do not ascend are those of segments that are part of no table yet, and
    /// mean no more than their number.
    pub fn of_runs(runs: impl IntoIterator<Item = Range<u64>>, account: &MemoryAccount) -> Self {
        let joined = joined(runs);
        if joined.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Self::consecutive(0, joined.iter().map(|run| (run.end - run.start) as usize).sum());
        }
        let (Some(first), Some(last)) = (joined.first(), joined.last()) else { return Self::consecutive(0, 0) };
        if joined.len() == 1 {
            return Self(Runs::One(first.clone()));
        }
        let (span, list_bytes) = (first.start..last.end, (joined.len() * size_of::<Range<u64>>()) as u64);
        let bits_bytes = (span.end - span.start) / 8;
        let memory = account.reserve_over_limit(list_bytes.min(bits_bytes));
        let form = if bits_bytes < list_bytes { Form::bits(&joined, &span) } else { Form::List(joined) };
        Self(Runs::Several(Arc::new(Several { form, memory })))
    }

    /// Returns the runs.
    pub fn runs(&self) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        self.each_run(|run, _| runs.push(run.clone()));
        runs
    }

    /// Returns the ids of the rows at `positions`, as runs; both ascend.
    pub fn at(&self, positions: &[Range<usize>]) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut wanted = positions.iter().map(|run| run.start as u64..run.end as u64).peekable();
        self.each_run(|run, from| {
            let places = from..from + (run.end - run.start);
            overlaps(&places, &mut wanted, |part| {
                found.push(run.start + part.start - from..run.start + part.end - from)
            });
        });
        found
    }

    /// Returns the positions of the rows with ids in `ids`, as runs; both ascend. Ids that no row has are skipped.
    pub fn positions(&self, ids: &[Range<u64>]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut wanted = ids.iter().cloned().peekable();
        self.each_run(|run, from| {
            let place = |id: u64| (from + id - run.start) as usize;
            overlaps(run, &mut wanted, |part| found.push(place(part.start)..place(part.end)));
        });
        found
    }

    /// Calls `each` with every run and the position of its first row.
    fn each_run(&self, mut each: impl FnMut(&Range<u64>, u64)) {
        let mut from = 0;
        let mut next = |run: &Range<u64>| {
            each(run, from);
            from += run.end - run.start;
        };
        match &self.0 {
            Runs::One(run) => next(run),
            Runs::Several(several) => match &several.form {
                Form::List(runs) => runs.iter().for_each(next),
                Form::Bits { first, bits } => {
                    bits.set_slices().for_each(|(start, end)| next(&(first + start as u64..first + end as u64)));
                }
            },
        }
    }

    /// Returns the range from the first to after the last id.
    pub fn span(&self) -> Range<u64> {
        match &self.0 {
            Runs::One(run) => run.clone(),
            Runs::Several(several) => match &several.form {
                Form::List(runs) => runs.first().map_or(0, |run| run.start)..runs.last().map_or(0, |run| run.end),
                Form::Bits { first, bits } => *first..first + bits.len() as u64,
            },
        }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            Runs::One(_) => 0,
            Runs::Several(several) => several.memory.bytes(),
        }
    }
}

impl Form {
    fn bits(runs: &[Range<u64>], span: &Range<u64>) -> Self {
        let mut bits = BooleanBufferBuilder::new((span.end - span.start) as usize);
        for run in runs {
            bits.append_n((run.start - span.start) as usize - bits.len(), false);
            bits.append_n((run.end - run.start) as usize, true);
        }
        Self::Bits { first: span.start, bits: bits.finish() }
    }
}

/// Calls `each` with the parts of `run` that are wanted, and leaves in `wanted` what may lie behind it.
fn overlaps(
    run: &Range<u64>,
    wanted: &mut Peekable<impl Iterator<Item = Range<u64>>>,
    mut each: impl FnMut(Range<u64>),
) {
    while let Some(next) = wanted.peek().filter(|next| next.start < run.end) {
        let part = next.start.max(run.start)..next.end.min(run.end);
        let is_over = next.end <= run.end;
        if part.start < part.end {
            each(part);
        }
        if !is_over {
            return;
        }
        wanted.next();
    }
}

/// Joins runs that follow one another without a gap, and drops empty ones.
pub fn joined(runs: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for run in runs.into_iter().filter(|run| run.start < run.end) {
        match joined.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one run is a list of runs, too")]
mod tests {
    use crate::domain::storage::row_ids::RowIds;
    use crate::ports::MemoryAccount;

    #[test]
    fn ids_and_positions_are_found_from_each_other() {
        let account = MemoryAccount::default();
        let ids = RowIds::of_runs([2..4, 4..5, 9..9, 10..13], &account);
        assert_eq!((ids.runs(), ids.bytes(), account.used()), (vec![2..5, 10..13], 1, 1));
        assert_eq!(ids.at(&[1..4]), [3..5, 10..11]);
        assert_eq!(ids.at(&[0..1, 2..3, 4..9]), [2..3, 4..5, 11..13]);
        assert_eq!(ids.positions(&[4..11]), [2..3, 3..4]);
        assert!(ids.positions(&[0..1, 5..10]).is_empty());
        assert_eq!(ids.span(), 2..13);
        let far = RowIds::of_runs([2..5, 1_000..1_003], &account);
        assert_eq!((far.runs(), far.bytes(), far.span()), (vec![2..5, 1_000..1_003], 32, 2..1_003));
        assert_eq!((far.at(&[2..4]), far.positions(&[4..1_001])), (vec![4..5, 1_000..1_001], vec![2..3, 3..4]));
        let arrived = RowIds::consecutive(7, 3);
        assert_eq!((arrived.at(&[0..3]), arrived.positions(&[0..100])), (vec![7..10], vec![0..3]));
    }
}
