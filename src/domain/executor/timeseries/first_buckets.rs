//! Buckets that count from the first row: SAMPLE BY … ALIGN TO FIRST OBSERVATION (QuestDB).
//!
//! Where they begin is known when the rows are, so the first time is an argument like the time itself.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::buckets::as_nanoseconds;
use crate::domain::executor::timeseries::spans::Span;
use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{cast, try_binary};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// Returns the function; it takes a width, a time and the first time of all rows.
pub fn first_buckets() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(FirstBuckets { signature: Signature::any(3, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FirstBuckets {
    signature: Signature,
}

impl ScalarUDFImpl for FirstBuckets {
    fn name(&self) -> &str {
        "__zepto_sample_first"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, DataType::Timestamp(_, zone), _] => Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
            [_, other, _] => plan_err!("SAMPLE BY takes a TIMESTAMP, not {other}"),
            _ => plan_err!("SAMPLE BY has lost its arguments"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [width, time, first] = args.args.as_slice() else { return plan_err!("SAMPLE BY has lost its arguments") };
        let width = match width {
            ColumnarValue::Scalar(width) => Span::read(width)?,
            ColumnarValue::Array(_) => None,
        };
        let width_ns = match width {
            Some(Span::Ns(ns)) if ns > 0 => ns,
            Some(Span::Ns(ns)) => {
                return Err(refused(format!("the width of a bucket is {ns} ns; it has to be above 0")));
            }
            _ => return Err(refused("months have no fixed length, so they align to the CALENDAR alone".to_owned())),
        };
        let times = as_nanoseconds(&time.to_array(args.number_rows)?)?;
        let firsts = as_nanoseconds(&first.to_array(args.number_rows)?)?;
        let start = |at: i64, first: i64| {
            let after = (i128::from(at) - i128::from(first)).rem_euclid(i128::from(width_ns));
            // Less than the width, which is an i64.
            at.checked_sub(after as i64).ok_or_else(|| ArrowError::ComputeError("a bucket begins too early".to_owned()))
        };
        type Ns = TimestampNanosecondType;
        let starts: PrimitiveArray<Ns> = try_binary(times.as_primitive::<Ns>(), firsts.as_primitive::<Ns>(), start)?;
        let starts: ArrayRef = Arc::new(starts);
        Ok(ColumnarValue::Array(cast(&starts, args.return_type())?))
    }
}
