//! Aggregates by symbol and bucket, and windows by symbol, over tables whose symbols have codes.
//!
//! DataFusion hashes the text of a symbol for every row. Where a column has codes, and the buckets of time are few, the state of a
//! group is found by its number instead (`groups`, `partial`), and an aggregate goes over a batch in one loop (`states`). What the rule
//! (`rule`) cannot prove it leaves to DataFusion.

mod exec;
mod groups;
mod kind;
mod late_rows;
mod partial;
mod rolling;
mod rule;
mod states;
mod window_exec;
mod window_rule;
mod window_states;

pub use rule::{AggregateByCodes, first_half};
pub use window_rule::WindowByCodes;
