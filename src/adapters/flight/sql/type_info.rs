//! SQL's view of Arrow types: names, sizes, and their numbers in ODBC and JDBC.
//!
//! One table serves both the metadata of a result's fields and GetXdbcTypeInfo. CREATE TABLE takes every name in it.

use crate::adapters::ipc::SQL_METADATA_KEYS;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use std::sync::Arc;

/// A type of SQL.
struct SqlType {
    name: &'static str,
    number: XdbcDataType,
    /// Most digits, characters or bytes; none if there is no bound.
    size: Option<i32>,
    /// Digits after the point, or of the fraction of a second.
    scale: Option<i32>,
}

const fn sql(name: &'static str, number: XdbcDataType, size: Option<i32>, scale: Option<i32>) -> SqlType {
    SqlType { name, number, size, scale }
}

/// Types without arguments, each with one name.
const TYPES: [SqlType; 19] = [
    sql("BOOLEAN", XdbcDataType::XdbcBit, Some(1), None),
    sql("TINYINT", XdbcDataType::XdbcTinyint, Some(3), Some(0)),
    sql("SMALLINT", XdbcDataType::XdbcSmallint, Some(5), Some(0)),
    sql("INTEGER", XdbcDataType::XdbcInteger, Some(10), Some(0)),
    sql("BIGINT", XdbcDataType::XdbcBigint, Some(19), Some(0)),
    sql("UTINYINT", XdbcDataType::XdbcTinyint, Some(3), Some(0)),
    sql("USMALLINT", XdbcDataType::XdbcSmallint, Some(5), Some(0)),
    sql("UINT32", XdbcDataType::XdbcInteger, Some(10), Some(0)),
    sql("UBIGINT", XdbcDataType::XdbcBigint, Some(20), Some(0)),
    sql("REAL", XdbcDataType::XdbcReal, Some(24), None),
    sql("DOUBLE", XdbcDataType::XdbcDouble, Some(53), None),
    sql("DECIMAL", XdbcDataType::XdbcDecimal, Some(76), None),
    sql("VARCHAR", XdbcDataType::XdbcVarchar, None, None),
    sql("VARBINARY", XdbcDataType::XdbcVarbinary, None, None),
    sql("DATE", XdbcDataType::XdbcDate, Some(10), None),
    sql("TIME", XdbcDataType::XdbcTime, Some(18), Some(9)),
    sql("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some(29), Some(9)),
    sql("TIMESTAMPTZ", XdbcDataType::XdbcTimestamp, Some(35), Some(9)),
    sql("INTERVAL", XdbcDataType::XdbcInterval, None, None),
];

/// Returns the entry of a type; none for nested types.
fn sql_type(data_type: &DataType) -> Option<&'static SqlType> {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "UTINYINT",
        DataType::UInt16 => "USMALLINT",
        DataType::UInt32 => "UINT32",
        DataType::UInt64 => "UBIGINT",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "DECIMAL"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "VARBINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Dictionary(_, values) => return sql_type(values),
        _ => return None,
    };
    TYPES.iter().find(|entry| entry.name == name)
}

/// Returns the digits or characters of a type, and the digits after its point.
fn size_and_scale(data_type: &DataType) -> (Option<i32>, Option<i32>) {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (Some(i32::from(*precision)), Some(i32::from(*scale))),
        DataType::FixedSizeBinary(width) => (Some(*width), None),
        other => sql_type(other).map_or((None, None), |entry| (entry.size, entry.scale)),
    }
}

/// Adds Flight SQL's metadata of columns to the fields of `schema` (FlightSql.proto, "CommandStatementQuery").
pub fn annotate(schema: &Schema) -> Schema {
    let fields: Vec<_> = schema.fields().iter().map(|field| Arc::new(annotate_field(field))).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn annotate_field(field: &Field) -> Field {
    let (size, scale) = size_and_scale(field.data_type());
    let name = sql_type(field.data_type()).map_or_else(|| field.data_type().to_string(), |entry| entry.name.to_owned());
    let mut metadata = field.metadata().clone();
    let values = [
        Some(name),
        size.map(|size| size.to_string()),
        scale.map(|scale| scale.to_string()),
        // Auto-increment, case-sensitive, read-only, searchable.
        Some("0".to_owned()),
        Some("1".to_owned()),
        Some("0".to_owned()),
        Some("1".to_owned()),
    ];
    metadata.extend(SQL_METADATA_KEYS.iter().zip(values).filter_map(|(key, value)| Some(((*key).to_owned(), value?))));
    field.clone().with_metadata(metadata)
}

/// Answers GetXdbcTypeInfo, for one type by its number or for all.
///
/// # Errors
///
/// `Internal` if the table does not fit its schema.
pub fn xdbc_types(data_type: Option<i32>) -> Result<RecordBatch> {
    type_info()?.record_batch(data_type).map_err(|error| Error::internal("type info").with_source(error))
}

/// Returns the schema of [`xdbc_types`].
///
/// # Errors
///
/// The same.
pub fn xdbc_schema() -> Result<SchemaRef> {
    type_info().map(|info| info.schema())
}

fn type_info() -> Result<XdbcTypeInfoData> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for entry in &TYPES {
        builder.append(xdbc(entry));
    }
    builder.build().map_err(|error| Error::internal("type info").with_source(error))
}

