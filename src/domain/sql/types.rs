//! Maps SQL type names to Arrow types and back.
//!
//! A type is looked up by the name the parser prints for it, so ZeptoDB's names, the SQL standard's and a few of
//! other databases stand side by side. Each Arrow type that has a name has exactly one canonical name, which `DESCRIBE`
//! shows and which `CREATE TABLE` reads back as the same type; a type without one is shown in Arrow's own notation.

use crate::ports::{Error, Result};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, IntervalUnit, TimeUnit};
use sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType};
use std::sync::Arc;

/// Returns all names with their types. The first name of a type is its canonical one.
#[expect(clippy::too_many_lines, reason = "a table of names")]
fn names() -> Vec<(&'static str, DataType)> {
    use DataType::*;
    let utc = || Some("UTC".into());
    vec![
        ("INT64", Int64),
        ("INT32", Int32),
        ("INT16", Int16),
        ("INT8", Int8),
        ("UINT64", UInt64),
        ("UINT32", UInt32),
        ("UINT16", UInt16),
        ("UINT8", UInt8),
        ("FLOAT64", Float64),
        ("FLOAT32", Float32),
        ("FLOAT16", Float16),
        ("BOOL", Boolean),
        ("STRING", Utf8),
        ("LARGE_STRING", LargeUtf8),
        ("STRING_VIEW", Utf8View),
        ("SYMBOL", Dictionary(Box::new(Int32), Box::new(Utf8))),
        ("BINARY", Binary),
        ("LARGE_BINARY", LargeBinary),
        ("BINARY_VIEW", BinaryView),
        ("TIMESTAMP_NS", Timestamp(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP_US", Timestamp(TimeUnit::Microsecond, None)),
        ("TIMESTAMP_MS", Timestamp(TimeUnit::Millisecond, None)),
        ("TIMESTAMP_S", Timestamp(TimeUnit::Second, None)),
        ("TIMESTAMPTZ", Timestamp(TimeUnit::Nanosecond, utc())),
        ("DATE", Date32),
        ("DATE64", Date64),
        ("TIME", Time64(TimeUnit::Nanosecond)),
        ("TIME_US", Time64(TimeUnit::Microsecond)),
        ("TIME_MS", Time32(TimeUnit::Millisecond)),
        ("TIME_S", Time32(TimeUnit::Second)),
        ("DURATION_NS", Duration(TimeUnit::Nanosecond)),
        ("DURATION_US", Duration(TimeUnit::Microsecond)),
        ("DURATION_MS", Duration(TimeUnit::Millisecond)),
        ("DURATION_S", Duration(TimeUnit::Second)),
        ("INTERVAL", Interval(IntervalUnit::MonthDayNano)),
        // Other names of the same types.
        ("BIGINT", Int64),
        ("INT", Int32),
        ("INTEGER", Int32),
        ("INT4", Int32),
        ("SMALLINT", Int16),
        ("INT2", Int16),
        ("TINYINT", Int8),
        ("BIGINT UNSIGNED", UInt64),
        ("INT UNSIGNED", UInt32),
        ("INTEGER UNSIGNED", UInt32),
        ("SMALLINT UNSIGNED", UInt16),
        ("TINYINT UNSIGNED", UInt8),
        ("UBIGINT", UInt64),
        ("USMALLINT", UInt16),
        ("UTINYINT", UInt8),
        ("DOUBLE", Float64),
        ("DOUBLE PRECISION", Float64),
        ("FLOAT8", Float64),
        ("FLOAT", Float32),
        ("FLOAT4", Float32),
        ("REAL", Float32),
        ("BOOLEAN", Boolean),
        ("VARCHAR", Utf8),
        ("TEXT", Utf8),
        ("CHAR", Utf8),
        ("CHARACTER", Utf8),
        ("CHARACTER VARYING", Utf8),
        ("CHAR VARYING", Utf8),
        ("NVARCHAR", Utf8),
        ("BYTEA", Binary),
        ("BLOB", Binary),
        ("BYTES", Binary),
        ("VARBINARY", Binary),
        ("TIMESTAMP", Timestamp(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP WITHOUT TIME ZONE", Timestamp(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP_NTZ", Timestamp(TimeUnit::Nanosecond, None)),
        ("DATETIME", Timestamp(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP WITH TIME ZONE", Timestamp(TimeUnit::Nanosecond, utc())),
        ("DATE32", Date32),
        ("TIME WITHOUT TIME ZONE", Time64(TimeUnit::Nanosecond)),
        ("TIME_NS", Time64(TimeUnit::Nanosecond)),
    ]
}

/// Returns the Arrow type of a SQL type, or none where the name is not one of ours.
///
/// # Errors
///
/// `InvalidQuery` for a known name with impossible arguments, such as `DECIMAL(99)`.
pub fn arrow_type(sql: &SqlType) -> Result<Option<DataType>> {
    if let SqlType::Array(
        ArrayElemTypeDef::AngleBracket(item)
        | ArrayElemTypeDef::SquareBracket(item, None)
        | ArrayElemTypeDef::Parenthesis(item),
    ) = sql
    {
        let item = arrow_type(item)?;
        return Ok(item.map(|item| DataType::List(Arc::new(Field::new_list_field(item, true)))));
    }
    let text = sql.to_string().to_ascii_uppercase();
    let (name, arguments) = split_arguments(&text);
    if matches!(name.as_str(), "DECIMAL" | "NUMERIC" | "DEC") {
        return decimal(&arguments).map(Some);
    }
    if let (Some(unit), [digits]) = (timestamp_base(&name), arguments.as_slice()) {
        return Ok(Some(DataType::Timestamp(time_unit(digits, &text)?, unit)));
    }
    let sized = matches!(
        name.as_str(),
        "VARCHAR" | "CHAR" | "CHARACTER" | "CHARACTER VARYING" | "CHAR VARYING" | "NVARCHAR" | "VARBINARY"
    );
    if !arguments.is_empty() && !sized {
        return Ok(None);
    }
    // Built anew for each type: a statement names few types.
    Ok(names().into_iter().find(|(known, _)| *known == name).map(|(_, data_type)| data_type))
}

/// Returns the Arrow type of a SQL type that must have one.
///
/// # Errors
///
/// `InvalidQuery` naming the type.
pub fn column_type(sql: &SqlType) -> Result<DataType> {
    arrow_type(sql)?.ok_or_else(|| Error::invalid(format!("unknown type {sql}")))
}

/// Returns the name that `DESCRIBE` shows for a type.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::Decimal256(precision, scale) if *precision > DECIMAL128_MAX_PRECISION => {
            format!("DECIMAL({precision},{scale})")
        }
        DataType::List(field) if *field.as_ref() == Field::new_list_field(field.data_type().clone(), true) => {
            format!("{}[]", sql_name(field.data_type()))
        }
        other => names()
            .into_iter()
            .find(|(_, known)| known == other)
            .map_or_else(|| other.to_string(), |(name, _)| name.to_owned()),
    }
}

/// Splits `NAME(1, 2) TAIL` into `NAME TAIL` and `[1, 2]`.
fn split_arguments(text: &str) -> (String, Vec<String>) {
    let (Some(open), Some(close)) = (text.find('('), text.rfind(')')) else {
        return (text.to_owned(), Vec::new());
    };
    let name = format!("{}{}", text[..open].trim_end(), &text[close + 1..]);
    let arguments = text[open + 1..close].split(',').map(|part| part.trim().to_owned()).collect();
    (name, arguments)
}

/// Returns the zone of a timestamp type that takes a precision.
fn timestamp_base(name: &str) -> Option<Option<Arc<str>>> {
    match name {
        "TIMESTAMP" | "DATETIME" | "TIMESTAMP WITHOUT TIME ZONE" | "TIMESTAMP_NTZ" => Some(None),
        "TIMESTAMP WITH TIME ZONE" | "TIMESTAMPTZ" => Some(Some("UTC".into())),
        _ => None,
    }
}

fn time_unit(digits: &str, text: &str) -> Result<TimeUnit> {
    match digits {
        "0" => Ok(TimeUnit::Second),
        "3" => Ok(TimeUnit::Millisecond),
        "6" => Ok(TimeUnit::Microsecond),
        "9" => Ok(TimeUnit::Nanosecond),
        _ => Err(Error::invalid(format!("{text}: a timestamp has 0, 3, 6 or 9 digits"))),
    }
}

fn decimal(arguments: &[String]) -> Result<DataType> {
    let wrong = || Error::invalid(format!("DECIMAL({}) is not a type", arguments.join(",")));
    let number = |at: usize, default: i16| match arguments.get(at) {
        Some(text) => text.parse::<i16>().map_err(|_| wrong()),
        None => Ok(default),
    };
    // Precision 38 and scale 10 are DataFusion's own for a bare DECIMAL, scale 0 the standard's for DECIMAL(p).
    let precision = number(0, 38)?;
    let scale = number(1, if arguments.is_empty() { 10 } else { 0 })?;
    let fits = (1..=i16::from(DECIMAL256_MAX_PRECISION)).contains(&precision) && (0..=precision).contains(&scale);
    if !fits || arguments.len() > 2 {
        return Err(wrong());
    }
    let precision = u8::try_from(precision).map_err(|_| wrong())?;
    let scale = i8::try_from(scale).map_err(|_| wrong())?;
    Ok(if precision <= DECIMAL128_MAX_PRECISION {
        DataType::Decimal128(precision, scale)
    } else {
        DataType::Decimal256(precision, scale)
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::sql::types::{arrow_type, column_type, names, sql_name};
    use arrow::datatypes::{DataType, TimeUnit};
    use sqlparser::ast::DataType as SqlType;
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    fn parse(name: &str) -> SqlType {
        let mut parser = Parser::new(&GenericDialect {}).try_with_sql(name).unwrap();
        parser.parse_data_type().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[test]
    fn every_name_means_its_type_in_either_case() {
        for (name, data_type) in names() {
            assert_eq!(arrow_type(&parse(name)).unwrap().as_ref(), Some(&data_type), "{name}");
            let lower = name.to_lowercase();
            assert_eq!(arrow_type(&parse(&lower)).unwrap().as_ref(), Some(&data_type), "{lower}");
        }
    }

    #[test]
    fn every_canonical_name_reads_back_as_the_same_type() {
        let mut types: Vec<_> = names().into_iter().map(|(_, data_type)| data_type).collect();
        types.extend((1..=76).flat_map(|precision: u8| {
            [0, precision / 2, precision].map(|scale| {
                let scale = i8::try_from(scale).unwrap();
                if precision <= 38 {
                    DataType::Decimal128(precision, scale)
                } else {
                    DataType::Decimal256(precision, scale)
                }
            })
        }));
        types.push(column_type(&parse("FLOAT64[]")).unwrap());
        for data_type in types {
            let name = sql_name(&data_type);
            assert_eq!(column_type(&parse(&name)).unwrap(), data_type, "{name}");
        }
    }

    #[test]
    fn arguments_are_read_and_nonsense_is_refused() {
        let milli = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(column_type(&parse("TIMESTAMP(3)")).unwrap(), milli);
        assert_eq!(column_type(&parse("VARCHAR(20)")).unwrap(), DataType::Utf8);
        assert_eq!(column_type(&parse("DECIMAL")).unwrap(), DataType::Decimal128(38, 10));
        assert_eq!(column_type(&parse("NUMERIC(7)")).unwrap(), DataType::Decimal128(7, 0));
        for wrong in ["DECIMAL(99)", "DECIMAL(5,9)", "TIMESTAMP(4)", "GEOGRAPHY", "SYMBOL(3)"] {
            assert!(column_type(&parse(wrong)).is_err(), "{wrong}");
        }
    }
}
