//! The clock port: what time it is, as a value that somebody gives.
//!
//! The engine asks for the wall clock's time in two places only: a row without a time gets the instant of its arrival, and a
//! commit says when it was made. Whoever tests time, or replays a history, gives another clock.

use std::fmt;

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the nanoseconds since 1970 UTC. They may jump, forwards and backwards.
    fn now_ns(&self) -> i64;
}
