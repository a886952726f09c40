//! Everything that a Flight server remembers between two calls.
//!
//! Clients go away without notice, so every part is bounded in number and expires. No RPC's code is imported here: RPCs
//! are functions over [`State`].

pub(super) mod bound_parameters;
pub(super) mod cancellation;
pub(super) mod polls;
pub(super) mod result_store;

use crate::adapters::flight::state::bound_parameters::BoundParameters;
use crate::adapters::flight::state::cancellation::CancellationRegistry;
use crate::adapters::flight::state::polls::PollRegistry;
use crate::adapters::flight::state::result_store::ResultStore;
use crate::adapters::serving::{Admission, ServerOptions};
use crate::ports::{IngestPort, QueryPort};
use prost_types::Timestamp;
use std::sync::Arc;
use std::time::SystemTime;

/// The ports, the options and the memory of a Flight server.
#[derive(Debug)]
pub struct State {
    /// Answers queries.
    pub query: Arc<dyn QueryPort>,
    /// Takes ingested streams.
    pub ingest: Arc<dyn IngestPort>,
    /// Admits requests.
    pub admission: Admission,
    /// How the server is to behave.
    pub options: ServerOptions,
    /// Results that wait for their tickets.
    pub results: ResultStore,
    /// Queries that can be cancelled.
    pub cancellations: Arc<CancellationRegistry>,
    /// Queries that PollFlightInfo started.
    pub polls: PollRegistry,
    /// Parameters of prepared statements.
    pub bound_parameters: BoundParameters,
}

impl State {
    /// Creates the state of a server over the given ports.
    pub fn new(query: Arc<dyn QueryPort>, ingest: Arc<dyn IngestPort>, options: ServerOptions) -> Arc<Self> {
        let limits = &options.limits;
        let results = ResultStore::new(&options);
        let cancellations = CancellationRegistry::new(limits);
        let polls = PollRegistry::new(limits);
        let bound_parameters = BoundParameters::new(limits);
        let admission = Admission::new(options.log_sql);
        Arc::new(Self { query, ingest, admission, options, results, cancellations, polls, bound_parameters })
    }

    /// Returns the time at which a ticket that is made now and never used expires; none if it does not.
    #[expect(clippy::disallowed_methods, reason = "clients compare this instant with their own clock")]
    pub fn ticket_expiry(&self) -> Option<Timestamp> {
        SystemTime::now().checked_add(self.options.limits.ticket_ttl()).map(Timestamp::from)
    }

    /// Removes expired entries again and again; never returns.
    pub async fn expire(&self) {
        tokio::join!(self.results.expire(), self.polls.expire(), self.bound_parameters.expire());
    }
}
