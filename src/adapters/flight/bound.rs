//! Parameters of prepared statements, for clients that pass over the new handle.
//!
//! Binding answers a new handle that carries the parameters, and what came later than Flight SQL's first drivers: they go on
//! with the handle that they had. For them small parameters are remembered by the statement's id, in bounded number and for
//! as long as a ticket is good.

use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::recent::Recent;
use crate::ports::Limits;
use arrow::array::RecordBatch;

/// Bytes of parameters that are remembered for one statement.
const BYTES_MAX: usize = 64 << 10;

/// Statements whose parameters are remembered.
const STATEMENTS_MAX: usize = 1_024;

/// The parameters that were bound last, by statement.
#[derive(Debug)]
pub struct Bound(Recent<RecordBatch>);

impl Bound {
    /// Nothing is bound yet.
    pub fn new(limits: &Limits) -> Self {
        Self(Recent::new(limits.ticket_ttl_ms, STATEMENTS_MAX))
    }

    /// Remembers the parameters that `handle` carries now.
    pub fn remember(&self, handle: &Handle) {
        let Some(id) = handle.prepared else { return };
        match &handle.params {
            Some(params) if params.get_array_memory_size() <= BYTES_MAX => {
                self.0.keep_over_oldest(id, params.clone());
            }
            // Others than were bound last must not be taken for them.
            _ => self.0.forget(id),
        }
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
