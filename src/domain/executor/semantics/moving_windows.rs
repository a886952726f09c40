//! Sums, means, deviations, correlations and regressions of doubles over a window whose start moves.
//!
//! DataFusion 55.2 takes what leaves a window away from sums, which after a large value leaves nothing of the digits of the others, and
//! negative variances; a NaN or an infinity stays for ever. Here nothing is taken away: the rows of a window lie in two stacks, each row
//! with what is known of all that lie below it, and a window is put together of both tops (of moments: Chan, Golub, LeVeque 1979).

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// What a function answers.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Sum(fn(&Sum) -> Option<f64>),
    Moments(fn(&Moments) -> Option<f64>),
    Weighted(fn([f64; 2]) -> Weighted),
}

/// The functions, and how many arguments each has. Of two the first is y, the second x.
const FUNCTIONS: [(&str, usize, Answer); 19] = [
    ("sum", 1, Answer::Sum(|all| (all.rows > 0.0).then_some(all.sum))),
    ("avg", 1, Answer::Sum(|all| (all.rows > 0.0).then(|| all.sum / all.rows))),
    ("var", 1, Answer::Moments(|all| all.per_freedom(all.squares[0]))),
    ("var_pop", 1, Answer::Moments(|all| all.per_row(all.squares[0]))),
    ("stddev", 1, Answer::Moments(|all| all.per_freedom(all.squares[0]).map(f64::sqrt))),
    ("stddev_pop", 1, Answer::Moments(|all| all.per_row(all.squares[0]).map(f64::sqrt))),
    ("covar_samp", 2, Answer::Moments(|all| all.per_freedom(all.product))),
    ("covar_pop", 2, Answer::Moments(|all| all.per_row(all.product))),
    ("corr", 2, Answer::Moments(Moments::correlation)),
    ("regr_slope", 2, Answer::Moments(Moments::slope)),
    ("regr_intercept", 2, Answer::Moments(|all| Some(all.means[0] - all.slope()? * all.means[1]))),
    (
        "regr_r2",
        2,
        Answer::Moments(|all| (all.squares[0] != 0.0).then_some(all.slope()? * all.product / all.squares[0])),
    ),
    ("regr_avgx", 2, Answer::Moments(|all| all.some(all.means[1]))),
    ("regr_avgy", 2, Answer::Moments(|all| all.some(all.means[0]))),
    ("regr_sxx", 2, Answer::Moments(|all| all.some(all.squares[1]))),
    ("regr_syy", 2, Answer::Moments(|all| all.some(all.squares[0]))),
    ("regr_sxy", 2, Answer::Moments(|all| all.some(all.product))),
    ("vwap", 2, Answer::Weighted(|[value, weight]| Weighted { product: value * weight, weight })),
    ("wavg", 2, Answer::Weighted(|[weight, value]| Weighted { product: value * weight, weight })),
];

/// Returns the function of doubles that takes the place of one over windows; none for another one.
pub fn moving(name: &str) -> Option<Arc<AggregateUDF>> {
    static ALL: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let made = |(name, args, answer): &(&'static str, usize, Answer)| {
            let signature = Signature::exact(vec![DataType::Float64; *args], Volatility::Immutable);
            Arc::new(AggregateUDF::from(Moving { name, answer: *answer, signature }))
        };
        FUNCTIONS.iter().map(made).collect()
    });
    ALL.iter().find(|function| function.name() == name).cloned()
}

#[derive(Debug)]
struct Moving {
    name: &'static str,
    answer: Answer,
    signature: Signature,
}

impl PartialEq for Moving {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Moving {}

impl std::hash::Hash for Moving {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for Moving {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.answer {
            Answer::Sum(answer) => Box::new(Window::new(|[value, _]| Sum { rows: 1.0, sum: value }, answer)),
            Answer::Moments(answer) => Box::new(Window::new(Moments::of, answer)),
            Answer::Weighted(of) => Box::new(Window::new(of, Weighted::mean)),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(args.name, DataType::Float64, true))])
    }
}

/// What is known of some rows together.
trait Known: fmt::Debug + Copy + Default + Send + Sync + 'static {
    /// Returns what is known of these rows, and of others behind them.
    fn and(&self, others: &Self) -> Self;
}

/// How many rows there are, and their sum.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    rows: f64,
    sum: f64,
}

impl Known for Sum {
    fn and(&self, others: &Self) -> Self {
        Self { rows: self.rows + others.rows, sum: self.sum + others.sum }
    }
}

/// The sums of weights, and of values by their weights.
#[derive(Debug, Clone, Copy, Default)]
struct Weighted {
    product: f64,
    weight: f64,
}

