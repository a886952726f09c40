//! Columns in memory: a table is an immutable list of segments.
//!
//! A segment is a record batch as it arrived, with its statistics and its share of the memory budget. Whoever holds a
//! [`Table`] holds one state of it for as long as it likes; every change makes a new list that shares all segments it
//! did not touch. Segments stay in arrival order, always.

mod column_names;
mod conform;
mod exact;
mod memory;
mod merge;
mod number_text;
mod segment;
mod slice_size;
mod table;

pub use conform::Conform;
pub use exact::cast_exact;
pub use memory::{Budget, Reservation, held_bytes};
pub use merge::{ROWS_TARGET, merge_run, mergeable_run};
pub use number_text::{DecimalText, holds_f64};
pub use segment::Segment;
pub use slice_size::{slice_bytes, text_lengths};
pub use table::Table;
