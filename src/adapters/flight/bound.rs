//! Parameters of prepared statements, for clients that pass over the new handle.
//!
//! Binding answers a new handle that carries the parameters. That answer is younger than Flight SQL's first drivers, which go
//! on with the handle that they had: for them small parameters are remembered by the statement's id, in bounded number and
//! for as long as a ticket is good.

use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::recent::Recent;
use crate::ports::{Limits, Result};
use arrow::array::RecordBatch;

/// Bytes of a handle whose parameters are remembered.
const BYTES_MAX: usize = 64 << 10;

/// Statements whose parameters are remembered.
const STATEMENTS_MAX: usize = 1_024;

/// The parameters that were bound last, by statement.
#[derive(Debug)]
pub struct Bound(Recent<RecordBatch>);

impl Bound {
    /// Nothing is bound yet.
    pub fn new(limits: &Limits) -> Self {
        Self(Recent::new(limits.ticket_ttl(), STATEMENTS_MAX))
    }

    /// Remembers the parameters of a handle, of which these are the bytes. They are taken from those: as they came they may
    /// hold on to more.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for bytes that are no handle.
    pub fn remember(&self, handle: &Handle, encoded: &[u8]) -> Result<()> {
        let Some(id) = handle.prepared else { return Ok(()) };
        // Others than were bound last must not be taken for them.
        self.0.forget(id);
        if encoded.len() <= BYTES_MAX {
            Handle::decode(encoded)?.params.into_iter().for_each(|params| self.0.keep_over_oldest(id, params));
        }
        Ok(())
    }

    /// `handle` with the parameters that were bound to its statement, unless it carries its own.
    pub fn recall(&self, handle: Handle) -> Handle {
        let recalled = || self.0.with(handle.prepared?, |params| params.clone());
        Handle { params: handle.params.clone().or_else(recalled), prepared: None, ..handle }
    }

    /// Forgets a statement.
    pub fn close(&self, handle: &Handle) {
        handle.prepared.into_iter().for_each(|id| self.0.forget(id));
    }

    /// Forgets what was not used in time, for ever.
    pub async fn expire(&self) {
        self.0.expire().await;
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::bound::{BYTES_MAX, Bound};
    use crate::adapters::flight::handle::Handle;
    use crate::ports::Limits;
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use std::sync::Arc;

    #[test]
    fn small_parameters_are_recalled_and_large_ones_are_in_their_handle_alone() {
        let bound = Bound::new(&Limits::default());
        let old = Handle { prepared: Some(1), ..Handle::default() };
        let texts = |length: usize| {
            let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(length)]));
            RecordBatch::try_from_iter((0..40).map(|at| (format!("p{at}"), text.clone()))).unwrap()
        };
        let bind = |length| {
            let handle = Handle { params: Some(texts(length)), ..old.clone() };
            bound.remember(&handle, &handle.encode().unwrap()).unwrap();
        };
        bind(50);
        assert_eq!(bound.recall(old.clone()).params, Some(texts(50)));
        bind(BYTES_MAX);
        assert_eq!(bound.recall(old.clone()).params, None, "those that were bound before are not these");
        bind(1);
        bound.close(&old);
        assert_eq!(bound.recall(old).params, None);
    }
}
