//! `?param_name=value`: values of a statement's parameters, typed by the statement itself and never part of its text.

use crate::ports::{Error, Query, QueryPort, Result};
use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use std::collections::HashMap;
use std::sync::Arc;

/// Prefix of every parameter.
const PREFIX: &str = "param_";

/// Text that means null, as at ClickHouse.
const NULL: &str = "\\N";

/// Binds the parameters that a request's own query gives: `param_1` to `$1` or the first `?`, `param_x` to `$x`.
///
/// # Errors
///
/// `InvalidQuery` for a parameter that the statement does not have, one without a value, or a value that is not of its
/// type; and those of describing the statement.
pub async fn bind_query_params(query: Query, given: &HashMap<String, String>, port: &dyn QueryPort) -> Result<Query> {
    let given: HashMap<&str, &String> =
        given.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))).collect();
    if given.is_empty() {
        return Ok(query);
    }
    let described = port.describe(Query { params: None, ..query.clone() }).await?;
    let names: Vec<_> = described.params.fields().iter().map(|field| field.name().trim_start_matches('$')).collect();
    if let Some(unknown) = given.keys().find(|name| !names.contains(*name)) {
        return Err(Error::invalid(format!("the statement has no parameter ${unknown}; it has {names:?}")));
    }
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (name, field) in names.iter().zip(described.params.fields()) {
        let text = given.get(name).ok_or_else(|| Error::invalid(format!("parameter ${name} has no value")))?;
        columns.push(typed(text, field)?);
    }
    let fields: Vec<_> =
        names.iter().zip(&columns).map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let params = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::internal("parameters do not fit their own types").with_source(error))?;
    Ok(Query { params: Some(params), ..query })
}

fn typed(text: &str, field: &Field) -> Result<ArrayRef> {
    if text == NULL {
        return Ok(new_null_array(field.data_type(), 1));
    }
    let value: ArrayRef = Arc::new(StringArray::from(vec![text]));
    if *field.data_type() == DataType::Utf8 {
        return Ok(value);
    }
    let cast = match field.data_type() {
        DataType::Timestamp(..) | DataType::Date32 => time(&value, field.data_type()),
        other => strictly(&value, other),
    };
    cast.map_err(|_| {
        let (name, data_type) = (field.name(), field.data_type());
        Error::invalid(format!("invalid value {text:?} for parameter {name}; expected {data_type}"))
    })
}

fn strictly(value: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(value, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Reads a time as it is written: of the expected type where that holds it, else of a finer one, of one that reaches further, or as the
/// number of nanoseconds that it may be. A comparison takes any of them.
fn time(text: &ArrayRef, expected: &DataType) -> Result<ArrayRef, ArrowError> {
    let zone = match expected {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let fine = strictly(text, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()));
    let own = strictly(text, expected);
    if let (Ok(fine), Ok(own)) = (&fine, &own) {
        let back = strictly(own, fine.data_type());
        let is_exact = back.is_ok_and(|back| back.as_ref() == fine.as_ref());
        return Ok(if is_exact { own.clone() } else { fine.clone() });
    }
    let far = strictly(text, &DataType::Timestamp(TimeUnit::Microsecond, zone));
    if let (Ok(far), Ok(own)) = (&far, &own)
        && strictly(own, far.data_type()).is_ok_and(|back| back.as_ref() != far.as_ref())
    {
        return Ok(far.clone());
    }
    own.or(fine).or(far).or_else(|error| strictly(text, &DataType::Int64).map_err(|_| error))
}
