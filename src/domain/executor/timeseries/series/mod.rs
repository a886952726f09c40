//! Aggregates by symbol and bucket over tables whose symbols have codes.
//!
//! DataFusion hashes the text of a symbol for every row. Where a column has codes, and the buckets of time are few, the state of a
//! group is found by its number instead (`groups`), and an aggregate goes over a batch in one loop (`states`). What the rule
//! (`rule`) cannot prove it leaves to DataFusion.

mod exec;
mod groups;
mod rule;
mod states;

pub use rule::AggregateByCodes;
