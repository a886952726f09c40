//! `twap(value, time)`: the mean of a step function, each value of which lasts until the next.
//!
//! The last value lasts no time; of a single instant it is the plain mean (QuestDB, `twap`).

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, TimestampNanosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;

const TIME: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// Returns the function.
pub fn twap() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(TimeWeightedMean { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeWeightedMean {
    signature: Signature,
}

impl AggregateUDFImpl for TimeWeightedMean {
    fn name(&self) -> &str {
        "twap"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [value, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64] if value.is_numeric() => {
                Ok(vec![DataType::Float64, TIME])
            }
            _ => plan_err!("twap takes a number and its time"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str, item: DataType| {
            let item = Arc::new(Field::new_list_field(item, true));
            Arc::new(Field::new(format!("{}[{part}]", args.name), DataType::List(item), true))
        };
        Ok(vec![field("values", DataType::Float64), field("times", TIME)])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Steps>::default())
    }
}

/// All values with their times, in the order of their arrival.
#[derive(Debug, Default)]
struct Steps(Vec<(i64, f64)>);

impl Steps {
    fn extend(&mut self, values: &dyn Array, times: &dyn Array) {
        let (values, times) = (values.as_primitive::<Float64Type>(), times.as_primitive::<TimestampNanosecondType>());
        self.0.extend(times.iter().zip(values).filter_map(|(time, value)| time.zip(value)));
    }
}

impl Accumulator for Steps {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values, times] = values else { return internal_err!("twap has two arguments") };
        self.extend(values, times);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // Stable: of equal times the later arrival lasts on.
        self.0.sort_by_key(|(time, _)| *time);
        let (Some((first, _)), Some((last, _))) = (self.0.first(), self.0.last()) else {
            return Ok(ScalarValue::Float64(None));
        };
        let span = i128::from(*last) - i128::from(*first);
        let mean = if span == 0 {
            self.0.iter().map(|(_, value)| value).sum::<f64>() / self.0.len() as f64
        } else {
            let lasting = |step: &[(i64, f64)]| step[0].1 * (i128::from(step[1].0) - i128::from(step[0].0)) as f64;
            self.0.windows(2).map(lasting).sum::<f64>() / span as f64
        };
        Ok(ScalarValue::Float64(Some(mean)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.capacity() * size_of::<(i64, f64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |values: ArrayRef| {
            let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            let list = ListArray::new(item, OffsetBuffer::from_lengths([values.len()]), values, None);
            ScalarValue::List(Arc::new(list))
        };
        let values = Float64Array::from_iter_values(self.0.iter().map(|(_, value)| *value));
        let times = TimestampNanosecondArray::from_iter_values(self.0.iter().map(|(time, _)| *time));
        Ok(vec![list(Arc::new(values)), list(Arc::new(times))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [values, times] = states else { return internal_err!("twap has two states") };
        for (values, times) in values.as_list::<i32>().iter().zip(times.as_list::<i32>().iter()) {
            if let (Some(values), Some(times)) = (values, times) {
                self.extend(&values, &times);
            }
        }
        Ok(())
    }
}
