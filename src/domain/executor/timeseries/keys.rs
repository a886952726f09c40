//! Dense codes for the keys of rows, and times as integers: what the kernels work on.
//!
//! A key of any number of columns becomes one small integer, the same for both sides of a join. Of a dictionary only the values
//! are looked at, once for each dictionary.

use crate::domain::executor::error::refused;
use arrow::array::{AnyDictionaryArray, Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, UInt32Type};
use datafusion::common::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use std::sync::Arc;

/// The code of a row whose key is NULL, which no other key is equal to.
pub const NO_CODE: u32 = u32::MAX;

/// Codes of keys, counted from 0 in the order in which they were first seen.
pub struct KeyCodes {
    /// None for a join without keys: all rows have code 0.
    values: Option<Box<dyn GroupValues>>,
    /// The types of the columns, dictionaries as their values.
    types: Vec<DataType>,
    /// For each column whether NULL is a key like another.
    null_safe: Vec<bool>,
    /// The dictionary that was seen last, and the codes of its values.
    dictionary: Option<(ArrayRef, Vec<u32>)>,
    scratch: Vec<usize>,
}

/// Returns the type under which keys of a type are compared: a dictionary's values, and text of one kind.
pub fn key_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => key_type(values),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        other => other.clone(),
    }
}

impl KeyCodes {
    /// Makes codes for keys of these types, by [`key_type`].
    ///
    /// # Errors
    ///
    /// DataFusion's for a type that cannot be a key.
    pub fn new(types: Vec<DataType>, null_safe: Vec<bool>) -> Result<Self> {
        let fields = types.iter().enumerate().map(|(at, known)| Field::new(format!("k{at}"), known.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let values = match types.is_empty() {
            true => None,
            false => Some(new_group_values(schema, &GroupOrdering::None)?),
        };
        Ok(Self { values, types, null_safe, dictionary: None, scratch: Vec::new() })
    }

    /// Returns the number of codes.
    pub fn len(&self) -> usize {
        self.values.as_ref().map_or(1, |values| values.len())
    }

    /// Returns the memory that the keys take, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.as_ref().map_or(0, |values| values.size())
    }

    /// Returns the code of each of `rows` rows.
    ///
    /// # Errors
    ///
    /// Where keys cannot be cast to their common type, or come to more than 32 bits.
    pub fn codes(&mut self, columns: &[ArrayRef], rows: usize) -> Result<ScalarBuffer<u32>> {
        if self.values.is_none() {
            return Ok(vec![0; rows].into());
        }
        if let ([column], [safe]) = (columns, self.null_safe.as_slice())
            && let Some(dictionary) = column.as_any_dictionary_opt()
        {
            return self.dictionary_codes(dictionary, *safe);
        }
        let plain = columns.iter().zip(&self.types).map(|(column, known)| Ok(cast(column, known)?));
        let plain = plain.collect::<Result<Vec<_>>>()?;
        Ok(self.plain_codes(&plain, rows)?.into())
    }

    fn dictionary_codes(&mut self, dictionary: &dyn AnyDictionaryArray, null_safe: bool) -> Result<ScalarBuffer<u32>> {
        let values = dictionary.values();
        let is_known = self.dictionary.as_ref().is_some_and(|(known, _)| known.to_data().ptr_eq(&values.to_data()));
        if !is_known {
            let plain = cast(values, &self.types[0])?;
            let codes = self.plain_codes(&[plain], values.len())?;
            self.dictionary = Some((values.clone(), codes));
        }
        let keys = dictionary.keys();
        let null_code = match null_safe && keys.null_count() > 0 {
            true => self.plain_codes(&[arrow::array::new_null_array(&self.types[0], 1)], 1)?[0],
            false => NO_CODE,
        };
        let codes = self.dictionary.as_ref().map(|(_, codes)| codes.as_slice()).unwrap_or_default();
        if keys.null_count() == 0
            && let Some(keys) = keys.as_primitive_opt::<UInt32Type>()
        {
            if codes.iter().zip(0..).all(|(code, key)| *code == key) {
                return Ok(keys.values().clone());
            }
            return Ok(keys.values().iter().map(|key| codes[*key as usize]).collect::<Vec<_>>().into());
        }
        if codes.is_empty() {
            return Ok(vec![null_code; keys.len()].into());
        }
        let keyed = dictionary.normalized_keys().into_iter().enumerate();
        let codes = keyed.map(|(row, key)| if keys.is_valid(row) { codes[key] } else { null_code });
        Ok(codes.collect::<Vec<_>>().into())
    }

    fn plain_codes(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let Some(values) = &mut self.values else { return Ok(vec![0; rows]) };
        self.scratch.clear();
        values.intern(columns, &mut self.scratch)?;
        if values.len() >= NO_CODE as usize {
            return Err(refused("a join by time has too many keys".to_owned()));
        }
        let mut codes: Vec<u32> = self.scratch.iter().map(|code| *code as u32).collect();
        for (column, _) in columns.iter().zip(&self.null_safe).filter(|(_, safe)| !**safe) {
            if let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
                codes
                    .iter_mut()
                    .enumerate()
                    .filter(|(row, _)| nulls.is_null(*row))
                    .for_each(|(_, code)| *code = NO_CODE);
            }
        }
        Ok(codes)
    }
}

