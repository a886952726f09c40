//! Functions, with a bound on what each may do.
//!
//! The planner finds functions in the registry, and makes some without asking it (`||`, `[…]`, EXTRACT, OVERLAY …). So
//! guarded ones take the place of DataFusion's twice: in the registry, and by a rewriting of every expression before
//! anything of it is computed. Nothing is folded through a function that is not of the linear class, or guarded.

mod bounds;
mod call_checks;
mod classes;
mod cost_guard;

pub use bounds::check_bounds;
pub use call_checks::{Rewrite, check_calls};
pub use classes::is_table_function;
pub use cost_guard::unsupported;

use crate::domain::executor::functions::classes::{Class, class_of};
use crate::domain::executor::functions::cost_guard::guarded;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// Returns those of `functions` that take the place of DataFusion's own.
pub fn replacements<'a>(functions: impl Iterator<Item = &'a Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let needs_guard = |function: &&Arc<ScalarUDF>| match class_of(function.name()) {
        Some(Class::Guarded) => true,
        // Its bounds are wrong where a time of nanoseconds cannot hold them.
        Some(Class::Linear) => function.name() == "date_part",
        Some(Class::Refused) | None => false,
    };
    functions.filter(needs_guard).map(guarded).collect()
}
