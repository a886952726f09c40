//! Columns in memory: a table is an immutable list of segments.
//!
//! A segment is a record batch as it arrived, with its statistics, its share of the memory account and a mask of deleted
//! rows. Whoever holds a [`Table`] holds one state of it for as long as it likes; every change makes a new list that shares
//! all segments it did not touch. Segments stay in arrival order, always.

mod allocations;
mod coded_values;
mod coercion;
mod column_facts;
mod column_names;
mod columns;
mod compaction;
mod deletion_mask;
mod exact;
mod nan;
mod number_text;
mod place;
mod reshape;
mod row_ids;
mod row_values;
mod segment;
mod slice_size;
mod stored_table;
mod symbols;
mod table;
mod table_rows;
mod views;
mod wanted_symbols;
mod writers;

pub use allocations::{Allocations, held_bytes};
pub use coercion::SchemaCoercion;
pub use columns::{Columns, LoadedColumns};
pub use compaction::{ROWS_TARGET, compact, compactable_run};
pub use deletion_mask::DeletionMask;
pub use exact::cast_exact;
pub use nan::without_signed_nans;
pub use number_text::{DecimalText, holds_f64};
pub use place::{PartInUse, Place};
pub use reshape::Reshape;
pub use row_values::RowValues;
pub use segment::{Segment, SegmentId};
pub use slice_size::{slice_bytes, text_lengths};
pub use stored_table::ALL_WRITERS;
pub use symbols::{SegmentCodes, SymbolKind, SymbolTable};
pub use table::{TIME_NAMES, Table, TableId, schema_bytes};
pub use views::without_unused_views;
pub use writers::{Numbered, WriterLimits};
