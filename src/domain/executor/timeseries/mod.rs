//! Time-series SQL: what DataFusion has no word for.
//!
//! Spellings of other systems are rewritten to standard SQL over the functions of this room before anything is planned
//! (`sql/timeseries`); what standard SQL cannot say – joins by time, gaps – are operators of their own.

mod aggregates;
mod asof;
mod asof_condition;
mod buckets;
mod civil;
mod coded_keys;
mod collected;
mod fill_functions;
mod first_buckets;
mod gaps;
mod keys;
mod latest;
mod latest_rule;
mod marker;
mod numbers;
mod operator;
mod planner;
mod relations;
mod sampling;
mod scalars;
mod series;
mod spans;
mod window_join;
mod windows;
mod with_fill;

pub use aggregates::{Calls, TimeColumns, aggregates, depends_on_arrival};
pub use fill_functions::fill_functions;
pub use first_buckets::first_buckets;
pub use gaps::FillGaps;
pub use latest_rule::LatestByHand;
pub use numbers::TimeNumbers;
pub use planner::TimeSeriesPlanner;
pub use relations::TimeRelations;
pub use scalars::scalars;
pub use series::{AggregateByCodes, WindowByCodes};
pub use windows::windows;
