//! Parameters of prepared statements, for clients that ignore the updated handle.
//!
//! Binding parameters returns a new handle that carries them. That part of Flight SQL is younger than its first
//! drivers, which go on with the old handle: for them small parameters are stored under the statement's id, in bounded
//! number and for as long as a ticket is valid.

use crate::adapters::flight::ticket::Handle;
use crate::adapters::serving::ExpiringMap;
use crate::ports::{Limits, Result};
use arrow::array::RecordBatch;

/// Most bytes of a handle whose parameters are stored.
const BYTES_MAX: usize = 64 << 10;

/// Most statements whose parameters are stored.
const STATEMENTS_MAX: usize = 1_024;

/// The parameters that were bound last, by statement.
#[derive(Debug)]
pub struct BoundParameters(ExpiringMap<RecordBatch>);

impl BoundParameters {
    /// Creates an empty store.
    pub fn new(limits: &Limits) -> Self {
        Self(ExpiringMap::new(limits.ticket_ttl(), STATEMENTS_MAX))
    }

    /// Stores the parameters of `handle`, which `encoded` are the bytes of.
    ///
    /// They are decoded from those bytes: the batch in `handle` may keep a whole received message in memory.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for bytes that are not a handle.
    pub fn store(&self, handle: &Handle, encoded: &[u8]) -> Result<()> {
        let Some(id) = handle.prepared else { return Ok(()) };
        // Removed even if the new ones are too large to store: older parameters must not be used instead of them.
        self.0.remove(id);
        if encoded.len() <= BYTES_MAX {
            Handle::decode(encoded)?.params.into_iter().for_each(|params| self.0.insert_evicting_oldest(id, params));
        }
        Ok(())
    }

    /// Adds to `handle` the parameters that were bound to its statement, unless it carries its own.
    pub fn attach(&self, handle: Handle) -> Handle {
        let stored = || self.0.with(handle.prepared?, |params| params.clone());
        Handle { params: handle.params.clone().or_else(stored), prepared: None, ..handle }
    }

    /// Removes the parameters of a statement.
    pub fn close(&self, handle: &Handle) {
        handle.prepared.into_iter().for_each(|id| self.0.remove(id));
    }

    /// Removes expired parameters again and again; never returns.
    pub async fn expire(&self) {
        self.0.expire().await;
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::state::bound_parameters::{BYTES_MAX, BoundParameters};
    use crate::adapters::flight::ticket::Handle;
    use crate::ports::Limits;
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use std::sync::Arc;

    #[test]
    fn small_parameters_are_stored_and_large_ones_are_in_their_handle_alone() {
        let bound = BoundParameters::new(&Limits::default());
        let old = Handle { prepared: Some(1), ..Handle::default() };
        let texts = |length: usize| {
            let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(length)]));
            RecordBatch::try_from_iter((0..40).map(|at| (format!("p{at}"), text.clone()))).unwrap()
        };
        let bind = |length| {
            let handle = Handle { params: Some(texts(length)), ..old.clone() };
            bound.store(&handle, &handle.encode().unwrap()).unwrap();
        };
        bind(50);
        assert_eq!(bound.attach(old.clone()).params, Some(texts(50)));
        bind(BYTES_MAX);
        assert_eq!(bound.attach(old.clone()).params, None, "older parameters are not used instead");
        bind(1);
        bound.close(&old);
        assert_eq!(bound.attach(old).params, None);
    }
}
