//! Corrects DataFusion 55.2 where its answers differ from the SQL that was written.
//!
//! Each correction is a rule that DataFusion itself applies while it plans, so nothing is forked: operators that check
//! for overflow, sums that do not wrap, time spans that compare by their length, limits that stay in their place, filters
//! that guard what follows them, and refusals of what cannot be corrected. docs/design.md lists them with the issues that they answer.

mod exact_sum;
mod extremes;
mod floored;
mod guarded_filter;
mod moving_windows;
mod operators;
mod rules;
mod sealed_limit;
mod spans;
mod sums;
mod times;

pub use exact_sum::exact_sum;
pub use extremes::extremes;
pub use guarded_filter::GuardFilters;
pub use moving_windows::moving;
pub use rules::ExactOperators;
pub use sealed_limit::{BEFORE as SEAL_BEFORE, SealLimits};
pub use spans::CompareSpans;
pub use sums::WideSums;
pub use times::CompareTimes;
