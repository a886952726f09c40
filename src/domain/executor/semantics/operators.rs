//! Checked operators: arithmetic on numbers, and the concatenation of text.
//!
//! DataFusion lets integers and decimals wrap; here their overflow is an error. Floats follow IEEE 754, except that
//! every NaN comes out as the same one: x86 makes a negative one of 0/0, and a sign bit must not tell two of them apart
//! when they are compared, grouped or sorted. The bytes of concatenated text are bounded first, since concatenating a
//! column with itself doubles it.

use crate::domain::executor::functions::check_bounds;
use crate::domain::executor::memory::QueryMemory;
use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, Decimal256Array, PrimitiveArray};
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Returns the checked form of a binary operator, which is called `shown` in headings.
///
/// The heading is stored rather than made of the arguments: DataFusion asks for it at every level of an expression, and
/// a chain of a thousand operators would take minutes to plan.
pub fn checked(op: Operator, shown: String, memory: &QueryMemory) -> Arc<ScalarUDF> {
    let name = match op {
        Operator::Plus => "__zepto_add",
        Operator::Minus => "__zepto_subtract",
        Operator::Multiply => "__zepto_multiply",
        Operator::Divide => "__zepto_divide",
        Operator::Modulo => "__zepto_modulo",
        _ => "__zepto_concat",
    };
    let signature = Signature::any(2, Volatility::Immutable);
    Arc::new(ScalarUDF::from(CheckedOperator { name, op, shown, signature, memory: memory.clone() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedOperator {
    name: &'static str,
    op: Operator,
    shown: String,
    signature: Signature,
    memory: QueryMemory,
}

impl ScalarUDFImpl for CheckedOperator {
    fn name(&self) -> &str {
        self.name
    }

    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.shown.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] => BinaryTypeCoercer::new(left, &self.op, right).get_result_type(),
            _ => plan_err!("an operator has two sides"),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("an operator has two sides") };
        let made = match self.op {
            Operator::Plus => apply(left, right, numeric::add)?,
            Operator::Minus => apply(left, right, numeric::sub)?,
            Operator::Multiply => apply(left, right, numeric::mul)?,
            Operator::Divide => apply(left, right, numeric::div)?,
            Operator::Modulo => apply(left, right, numeric::rem)?,
            _ => {
                let bytes = check_bounds(self.name, &args.args, args.number_rows)?;
                let reserved = self.memory.reserve_result(bytes)?;
                match (concat(left, right, args.number_rows)?, reserved) {
                    (ColumnarValue::Array(array), Some(reserved)) => {
                        ColumnarValue::Array(self.memory.counted(array, reserved)?)
                    }
                    (result, _) => result,
                }
            }
        };
        match made {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(one_nan(within_digits(array)?))),
            ColumnarValue::Scalar(value) => {
                let array = one_nan(within_digits(value.to_array()?)?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

fn apply(
    left: &ColumnarValue,
    right: &ColumnarValue,
    kernel: impl Fn(&dyn Datum, &dyn Datum) -> std::result::Result<ArrayRef, ArrowError>,
) -> Result<ColumnarValue> {
    use ColumnarValue::{Array, Scalar};
    Ok(match (left, right) {
        (Array(left), Array(right)) => Array(kernel(left, right)?),
        (Scalar(left), Array(right)) => Array(kernel(&left.to_scalar()?, right)?),
        (Array(left), Scalar(right)) => Array(kernel(left, &right.to_scalar()?)?),
        (Scalar(left), Scalar(right)) => {
            Scalar(ScalarValue::try_from_array(&kernel(&left.to_scalar()?, &right.to_scalar()?)?, 0)?)
        }
    })
}

fn concat(left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ColumnarValue> {
    let are_scalars = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = if are_scalars { 1 } else { rows };
    let joined = concat_elements_dyn(&left.to_array(rows)?, &right.to_array(rows)?)?;
    Ok(if are_scalars {
        ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?)
    } else {
        ColumnarValue::Array(joined)
    })
}

/// Refuses decimals that have more digits than their type: arrow checks the bits of a result, not its digits.
fn within_digits(array: ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Decimal128(precision, _) => {
            array
                .as_any()
                .downcast_ref::<Decimal128Array>()
                .map_or(Ok(()), |array| array.validate_decimal_precision(*precision))?;
        }
        DataType::Decimal256(precision, _) => {
            array
                .as_any()
                .downcast_ref::<Decimal256Array>()
                .map_or(Ok(()), |array| array.validate_decimal_precision(*precision))?;
        }
        _ => {}
    }
    Ok(array)
}

/// Makes every NaN of a float column the same one.
pub fn one_nan(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float64 => canonical::<Float64Type>(&array, f64::is_nan, f64::NAN).unwrap_or(array),
        DataType::Float32 => canonical::<Float32Type>(&array, f32::is_nan, f32::NAN).unwrap_or(array),
        _ => array,
    }
}

/// Returns the array with `nan` for every NaN; none, without a copy, where it has no NaN.
fn canonical<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    is_nan: fn(T::Native) -> bool,
    nan: T::Native,
) -> Option<ArrayRef> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    let has_nan = values.values().iter().fold(false, |found, value| found | is_nan(*value));
    has_nan.then(|| Arc::new(values.unary::<_, T>(|value| if is_nan(value) { nan } else { value })) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::semantics::operators::one_nan;
    use arrow::array::{ArrayRef, AsArray, Float64Array};
    use arrow::datatypes::Float64Type;
    use std::sync::Arc;

    #[test]
    fn every_nan_becomes_the_same_one() {
        let mixed: ArrayRef = Arc::new(Float64Array::from(vec![Some(-f64::NAN), None, Some(1.0), Some(f64::NAN)]));
        let one = one_nan(mixed);
        let bits: Vec<_> = one.as_primitive::<Float64Type>().iter().map(|value| value.map(f64::to_bits)).collect();
        let nan = Some(f64::NAN.to_bits());
        assert_eq!(bits, [nan, None, Some(1.0_f64.to_bits()), nan]);
    }
}
