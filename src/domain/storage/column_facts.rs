//! What is known of a column without its values: bounds, how many are missing, whether they are in order.
//!
//! It is found when it is first asked for, so ingestion does not wait for it, and before a column leaves memory, so that a query
//! finds what it need not read. Bounds order values as Arrow's comparison kernels do (total order for floats, so NaN is the largest),
//! because the executor prunes by comparing them with the same kernels. Deleted rows are counted in: bounds rather than extremes.

use crate::domain::storage::nan::{has_signed_nan, without_signed_nans};
use crate::ports::ColumnFacts;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt32Array, downcast_primitive};
use arrow::compute::{self, cast};
use arrow::datatypes::{ArrowNumericType, DataType, Int64Type};
use std::sync::{Arc, OnceLock};

/// What is known of one column of one segment by now.
#[derive(Debug, Default)]
pub struct KnownFacts {
    bounds: OnceLock<Option<ArrayRef>>,
    null_count: OnceLock<usize>,
    has_signed_nan: OnceLock<bool>,
    is_in_order: OnceLock<bool>,
}

impl KnownFacts {
    /// Makes what is known of a column that was looked at before.
    pub fn of(facts: &ColumnFacts) -> Self {
        let ColumnFacts { bounds, null_count, has_signed_nan, is_in_order } = facts;
        Self {
            bounds: OnceLock::from(bounds.clone()),
            null_count: OnceLock::from(*null_count),
            has_signed_nan: OnceLock::from(*has_signed_nan),
            is_in_order: OnceLock::from(*is_in_order),
        }
    }

    /// Returns the smallest and the largest value of `column`, if it has some that are compared.
    pub fn bounds(&self, column: impl Fn() -> Option<ArrayRef>) -> Option<&ArrayRef> {
        let compute = || {
            let column = column()?;
            match self.has_signed_nan(|| Some(column.clone())) {
                true => bounds_of(&without_signed_nans(&column)),
                false => bounds_of(&column),
            }
        };
        self.bounds.get_or_init(compute).as_ref()
    }

    /// Returns how many rows have no value.
    pub fn null_count(&self, column: impl Fn() -> Option<ArrayRef>) -> usize {
        *self.null_count.get_or_init(|| column().map_or(0, |column| column.logical_null_count()))
    }

    /// Returns whether there is a NaN with a sign.
    pub fn has_signed_nan(&self, column: impl Fn() -> Option<ArrayRef>) -> bool {
        *self.has_signed_nan.get_or_init(|| column().is_some_and(|column| has_signed_nan(&column)))
    }

    /// Returns whether it is a column of times in ascending order.
    pub fn is_in_order(&self, column: impl Fn() -> Option<ArrayRef>) -> bool {
        *self.is_in_order.get_or_init(|| column().is_some_and(|column| is_sorted(&column)))
    }

    /// Returns all of it.
    pub fn all(&self, column: impl Fn() -> Option<ArrayRef>) -> ColumnFacts {
        ColumnFacts {
            bounds: self.bounds(&column).cloned(),
            null_count: self.null_count(&column),
            has_signed_nan: self.has_signed_nan(&column),
            is_in_order: self.is_in_order(&column),
        }
    }
}

/// Returns whether times are in ascending order; false for what is no time.
fn is_sorted(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Timestamp(..) => {
            let times = cast(column, &DataType::Int64);
            times.is_ok_and(|times| times.as_primitive::<Int64Type>().values().is_sorted())
        }
        _ => false,
    }
}

/// Computes the bounds of a column of a type that queries compare: numbers, times, strings. None where there is no value.
pub fn bounds_of(column: &dyn Array) -> Option<ArrayRef> {
    use DataType::*;
    let ordered = column.data_type().is_primitive() || matches!(column.data_type(), Utf8 | LargeUtf8 | Utf8View);
    if !ordered || matches!(column.data_type(), Interval(_)) || column.null_count() == column.len() {
        return None;
    }
    bounds(column)
}

/// The smallest and the largest value.
fn bounds(column: &dyn Array) -> Option<ArrayRef> {
    macro_rules! primitive {
        ($kind:ty) => {
            return primitive_bounds::<$kind>(column.as_primitive())
        };
    }
    let (min, max) = downcast_primitive! {
        column.data_type() => (primitive),
        DataType::Utf8 => extremes(column.as_string::<i32>().iter())?,
        DataType::LargeUtf8 => extremes(column.as_string::<i64>().iter())?,
        DataType::Utf8View => extremes(column.as_string_view().iter())?,
        _ => return None
    };
    compute::take(column, &UInt32Array::from(vec![min, max]), None).ok()
}

fn primitive_bounds<T: ArrowNumericType>(column: &PrimitiveArray<T>) -> Option<ArrayRef> {
    let ends = [compute::min(column)?, compute::max(column)?];
    let bounds = PrimitiveArray::<T>::from_iter_values(ends).with_data_type(column.data_type().clone());
    Some(Arc::new(bounds))
}

/// Finds the row numbers of the smallest and of the largest string.
fn extremes<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Option<(u32, u32)> {
    let mut there = (0u32..).zip(values).filter_map(|(row, value)| Some((value?, row)));
    let first = there.next()?;
    let (mut min, mut max) = (first, first);
    for found in there {
        if found.0 < min.0 {
            min = found;
        } else if found.0 > max.0 {
            max = found;
        }
    }
    Some((min.1, max.1))
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::column_facts::bounds_of;
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn check(column: ArrayRef, bounds: Option<ArrayRef>) {
        assert_eq!(bounds_of(column.as_ref()), bounds, "{column:?}");
    }

    #[test]
    fn bounds_skip_nulls_and_put_nan_last() {
        check(
            Arc::new(Int64Array::from(vec![None, Some(3), Some(-7), None])),
            Some(Arc::new(Int64Array::from(vec![-7, 3]))),
        );
        check(
            Arc::new(StringArray::from(vec![Some("b"), None, Some("a")])),
            Some(Arc::new(StringArray::from(vec!["a", "b"]))),
        );
        check(Arc::new(Decimal128Array::from(vec![5, 1, 9])), Some(Arc::new(Decimal128Array::from(vec![1, 9]))));
        let bounds = bounds_of(&Float64Array::from(vec![1.0, f64::NAN, -0.0, 0.0])).unwrap();
        let bounds = bounds.as_any().downcast_ref::<Float64Array>().unwrap();
        assert!(bounds.value(0) == 0.0 && bounds.value(0).is_sign_negative() && bounds.value(1).is_nan());
    }

    #[test]
    fn columns_without_values_or_order_have_none() {
        check(Arc::new(Int64Array::from(vec![None, None])), None);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
        check(Arc::new(lists), None);
    }
}
