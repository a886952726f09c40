//! Casts of times to a coarser unit, which round down before 1970 as after it.
//!
//! arrow 59 divides, which rounds towards 1970: half a second before it becomes 1970, a second that no bucket or comparison puts it in.

use crate::domain::executor::time_units::unit_ns;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Returns a time of type `from` rounded down to the unit of `to`.
///
/// # Errors
///
/// The time, where nothing is to be rounded.
pub fn floored(time: Expr, from: &DataType, to: &DataType) -> std::result::Result<Expr, Expr> {
    let (DataType::Timestamp(..), Some(from_ns), Some(to_ns)) = (from, unit_ns(from), unit_ns(to)) else {
        return Err(time);
    };
    if to_ns <= from_ns || !matches!(to, DataType::Timestamp(..) | DataType::Date64) {
        return Err(time);
    }
    let floor = Floored { units: to_ns / from_ns, signature: Signature::any(1, Volatility::Immutable) };
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(floor)), vec![time])))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Floored {
    /// How many of the column's units are rounded to one.
    units: i64,
    signature: Signature,
}

impl ScalarUDFImpl for Floored {
    fn name(&self) -> &str {
        "__zepto_floored"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|arg| arg.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Array(times)) => Ok(ColumnarValue::Array(self.floor(times)?)),
            Some(ColumnarValue::Scalar(time)) => {
                let floored = self.floor(&time.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&floored, 0)?))
            }
            None => exec_err!("a time is made of one value"),
        }
    }
}

impl Floored {
    fn floor(&self, times: &ArrayRef) -> Result<ArrayRef> {
        let counts = cast(times, &DataType::Int64)?;
        // The first instants of all have none before them that 64 bits hold.
        let floor = |count: i64| count.saturating_sub(count.rem_euclid(self.units));
        let floored: Int64Array = counts.as_primitive::<Int64Type>().unary(floor);
        let floored = floored.into_data().into_builder().data_type(times.data_type().clone());
        Ok(arrow::array::make_array(floored.build()?))
    }
}
