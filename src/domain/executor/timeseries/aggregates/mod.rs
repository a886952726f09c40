//! Aggregates of a series: `vwap`, `wavg`, `twap`, `first`, `last`, `arg_min`, `arg_max` and the selectors.
//!
//! NULL takes no part in any of them. Which row is the first or last is decided by a time; of equal times, by which row arrived
//! first or last.

mod arrival;
mod calls;
mod extreme;
mod one_group;
mod time_weighted;
mod weighted;

pub use arrival::{TimeColumns, depends_on_arrival, time_of_plan};
pub use calls::Calls;

use crate::domain::executor::timeseries::aggregates::extreme::extremes;
use crate::domain::executor::timeseries::aggregates::time_weighted::twap;
use crate::domain::executor::timeseries::aggregates::weighted::weighted_means;
use datafusion::logical_expr::AggregateUDF;
use std::sync::Arc;

/// Returns the functions.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    weighted_means().into_iter().chain(extremes()).chain([twap()]).collect()
}
