//! The health report that every protocol answers.
//!
//! One function makes it, so that a monitor reads the same fields over any protocol.

use crate::adapters::serving::options::ServerInfo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Builds the health report of a server that has been up for `uptime`.
///
/// A protocol may add fields of its own.
pub fn health_json(status: &str, info: &ServerInfo, uptime: Duration) -> Value {
    json!({
        "status": status,
        "version": info.version,
        "backend": info.backend,
        "protocols": info.protocols.iter().cloned().collect::<BTreeMap<_, _>>(),
        "uptime_s": uptime.as_secs(),
    })
}