impl Known for Weighted {
    fn and(&self, others: &Self) -> Self {
        Self { product: self.product + others.product, weight: self.weight + others.weight }
    }
}

impl Weighted {
    fn mean(&self) -> Option<f64> {
        (self.weight != 0.0).then(|| self.product / self.weight)
    }
}

/// The moments of some rows: how many, the means, and the sums of squares and products of what is beside the means.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    rows: f64,
    means: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

impl Known for Moments {
    fn and(&self, other: &Self) -> Self {
        if self.rows == 0.0 || other.rows == 0.0 {
            return if self.rows == 0.0 { *other } else { *self };
        }
        let rows = self.rows + other.rows;
        let apart: [f64; 2] = std::array::from_fn(|at| other.means[at] - self.means[at]);
        let share = self.rows * other.rows / rows;
        Self {
            rows,
            means: std::array::from_fn(|at| self.means[at] + apart[at] * (other.rows / rows)),
            squares: std::array::from_fn(|at| self.squares[at] + other.squares[at] + apart[at] * apart[at] * share),
            product: self.product + other.product + apart[0] * apart[1] * share,
        }
    }
}

impl Moments {
    fn of(row: [f64; 2]) -> Self {
        // What is not finite has no distance from its mean.
        let squares = row.map(|value| if value.is_finite() { 0.0 } else { f64::NAN });
        Self { rows: 1.0, means: row, squares, product: squares[0] + squares[1] }
    }

    fn some(&self, value: f64) -> Option<f64> {
        (self.rows > 0.0).then_some(value)
    }

    fn per_row(&self, sum: f64) -> Option<f64> {
        // A row is no distance from itself, be it infinite: what DataFusion answers without a window.
        self.some(if self.rows == 1.0 { 0.0 } else { sum / self.rows })
    }

    fn per_freedom(&self, sum: f64) -> Option<f64> {
        (self.rows > 1.0).then(|| sum / (self.rows - 1.0))
    }

    fn slope(&self) -> Option<f64> {
        (self.rows > 1.0 && self.squares[1] != 0.0).then(|| self.product / self.squares[1])
    }

    fn correlation(&self) -> Option<f64> {
        match self.means.map(f64::is_nan) {
            [true, true] => Some(f64::NAN),
            [false, false] if self.rows > 1.0 && self.squares.iter().all(|sum| *sum != 0.0) => {
                Some(self.product / self.squares[0].sqrt() / self.squares[1].sqrt())
            }
            _ => None,
        }
    }
}

/// The rows of a window that have all arguments.
#[derive(Debug)]
struct Window<K> {
    of: fn([f64; 2]) -> K,
    answer: fn(&K) -> Option<f64>,
    /// The older rows, the oldest on top: for each what is known of it and of those below.
    old: Vec<K>,
    /// The newer rows, the newest on top.
    new: Vec<[f64; 2]>,
    all_new: K,
}

impl<K: Known> Window<K> {
    fn new(of: fn([f64; 2]) -> K, answer: fn(&K) -> Option<f64>) -> Self {
        Self { of, answer, old: Vec::new(), new: Vec::new(), all_new: K::default() }
    }
}

/// Returns the rows of columns that have all of them.
fn rows(columns: &[ArrayRef]) -> impl Iterator<Item = [f64; 2]> {
    let columns: Vec<_> = columns.iter().map(|column| column.as_primitive::<Float64Type>().clone()).collect();
    let count = columns.first().map_or(0, |column| column.len());
    (0..count).filter_map(move |row| {
        let has_all = columns.iter().all(|column| column.is_valid(row));
        let value = |at: usize| columns.get(at).map_or(0.0, |column| column.value(row));
        has_all.then(|| [value(0), value(1)])
    })
}

impl<K: Known> Accumulator for Window<K> {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for row in rows(columns) {
            self.all_new = self.all_new.and(&(self.of)(row));
            self.new.push(row);
        }
        Ok(())
    }

    fn retract_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for _ in rows(columns) {
            if self.old.is_empty() {
                let mut below = K::default();
                while let Some(row) = self.new.pop() {
                    below = (self.of)(row).and(&below);
                    self.old.push(below);
                }
                self.all_new = K::default();
            }
            if self.old.pop().is_none() {
                return internal_err!("a window lost a value");
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let old = self.old.last().copied().unwrap_or_default();
        Ok(ScalarValue::Float64((self.answer)(&old.and(&self.all_new))))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.old.capacity() * size_of::<K>() + self.new.capacity() * size_of::<[f64; 2]>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a moving window has no parts")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a moving window has no parts")
    }
}
