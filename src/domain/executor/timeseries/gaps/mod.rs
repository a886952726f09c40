//! Filling gaps: every group gets every bucket between the bounds, whether it has rows there or not.
//!
//! A call such as `date_bin_gapfill` in GROUP BY is a bucket like another; what makes it more is a node above the aggregate, which
//! the rule (`rule`) puts there, with the bounds that it finds in the conditions below (`bounds`).

mod bounds;
mod exec;
mod node;
mod rule;

pub use exec::{GapFillExec, GapPlan};
pub use node::GapFillNode;
pub use rule::FillGaps;
