//! Bounds the cost of SQL functions.
//!
//! The planner finds functions in the registry, and makes some without it (`||`, `[…]`, EXTRACT, OVERLAY …). So guarded
//! functions replace DataFusion's twice: in the registry, and by rewriting every expression before anything of it is
//! computed. Constants are folded only through functions that are of the linear class, or guarded.

mod bounds;
mod call_checks;
mod classes;
mod cost_guard;
mod help;
mod planning_constants;
mod spatial;

pub use bounds::check_bounds;
pub use call_checks::check_calls;
pub use classes::is_table_function;
pub use cost_guard::GuardFunctions;
pub use help::{FunctionHelp, functions};
pub use planning_constants::PlanningConstants;
pub use spatial::spatial;

use crate::domain::executor::functions::classes::{Class, class_of};
use crate::domain::executor::functions::cost_guard::guarded;
use crate::domain::executor::memory::QueryMemory;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// Returns guarded versions of those `functions` that need a guard.
pub fn replacements<'a>(
    functions: impl Iterator<Item = &'a Arc<ScalarUDF>>,
    memory: &QueryMemory,
) -> Vec<Arc<ScalarUDF>> {
    let needs_guard = |function: &&Arc<ScalarUDF>| match class_of(function.name()) {
        Some(Class::Guarded) => true,
        // Guarded for its preimage, which is wrong where a time of nanoseconds cannot hold a bound.
        Some(Class::Linear) => function.name() == "date_part",
        Some(Class::Refused) | None => false,
    };
    functions.filter(needs_guard).map(|function| guarded(function, memory)).collect()
}
