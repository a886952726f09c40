//! Joins by time: for each row of the left side the one of the right side that was in force then.
//!
//! The right side is put in order once, by key and time; each row of the left side is then looked up, as its batches come, and
//! leaves in the order in which it came. So the left side needs no order, and rows of equal time on the right are told apart by
//! which arrived first.

mod exec;
mod index;
mod node;
mod plan;

pub use exec::{AsOfExec, AsOfExprs};
pub use index::TimeIndex;
pub use node::{AsOfNode, JoinKey};
pub use plan::asof_join;
