//! Columns of text that stand for values of another type.
//!
//! Bodies of text – CSV, JSON – say `1.5` without saying what that is. Whoever reads one hands its numbers and times on as they
//! are written, and says in the column's metadata which type they look like. Who stores them decides: a value is stored
//! exactly as it was written, or refused. So every protocol and every form of a body is held to the one rule, over a wire too.

use crate::ports::{Error, Result};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use std::sync::Arc;

/// The metadata of a string column of a stream whose text stands for values of the type that is named, as arrow prints it.
pub const TEXT_OF: &str = "zepto:text_of";

/// Returns the schema in which values of `schema` are read as text: numbers and times, within lists and structs as well.
pub fn as_text(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(|field| Arc::new(text_field(field))).collect::<Vec<_>>())
}

fn text_field(field: &Field) -> Field {
    let data_type = field.data_type();
    if data_type.is_numeric() || matches!(data_type, DataType::Timestamp(..)) || is_day_or_time(data_type) {
        let name = (TEXT_OF.to_owned(), data_type.to_string());
        return Field::new(field.name(), DataType::Utf8, field.is_nullable()).with_metadata([name].into());
    }
    field.clone().with_data_type(nested(data_type, &|inner| Ok(text_field(inner))).unwrap_or(data_type.clone()))
}

fn is_day_or_time(data_type: &DataType) -> bool {
    use DataType::{Date32, Date64, Time32, Time64};
    matches!(data_type, Date32 | Date64 | Time32(_) | Time64(_))
}

/// A list or struct type with its parts changed by `change`.
fn nested(data_type: &DataType, change: &dyn Fn(&Field) -> Result<Field>) -> Result<DataType> {
    let item = |item: &FieldRef| change(item).map(Arc::new);
    Ok(match data_type {
        DataType::List(inner) => DataType::List(item(inner)?),
        DataType::LargeList(inner) => DataType::LargeList(item(inner)?),
        DataType::FixedSizeList(inner, size) => DataType::FixedSizeList(item(inner)?, *size),
        DataType::Struct(members) => DataType::Struct(members.iter().map(item).collect::<Result<Fields>>()?),
        other => other.clone(),
    })
}

/// Returns whether values of `field`, or of a part of it, are text that stands for another type.
pub fn stands_for_other(field: &Field) -> bool {
    field.metadata().contains_key(TEXT_OF)
        || match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                stands_for_other(item)
            }
            DataType::Struct(members) => members.iter().any(|member| stands_for_other(member)),
            _ => false,
        }
}

/// Returns the schema that is meant by one with columns of text for other types: that of a table made for it.
///
/// # Errors
///
/// `InvalidQuery` for a type that there is not.
pub fn intended(schema: &Schema) -> Result<Schema> {
    let fields = schema.fields().iter().map(|field| intended_field(field).map(Arc::new));
    Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
}

fn intended_field(field: &Field) -> Result<Field> {
    let mut metadata = field.metadata().clone();
    match metadata.remove(TEXT_OF) {
        Some(name) => {
            let data_type = name.parse().map_err(|_| Error::invalid(format!("there is no type {name:?}")))?;
            Ok(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata))
        }
        None => Ok(field.clone().with_data_type(nested(field.data_type(), &intended_field)?)),
    }
}

#[cfg(test)]
mod tests {
    use crate::ports::text_columns::{as_text, intended, stands_for_other};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    #[test]
    fn every_type_that_is_read_as_text_is_found_again() {
        use DataType::*;
        let zoned = || Timestamp(TimeUnit::Millisecond, Some("Europe/Berlin".into()));
        let types = [
            Int8,
            UInt64,
            Float32,
            Float64,
            Date32,
            Date64,
            Time32(TimeUnit::Second),
            Time64(TimeUnit::Nanosecond),
            Decimal128(10, 2),
            Decimal256(60, 3),
            Timestamp(TimeUnit::Second, None),
            zoned(),
            Utf8,
            Boolean,
            DataType::new_list(Int64, true),
            Struct([Field::new("a", Date32, true), Field::new("b", Utf8, true)].to_vec().into()),
        ];
        let fields: Vec<_> =
            types.into_iter().enumerate().map(|(at, of)| Field::new(format!("c{at}"), of, true)).collect();
        let schema = Schema::new(fields);
        let text = as_text(&schema);
        assert_eq!(text.field(0).data_type(), &Utf8);
        assert_eq!(text.fields().iter().filter(|field| stands_for_other(field)).count(), schema.fields().len() - 2);
        assert_eq!(intended(&text).unwrap(), schema);
    }
}
