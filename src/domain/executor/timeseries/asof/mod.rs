//! Joins by time: for each row of the left side the one of the right side that was in force then.
//!
//! Two sides in order of time are walked over together, once. Where one of them is not, the right side is put in order by key and
//! time, and each row of the left side is looked up there, as its batches come. Either way rows leave in the order in which the left
//! side came, and rows of equal time on the right are told apart by which arrived first.

mod exec;
mod exprs;
mod index;
mod node;
mod plan;
mod probe;
mod right;

pub use exec::{AsOf, AsOfExec};
pub use exprs::AsOfExprs;
pub use index::TimeIndex;
pub use node::{AsOfNode, JoinKey};
pub use plan::asof_join;
