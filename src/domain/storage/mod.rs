//! Columns in memory: a table is an immutable list of segments.
//!
//! A segment is a record batch as it arrived, with its statistics and its share of the memory budget. Whoever holds a
//! [`Table`] holds one state of it for as long as it likes; every change makes a new list that shares all segments it
//! did not touch. Segments stay in arrival order, always.

mod conform;
mod memory;
mod merge;
mod segment;
mod table;

pub use conform::Conform;
pub use memory::{Budget, Reservation, held_bytes};
pub use merge::{ROWS_TARGET, merge_run, mergeable_run};
pub use segment::Segment;
pub use table::Table;
