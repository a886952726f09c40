//! `sum` and `avg` of doubles over a window whose start moves.
//!
//! DataFusion 55.2 adds what enters a window and takes away what leaves it: after a NaN or an infinity the sum stays NaN, and after a
//! very large value the digits of the others are gone. Here the values of the window are kept, what is not finite is
//! counted apart, and the sum keeps what it loses in rounding.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

/// Returns the function that takes the place of `sum` or `avg`; none for another one.
pub fn moving(name: &str) -> Option<Arc<AggregateUDF>> {
    static FUNCTIONS: LazyLock<[Arc<AggregateUDF>; 2]> = LazyLock::new(|| {
        let signature = || Signature::exact(vec![DataType::Float64], Volatility::Immutable);
        ["sum", "avg"].map(|name| Arc::new(AggregateUDF::from(Moving { name, signature: signature() })))
    });
    FUNCTIONS.iter().find(|function| function.name() == name).cloned()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Moving {
    name: &'static str,
    signature: Signature,
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
        Ok(Box::new(MovingSum { is_mean: self.name == "avg", ..MovingSum::default() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(args.name, DataType::Float64, true))])
    }
}

#[derive(Debug, Default)]
struct MovingSum {
    values: VecDeque<f64>,
    /// The sum of the finite values, and what it lost in rounding.
    sum: f64,
    lost: f64,
    /// Values that are NaN, infinite, and infinite below zero.
    odd: [usize; 3],
    /// Values that were taken away since the sum was taken anew.
    taken: usize,
    is_mean: bool,
}

impl MovingSum {
    /// Adds to the sum, and what that loses to what it has lost (Knuth, TwoSum).
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        let part = sum - self.sum;
        self.lost += (self.sum - (sum - part)) + (value - part);
        self.sum = sum;
    }

    /// Returns which odd value it is, if it is one.
    fn odd(value: f64) -> Option<usize> {
        match value {
            _ if value.is_nan() => Some(0),
            f64::INFINITY => Some(1),
            f64::NEG_INFINITY => Some(2),
            _ => None,
        }
    }
}

impl Accumulator for MovingSum {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for value in columns[0].as_primitive::<Float64Type>().iter().flatten() {
            self.values.push_back(value);
            match Self::odd(value) {
                Some(odd) => self.odd[odd] += 1,
                None => self.add(value),
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let count = columns[0].len() - columns[0].null_count();
        for _ in 0..count {
            let Some(gone) = self.values.pop_front() else { return internal_err!("a window lost a value") };
            self.taken += 1;
            match Self::odd(gone) {
                Some(odd) => self.odd[odd] -= 1,
                None => self.add(-gone),
            }
        }
        // What is lost all the same adds up; once all values have been replaced it is time to begin anew.
        if self.taken > self.values.len() {
            (self.sum, self.lost, self.taken) = (0.0, 0.0, 0);
            for at in 0..self.values.len() {
                if Self::odd(self.values[at]).is_none() {
                    self.add(self.values[at]);
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = match self.odd {
            [0, 0, 0] => self.sum + self.lost,
            [0, _, 0] => f64::INFINITY,
            [0, 0, _] => f64::NEG_INFINITY,
            _ => f64::NAN,
        };
        let answer = if self.is_mean { sum / self.values.len() as f64 } else { sum };
        Ok(ScalarValue::Float64((!self.values.is_empty()).then_some(answer)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a moving sum has no parts")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a moving sum has no parts")
    }
}
