//! Sums over the last rows of each of many series.
//!
//! A sum that is kept by adding what comes and taking away what goes loses digits, and never recovers from a NaN or an infinity; so it is
//! taken anew from its rows once they have all been replaced, when it is much smaller than what has been in it since it was last taken
//! anew, and at every step while one of them is not finite.

/// How much larger than a sum may be what was added to it or taken away: each rounded the sum to its digits.
const DIGITS_KEPT: f64 = 1e2;

/// Rows from which on less is kept: each rounds, and their sum on the way may be as much larger as there are rows.
const SHORT: usize = 64;

/// The last rows of each series, and their sum.
pub struct Rolling {
    length: usize,
    /// [`DIGITS_KEPT`], for so many rows.
    kept: f64,
    /// For each series its last rows, in a ring; 0 for those without a value.
    values: Vec<f64>,
    /// Which of those have none; empty as long as all have one.
    missing: Vec<bool>,
    series: Vec<Series>,
}

#[derive(Clone, Default)]
struct Series {
    /// The place of the next row in the ring.
    next: u32,
    /// Rows in the ring.
    rows: u32,
    /// Values among them.
    count: u32,
    /// Values among them that are not finite.
    unbounded: u32,
    sum: f64,
    /// The largest value since the sum was taken anew.
    largest: f64,
}

impl Rolling {
    /// Makes the sums of the last `length` rows of so many series.
    pub fn new(series: usize, length: usize) -> Self {
        Self {
            length,
            kept: DIGITS_KEPT * SHORT as f64 / length.max(SHORT) as f64,
            values: vec![0.0; series * length],
            missing: Vec::new(),
            series: vec![Series::default(); series],
        }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.capacity() * 9 + self.series.capacity() * size_of::<Series>()
    }

    /// Takes the next row of a series in, which has a value: what [`Rolling::next`] does, in a few steps where nothing is special.
    #[inline]
    pub fn next_value(&mut self, series: usize, value: f64) -> (f64, u32) {
        let state = &mut self.series[series];
        let is_full = state.rows as usize == self.length && state.unbounded == 0 && self.missing.is_empty();
        if is_full && (state.next as usize) + 1 < self.length {
            let place = &mut self.values[series * self.length + state.next as usize];
            let moved = state.sum + value - *place;
            if value.abs() > state.largest {
                state.largest = value.abs();
            }
            // Neither is true of NaN.
            let bound = self.kept * moved.abs();
            if state.largest <= bound && bound < f64::INFINITY {
                *place = value;
                state.next += 1;
                state.sum = moved;
                return (moved, state.count);
            }
        }
        self.next(series, Some(value))
    }

    /// Takes the next row of a series in; returns the sum of its last rows, and how many of them have a value.
    pub fn next(&mut self, series: usize, value: Option<f64>) -> (f64, u32) {
        if value.is_none() && self.missing.is_empty() {
            self.missing = vec![false; self.values.len()];
        }
        let ring = &mut self.values[series * self.length..(series + 1) * self.length];
        let state = &mut self.series[series];
        let at = state.next as usize;
        let is_full = state.rows as usize == self.length;
        let gone = std::mem::replace(&mut ring[at], value.unwrap_or(0.0));
        let mut had_value = is_full;
        if !self.missing.is_empty() {
            let was_missing = std::mem::replace(&mut self.missing[series * self.length + at], value.is_none());
            had_value &= !was_missing;
        }
        state.rows += u32::from(!is_full);
        state.next = if at + 1 == self.length { 0 } else { state.next + 1 };
        state.count = state.count + u32::from(value.is_some()) - u32::from(had_value);
        state.unbounded = state.unbounded + u32::from(!ring[at].is_finite()) - u32::from(!gone.is_finite());
        let moved = state.sum + ring[at] - gone;
        state.largest = state.largest.max(ring[at].abs());
        // There was so much that few digits are left of what stays.
        let is_drowned = state.largest > self.kept * moved.abs();
        let is_anew = state.unbounded > 0 || !gone.is_finite() || !moved.is_finite() || is_drowned || state.next == 0;
        state.sum = if is_anew { sum(ring) } else { moved };
        if is_anew {
            state.largest = ring.iter().fold(0.0, |largest, value| largest.max(value.abs()));
        }
        (state.sum, state.count)
    }
}

/// Adds numbers up in four parts, which do not wait for each other.
fn sum(values: &[f64]) -> f64 {
    let (fours, rest) = values.as_chunks::<4>();
    let parts = fours.iter().fold([0.0; 4], |parts, four| std::array::from_fn(|at| parts[at] + four[at]));
    parts.iter().chain(rest).sum()
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
