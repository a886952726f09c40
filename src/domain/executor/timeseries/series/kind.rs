//! The aggregates that go by code.

use arrow::datatypes::DataType;

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The rows, or those with a value.
    Count,
    /// The sum of doubles.
    Sum,
    /// The sum of whole numbers, right or an error.
    WholeSum,
    /// The mean of doubles.
    Mean,
    /// The least double.
    Least,
    /// The greatest double.
    Greatest,
    /// The least whole number.
    WholeLeast,
    /// The greatest whole number.
    WholeGreatest,
    /// The mean of doubles with weights.
    WeightedMean,
    /// The double of the row with the least time.
    First,
    /// The double of the row with the greatest time.
    Last,
}

/// Returns the kind of an aggregate by its name and the types of its arguments; none for one that is DataFusion's.
pub fn kind_of(name: &str, types: &[DataType]) -> Option<Kind> {
    use DataType::{Float64, Int64, Timestamp};
    Some(match (name, types) {
        ("count", [_]) => Kind::Count,
        ("sum", [Float64]) => Kind::Sum,
        ("sum", [Int64]) => Kind::WholeSum,
        ("avg", [Float64]) => Kind::Mean,
        ("min", [Float64]) => Kind::Least,
        ("max", [Float64]) => Kind::Greatest,
        ("min", [Int64]) => Kind::WholeLeast,
        ("max", [Int64]) => Kind::WholeGreatest,
        ("vwap", [Float64, Float64]) => Kind::WeightedMean,
        ("first", [Float64, Timestamp(..)]) => Kind::First,
        ("last", [Float64, Timestamp(..)]) => Kind::Last,
        _ => return None,
    })
}
