//! Rows of one side, by key and then by time.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::keys::NO_CODE;
use datafusion::common::Result;

/// Rows that are put in order between two pauses.
const STEP_ROWS: usize = 1 << 19;

/// Positions of rows, grouped by the code of their key, in order of their time within a group; equal times in order of arrival.
#[derive(Debug, Default)]
pub struct TimeIndex {
    /// Where the rows of each code begin in `times` and `rows`; one more at the end.
    starts: Vec<u32>,
    times: Vec<i64>,
    rows: Vec<u32>,
}

impl TimeIndex {
    /// Puts rows in order, and lets others run meanwhile. `codes` and `times` are theirs in the order of arrival; a row without a code or a
    /// time is left out.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for more rows than 32 bits count.
    pub async fn new(
        codes: &[u32],
        times: &[i64],
        is_valid: impl Fn(usize) -> bool,
        code_count: usize,
    ) -> Result<Self> {
        if codes.len() >= u32::MAX as usize {
            return Err(refused("the right side of a join by time has too many rows".to_owned()));
        }
        let taken = |row: usize| codes[row] != NO_CODE && is_valid(row);
        // Counted first, then put in place: a stable sort by code.
        let mut starts = vec![0_u32; code_count + 1];
        for from in (0..codes.len()).step_by(STEP_ROWS) {
            for row in (from..codes.len().min(from + STEP_ROWS)).filter(|row| taken(*row)) {
                starts[codes[row] as usize + 1] += 1;
            }
            tokio::task::yield_now().await;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let count = starts[code_count] as usize;
        let mut next = starts.clone();
        let (mut ordered, mut rows) = (vec![0_i64; count], vec![0_u32; count]);
        for from in (0..codes.len()).step_by(STEP_ROWS) {
            for row in (from..codes.len().min(from + STEP_ROWS)).filter(|row| taken(*row)) {
                let code = codes[row] as usize;
                let place = next[code] as usize;
                next[code] += 1;
                (ordered[place], rows[place]) = (times[row], row as u32);
            }
            tokio::task::yield_now().await;
        }
        let mut index = Self { starts, times: ordered, rows };
        index.sort_groups().await;
        Ok(index)
    }

    /// Puts those groups in order of time that did not arrive in it.
    async fn sort_groups(&mut self) {
        let mut looked_at = 0;
        for group in self.starts.windows(2) {
            let range = group[0] as usize..group[1] as usize;
            looked_at += range.len();
            if looked_at >= STEP_ROWS {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
            let (times, rows) = (&mut self.times[range.clone()], &mut self.rows[range]);
            if times.is_sorted() {
                continue;
            }
            let mut both: Vec<(i64, u32)> = times.iter().copied().zip(rows.iter().copied()).collect();
            // Rows are in order of arrival: comparing them as well makes it stable.
            both.sort_unstable();
            for (at, (time, row)) in both.into_iter().enumerate() {
                (times[at], rows[at]) = (time, row);
            }
        }
    }

    /// Returns the places of a code's rows; none for a code that has none.
    pub fn group(&self, code: u32) -> std::ops::Range<usize> {
        match (self.starts.get(code as usize), self.starts.get(code as usize + 1)) {
            (Some(start), Some(end)) if code != NO_CODE => *start as usize..*end as usize,
            _ => 0..0,
        }
    }

    /// Returns the times of all places.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// Returns the row at a place.
    pub fn row(&self, place: usize) -> u32 {
        self.rows[place]
    }

    /// Returns the rows of all places.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Returns the first place of `group` whose time is not before `time`, or, if `after`, is later than it. `near` is where a
    /// similar time was found last.
    pub fn search(&self, group: &std::ops::Range<usize>, time: i64, after: bool, near: usize) -> usize {
        let is_before = |place: usize| if after { self.times[place] <= time } else { self.times[place] < time };
        let mut low = group.start;
        let mut high = group.end;
        let near = near.clamp(group.start, group.end);
        // Steps away from there, twice as wide each time, find the two places between which it is.
        let mut step = 1;
        if near < high && is_before(near) {
            low = near + 1;
            while low + step <= high && is_before(low + step - 1) {
                low += step;
                step *= 2;
            }
            high = high.min(low + step - 1);
        } else {
            high = near;
            while high >= low + step && !is_before(high - step) {
                high -= step;
                step *= 2;
            }
            low = low.max(high.saturating_sub(step));
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::asof::index::TimeIndex;
    use crate::domain::executor::timeseries::keys::NO_CODE;

    #[tokio::test]
    async fn a_search_from_anywhere_finds_the_place() {
        let times: Vec<i64> = (0..500).map(|n| (n * 7919) % 200).collect();
        let codes: Vec<u32> = (0..500).map(|n| if n % 11 == 0 { NO_CODE } else { n % 3 }).collect();
        let index = TimeIndex::new(&codes, &times, |row| row % 13 != 0, 3).await.unwrap();
        for code in 0..3 {
            let group = index.group(code);
            let slice = &index.times()[group.clone()];
            assert!(slice.is_sorted() && slice.len() > 100);
            let rows = &index.rows[group.clone()];
            assert!(
                rows.windows(2).zip(slice.windows(2)).all(|(rows, times)| times[0] < times[1] || rows[0] < rows[1])
            );
            for time in -1..202 {
                for after in [false, true] {
                    let expected =
                        group.start + slice.partition_point(|at| if after { *at <= time } else { *at < time });
                    for near in (group.start..=group.end).step_by(17).chain([0, usize::MAX, group.end]) {
                        assert_eq!(index.search(&group, time, after, near), expected, "{code} {time} {after} {near}");
                    }
                }
            }
        }
        assert_eq!(index.group(NO_CODE), 0..0);
        assert_eq!(index.group(7), 0..0);
    }
}
