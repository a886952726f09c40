//! Sums over the last rows of each of many series.
//!
//! Nothing is taken away from a sum: that would lose digits, and never recover from a NaN or an infinity. Rows come in rounds of as many as a
//! window has. A window is the first rows of this round and the last of the one before; of the former there is a running sum, of the
//! latter the sums from each row to the end, made once when a round is over. So a row costs two additions, whatever its window.

/// The last rows of each series, and their sum.
pub struct Rolling {
    length: usize,
    /// For each series by place in a round: from `next` on the sums of the round before, from there to its end.
    values: Vec<f64>,
    /// The same for how many rows have a value; empty as long as all have one.
    counts: Vec<u32>,
    series: Vec<Series>,
}

#[derive(Clone, Default)]
struct Series {
    /// The place of the next row in its round.
    next: u32,
    /// Whether there was a round before.
    has_before: bool,
    /// The sum of this round's rows.
    sum: f64,
    /// How many of them have a value, where `counts` are kept.
    count: u32,
}

impl Rolling {
    /// Makes the sums of the last `length` rows of so many series; there is at least one.
    pub fn new(series: usize, length: usize) -> Self {
        let values = vec![0.0; series * length];
        Self { length, values, counts: Vec::new(), series: vec![Series::default(); series] }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.capacity() * 12 + self.series.capacity() * size_of::<Series>()
    }

    /// Takes the next row of a series in, which has a value: what [`Rolling::next`] does where no row lacks one.
    #[inline]
    pub fn next_value(&mut self, series: usize, value: f64) -> (f64, u32) {
        if !self.counts.is_empty() {
            return self.next(series, Some(value));
        }
        let state = &mut self.series[series];
        let round = &mut self.values[series * self.length..(series + 1) * self.length];
        let at = state.next as usize;
        round[at] = value;
        state.sum += value;
        let sum = state.sum + round.get(at + 1).copied().unwrap_or(0.0);
        state.next += 1;
        let count = if state.has_before { self.length as u32 } else { state.next };
        if at + 1 == self.length {
            state.end_round(round, &mut []);
        }
        (sum, count)
    }

    /// Takes the next row of a series in; returns the sum of its last rows, and how many of them have a value.
    pub fn next(&mut self, series: usize, value: Option<f64>) -> (f64, u32) {
        if self.counts.is_empty() {
            self.begin_to_count();
        }
        let state = &mut self.series[series];
        let range = series * self.length..(series + 1) * self.length;
        let (round, counts) = (&mut self.values[range.clone()], &mut self.counts[range]);
        let at = state.next as usize;
        (round[at], counts[at]) = (value.unwrap_or(0.0), u32::from(value.is_some()));
        state.sum += round[at];
        state.count += counts[at];
        let sum = state.sum + round.get(at + 1).copied().unwrap_or(0.0);
        let count = state.count + counts.get(at + 1).copied().unwrap_or(0);
        state.next += 1;
        if at + 1 == round.len() {
            state.end_round(round, counts);
        }
        (sum, count)
    }

    /// Counts values from here on: all rows until now have one.
    fn begin_to_count(&mut self) {
        self.counts = vec![0; self.values.len()];
        for (state, counts) in self.series.iter_mut().zip(self.counts.chunks_mut(self.length)) {
            let next = state.next as usize;
            state.count = state.next;
            counts[..next].fill(1);
            if state.has_before {
                counts.iter_mut().rev().zip(1..).take(self.length - next).for_each(|(count, rows)| *count = rows);
            }
        }
    }
}

impl Series {
    /// Makes the sums from each row of a round to its end.
    fn end_round(&mut self, round: &mut [f64], counts: &mut [u32]) {
        round.iter_mut().rev().fold(0.0, |sum, value| {
            *value += sum;
            *value
        });
        counts.iter_mut().rev().fold(0, |sum, count| {
            *count += sum;
            *count
        });
        *self = Self { has_before: true, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::series::rolling::Rolling;

    #[test]
    fn a_sum_that_becomes_small_step_by_step_keeps_its_digits() {
        let mut rolling = Rolling::new(1, 4);
        let mut last = Vec::new();
        for step in 0..60 {
            let value = 1e18 * 0.3_f64.powi(step);
            last.push(value);
            let (sum, _) = rolling.next_value(0, value);
            let expected: f64 = last[last.len().saturating_sub(4)..].iter().sum();
            assert!((sum - expected).abs() <= 1e-12 * expected, "{step}: {sum} {expected}");
        }
    }

    #[test]
    fn sums_are_those_of_the_last_rows_whatever_was_before() {
        let mut rolling = Rolling::new(2, 3);
        let values = [
            Some(1e18),
            Some(1.0),
            None,
            Some(2.0),
            Some(f64::NAN),
            Some(3.0),
            Some(f64::INFINITY),
            None,
            Some(0.5),
            Some(0.25),
            None,
        ];
        for (at, value) in values.iter().enumerate() {
            let last: Vec<f64> = values[at.saturating_sub(2)..=at].iter().flatten().copied().collect();
            let expected: f64 = last.iter().sum();
            rolling.next(0, Some(-7.0));
            let (sum, count) = match value {
                Some(value) if at % 2 == 0 => rolling.next_value(1, *value),
                other => rolling.next(1, *other),
            };
            assert_eq!(count as usize, last.len());
            let is_same = sum == expected || (sum.is_nan() && expected.is_nan());
            assert!(is_same, "{at}: {sum} {expected}");
        }
    }
}
