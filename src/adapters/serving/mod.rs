//! The common part of every protocol's server: admission, connections, options of results, cancellation, health.
//!
//! Nothing here knows a protocol.

mod admission;
mod cancellation;
mod connection_clock;
mod expiring_map;
mod health;
mod listener;
pub mod numbered_put;
mod options;
mod redaction;
mod result_options;

pub use admission::{Admission, AdmittedRequest, Counters, request_id};
pub use cancellation::{or_cancelled, until_cancelled};
pub use connection_clock::{Activity, ConnectionTimes, OpenCall};
pub use expiring_map::ExpiringMap;
pub use health::health_json;
pub use listener::{Connection, Listener};
pub use options::{BrowserPolicy, ServerInfo, ServerOptions};
pub use result_options::{HEADER_PREFIX, OPTIONS, ResultOptions, Strings};