fn xdbc(entry: &SqlType) -> XdbcTypeInfo {
    use XdbcDataType::*;
    let (is_number, is_text) = (
        matches!(
            entry.number,
            XdbcTinyint | XdbcSmallint | XdbcInteger | XdbcBigint | XdbcReal | XdbcDouble | XdbcDecimal
        ),
        entry.number == XdbcVarchar,
    );
    let subcode = match entry.name {
        // 1 is XDBC_SUBCODE_DATE as well: the specification has two names for it.
        "DATE" => Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
        "TIME" => Some(XdbcDatetimeSubcode::XdbcSubcodeTime),
        "TIMESTAMP" => Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        "TIMESTAMPTZ" => Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
        _ => None,
    };
    let quote = (!is_number && entry.number != XdbcBit).then(|| "'".to_owned());
    XdbcTypeInfo {
        type_name: entry.name.to_owned(),
        data_type: entry.number,
        column_size: entry.size,
        literal_prefix: quote.clone(),
        literal_suffix: quote,
        create_params: (entry.number == XdbcDecimal).then(|| vec!["precision".to_owned(), "scale".to_owned()]),
        nullable: Nullable::NullabilityNullable,
        case_sensitive: is_text,
        searchable: if is_text { Searchable::Full } else { Searchable::Basic },
        unsigned_attribute: is_number.then(|| entry.name.starts_with('U')),
        fixed_prec_scale: false,
        auto_increment: is_number.then_some(false),
        local_type_name: Some(entry.name.to_owned()),
        minimum_scale: entry.scale.map(|_| 0).or((entry.number == XdbcDecimal).then_some(0)),
        maximum_scale: entry.scale.or((entry.number == XdbcDecimal).then_some(76)),
        sql_data_type: if subcode.is_some() { XdbcDatetime } else { entry.number },
        datetime_subcode: subcode,
        num_prec_radix: is_number.then_some(if matches!(entry.number, XdbcReal | XdbcDouble) { 2 } else { 10 }),
        interval_precision: None,
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::sql::type_info::{TYPES, annotate, sql_type, xdbc_types};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use std::collections::HashSet;

    #[test]
    fn fields_carry_what_drivers_read() {
        let fields = vec![
            Field::new("d", DataType::Decimal128(10, 2), true),
            Field::new("t", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
            Field::new("l", DataType::new_list(DataType::Int64, true), true),
        ];
        let schema = annotate(&Schema::new(fields));
        let said = |column: &str, key: &str| {
            schema.field_with_name(column).unwrap().metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned()
        };
        assert_eq!(said("d", "TYPE_NAME").as_deref(), Some("DECIMAL"));
        assert_eq!((said("d", "PRECISION").as_deref(), said("d", "SCALE").as_deref()), (Some("10"), Some("2")));
        assert_eq!(said("t", "TYPE_NAME").as_deref(), Some("TIMESTAMP"));
        assert!(said("l", "TYPE_NAME").is_some() && said("l", "PRECISION").is_none());
    }

    #[test]
    fn every_type_is_listed_once_and_found_by_its_number() {
        let names: HashSet<_> = TYPES.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TYPES.len());
        assert_eq!(xdbc_types(None).unwrap().num_rows(), TYPES.len());
        assert_eq!(xdbc_types(Some(93)).unwrap().num_rows(), 2);
        assert_eq!(xdbc_types(Some(4_711)).unwrap().num_rows(), 0);
        assert_eq!(sql_type(&DataType::Utf8View).unwrap().name, "VARCHAR");
    }
}
