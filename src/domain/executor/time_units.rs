//! How many nanoseconds one unit of a type of time has.

use arrow::datatypes::{DataType, TimeUnit};

/// Nanoseconds of a day.
const DAY_NS: i64 = 86_400_000_000_000;

/// Returns the nanoseconds of one unit of a TIMESTAMP or DATE; none for another type.
pub fn unit_ns(data_type: &DataType) -> Option<i64> {
    Some(match data_type {
        DataType::Date32 => DAY_NS,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        _ => return None,
    })
}
