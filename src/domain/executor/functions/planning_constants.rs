//! What the constants of one statement come to while it is planned.
//!
//! The optimiser computes calls of constants, one by one, and keeps the results in the plan. A statement is planned on one
//! thread from beginning to end, so the thread adds them up.

use crate::domain::executor::error::refused;
use datafusion::common::Result;
use std::cell::Cell;

/// Largest result of all calls of constants in one statement, in bytes: they stand in the plan, and passes of the optimiser
/// copy them.
const CONSTANT_BYTES_MAX: u128 = 16 << 20;

thread_local! {
    /// Bytes of the constants that were computed for the statement that this thread plans; none while it plans none.
    static PLANNED: Cell<Option<u128>> = const { Cell::new(None) };
}

/// Adds up the constants of one statement while it is planned, which happens on one thread. All of them stand in the plan.
#[derive(Debug)]
pub struct PlanningConstants(());

impl PlanningConstants {
    /// Begins a statement; it ends when this is dropped.
    pub fn begin() -> Self {
        PLANNED.set(Some(0));
        Self(())
    }

    /// Returns the bytes that constants may still take.
    pub fn left() -> u128 {
        CONSTANT_BYTES_MAX.saturating_sub(PLANNED.get().unwrap_or(0))
    }

    /// Checks what the constants of the statement came to. The optimiser leaves a call in the plan that it may not compute, and
    /// it would be computed later.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where they take too much together.
    pub fn check(&self) -> Result<()> {
        match PLANNED.get() {
            Some(planned) if planned > CONSTANT_BYTES_MAX => Err(refused(format!(
                "the constants of the statement take more than {CONSTANT_BYTES_MAX} bytes together"
            ))),
            _ => Ok(()),
        }
    }

    /// Adds a constant, whether it may be computed or not.
    pub fn add(bytes: u128) {
        if let Some(planned) = PLANNED.get() {
            PLANNED.set(Some(planned.saturating_add(bytes)));
        }
    }
}

impl Drop for PlanningConstants {
    fn drop(&mut self) {
        PLANNED.set(None);
    }
}
