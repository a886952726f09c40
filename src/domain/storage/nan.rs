//! NaN as one value.
//!
//! A NaN has a sign bit, and x86 makes 0/0 negative. Arrow's kernels and DataFusion compare, group and sort by bits, in which
//! a negative NaN is below minus infinity. What is stored keeps its bits; where rows are computed with, a NaN with a sign is
//! read as one without.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use std::sync::Arc;

/// Returns whether a column holds a NaN with a sign.
pub fn has_signed_nan(column: &dyn Array) -> bool {
    // One pass over the values without a branch, so that it runs as fast as memory is read.
    fn any<T: ArrowPrimitiveType>(column: &dyn Array, is_signed_nan: impl Fn(T::Native) -> bool) -> bool {
        column.as_primitive::<T>().values().iter().fold(false, |found, value| found | is_signed_nan(*value))
    }
    match column.data_type() {
        DataType::Float16 => any::<Float16Type>(column, |value| value.is_nan() && value.is_sign_negative()),
        DataType::Float32 => any::<Float32Type>(column, |value| value.is_nan() && value.is_sign_negative()),
        DataType::Float64 => any::<Float64Type>(column, |value| value.is_nan() && value.is_sign_negative()),
        _ => false,
    }
}

/// Copies a column of floats with every NaN as one without a sign; returns any other column as it is.
pub fn without_signed_nans(column: &ArrayRef) -> ArrayRef {
    fn copied<T: ArrowPrimitiveType>(column: &ArrayRef, map: impl Fn(T::Native) -> T::Native) -> ArrayRef {
        let copied: PrimitiveArray<T> = column.as_primitive::<T>().unary(map);
        Arc::new(copied)
    }
    type Half = <Float16Type as ArrowPrimitiveType>::Native;
    match column.data_type() {
        DataType::Float16 => copied::<Float16Type>(column, |value| if value.is_nan() { Half::NAN } else { value }),
        DataType::Float32 => copied::<Float32Type>(column, |value| if value.is_nan() { f32::NAN } else { value }),
        DataType::Float64 => copied::<Float64Type>(column, |value| if value.is_nan() { f64::NAN } else { value }),
        _ => column.clone(),
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::nan::{has_signed_nan, without_signed_nans};
    use arrow::array::{ArrayRef, AsArray, Float64Array};
    use arrow::datatypes::Float64Type;
    use std::sync::Arc;

    #[test]
    fn only_signed_nans_are_changed() {
        let column: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(-f64::NAN), Some(f64::NEG_INFINITY)]));
        assert!(has_signed_nan(&column) && !has_signed_nan(&column.slice(0, 2)));
        let copied = without_signed_nans(&column);
        let copied = copied.as_primitive::<Float64Type>();
        assert!(copied.value(0).is_sign_negative() && copied.value(3) == f64::NEG_INFINITY);
        assert_eq!(copied.value(2).to_bits(), f64::NAN.to_bits());
        assert!(copied.iter().nth(1).unwrap().is_none());
    }
}
