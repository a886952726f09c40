//! Spellings of time-series SQL, rewritten to what the parser and the planner know.
//!
//! Tokens that do not parse are rewritten before the parser sees them (`joins`), the rest on the parsed form (`expressions`). What
//! stands for a rewritten clause begins with `__zepto`, which no statement may name, so nobody can write it by hand.

mod aj;
mod cursor;
mod expressions;
mod joins;
mod relations;
mod sample_by;
mod time_clause;
mod window_join;
mod with_fill;

pub use aj::rewrite_aj;
pub use expressions::rewrite_expressions;
pub use joins::rewrite_joins;
pub use relations::nest_joins;
pub use sample_by::{group_by_sample, has_sample_by};
pub use time_clause::rewrite_time_clause;
pub use window_join::{has_window_join, lift_window_aggregates};
pub use with_fill::rewrite_fills;
