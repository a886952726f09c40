//! ClickHouse's names of Arrow's types, for tools that choose by these names what to do with a column.

use arrow::datatypes::{DataType, Field, TimeUnit};

/// Returns ClickHouse's name for the type of a column.
pub fn type_name(field: &Field) -> String {
    let name = bare_name(field.data_type());
    let composite = name.starts_with("Array(") || name.starts_with("Map(") || name.starts_with("Tuple(");
    if field.is_nullable() && !composite { format!("Nullable({name})") } else { name }
}

fn bare_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "Nothing".to_owned(),
        DataType::Boolean => "Bool".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => data_type.to_string(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => data_type.to_string(),
        DataType::Float16 | DataType::Float32 => "Float32".to_owned(),
        DataType::Float64 => "Float64".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("Decimal({precision}, {scale})"),
        DataType::Date32 | DataType::Date64 => "Date32".to_owned(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            zone.as_ref()
                .map_or_else(|| format!("DateTime64({digits})"), |zone| format!("DateTime64({digits}, '{zone}')"))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("Array({})", type_name(item))
        }
        DataType::Struct(fields) => {
            let members: Vec<_> = fields.iter().map(|field| format!("{} {}", field.name(), type_name(field))).collect();
            format!("Tuple({})", members.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("Map({}, {})", bare_name(fields[0].data_type()), type_name(&fields[1]))
            }
            _ => "String".to_owned(),
        },
        DataType::Dictionary(_, values) => format!("LowCardinality({})", bare_name(values)),
        // Strings, binary as hexadecimal digits, times of day, spans of time.
        _ => "String".to_owned(),
    }
}