/// Times of rows as integers of one order.
#[derive(Debug)]
pub struct Times {
    values: arrow::array::Int64Array,
    nulls: Option<NullBuffer>,
}

impl Times {
    /// Reads a column of times of `data_type`, by [`time_type`]; NaN is no time.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for times that nanoseconds cannot hold.
    pub fn new(column: &ArrayRef, data_type: &DataType) -> Result<Self> {
        let column = cast_checked(column, data_type)?;
        if *data_type == DataType::Float64 {
            let floats = column.as_primitive::<Float64Type>();
            let values = floats.iter().map(|value| value.filter(|value| !value.is_nan()).map(float_order));
            let values: arrow::array::Int64Array = values.collect();
            return Ok(Self { nulls: values.nulls().cloned(), values });
        }
        let narrow = if matches!(data_type, DataType::Date32) { cast(&column, &DataType::Int32)? } else { column };
        let values = cast(&narrow, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        Ok(Self { nulls: values.nulls().cloned(), values })
    }

    /// Returns the time of each row, 0 where there is none.
    pub fn values(&self) -> &[i64] {
        self.values.values()
    }

    /// Returns whether every row has a time.
    pub fn are_all_valid(&self) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.null_count() == 0)
    }

    /// Returns whether a row has a time.
    pub fn is_valid(&self, row: usize) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }
}

fn cast_checked(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(column, data_type, &options)
        .map_err(|_| refused(format!("a time is beyond what {data_type} can hold")))
}

fn float_order(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}

/// Returns the type in which times of two types are compared; none where they cannot be.
pub fn time_type(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Date32, Date64, Float64, Int64, Timestamp};
    Some(match (left, right) {
        (Timestamp(a, _), Timestamp(b, _)) if a == b => Timestamp(*a, None),
        // The finer unit of both, which most times fit in.
        (Timestamp(..) | Date32 | Date64, Timestamp(..) | Date32 | Date64) if left != right => {
            let unit = |data_type: &DataType| match data_type {
                Timestamp(unit, _) => *unit,
                Date64 => TimeUnit::Millisecond,
                _ => TimeUnit::Second,
            };
            Timestamp(unit(left).max(unit(right)), None)
        }
        (Date32, Date32) => Date32,
        (Date64, Date64) => Date64,
        // One beyond 63 bits is refused when it is met.
        (a, b) if a.is_integer() && b.is_integer() => Int64,
        (a, b) if (a.is_integer() || a.is_floating()) && (b.is_integer() || b.is_floating()) => Float64,
        _ => return None,
    })
}
