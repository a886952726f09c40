//! Sums over the last rows of each of many series.
//!
//! A sum that is kept by adding what comes and taking away what goes loses digits, and never recovers from a NaN or an infinity; so it is
//! taken anew from its rows once they have all been replaced, when a value goes that was much larger than the rest, and at every
//! step while one of them is not finite.

/// How much larger than a sum a value may be that is taken away from it.
const DIGITS_KEPT: f64 = 1e4;

/// The last rows of each series, and their sum.
pub struct Rolling {
    length: usize,
    /// For each series its last rows, in a ring.
    values: Vec<Option<f64>>,
    series: Vec<Series>,
}

#[derive(Clone, Default)]
struct Series {
    /// Rows so far.
    rows: usize,
    /// Values among the last rows.
    count: usize,
    sum: f64,
    /// Values among the last rows that are not finite.
    unbounded: usize,
}

impl Rolling {
    /// Makes the sums of the last `length` rows of so many series.
    pub fn new(series: usize, length: usize) -> Self {
        Self { length, values: vec![None; series * length], series: vec![Series::default(); series] }
    }

    /// Returns the memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<f64>>() + self.series.capacity() * size_of::<Series>()
    }

    /// Takes the next row of a series in; returns the sum of its last rows, and how many of them have a value.
    pub fn next(&mut self, series: usize, value: Option<f64>) -> (f64, usize) {
        let ring = &mut self.values[series * self.length..(series + 1) * self.length];
        let state = &mut self.series[series];
        let at = state.rows % self.length;
        let gone = std::mem::replace(&mut ring[at], value);
        state.rows += 1;
        if let Some(gone) = gone {
            state.count -= 1;
            state.unbounded -= usize::from(!gone.is_finite());
        }
        if let Some(value) = value {
            state.count += 1;
            state.unbounded += usize::from(!value.is_finite());
        }
        let was_unbounded = gone.is_some_and(|gone| !gone.is_finite());
        let moved = state.sum + value.unwrap_or(0.0) - gone.unwrap_or(0.0);
        // What goes was so large that nothing is left of the digits of what stays.
        let is_drowned = gone.is_some_and(|gone| gone.abs() > DIGITS_KEPT * moved.abs());
        let is_anew = state.unbounded > 0 || was_unbounded || is_drowned || at + 1 == self.length;
        state.sum = if is_anew { ring.iter().flatten().sum() } else { moved };
        (state.sum, state.count)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::series::rolling::Rolling;

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
            let (sum, count) = rolling.next(1, *value);
            assert_eq!(count, last.len());
            let is_same = sum == expected || (sum.is_nan() && expected.is_nan());
            assert!(is_same, "{at}: {sum} {expected}");
        }
    }
}
