//! DoAction: small questions to the server itself.

use crate::adapters::flight::service::Service;
use crate::adapters::flight::wire::{Command, unknown_command};
use crate::adapters::ipc::encode_description;
use crate::ports::{Access, Caller, Error, Query, Result};
use arrow_flight::{Action, ActionType};
use bytes::Bytes;

const PING: &str = "ping";
const HEALTHCHECK: &str = "healthcheck";
/// Describes a statement without running it.
pub const DESCRIBE: &str = "describe";
/// Pins the present state of all tables.
pub const SNAPSHOT: &str = "snapshot";

/// Every action and what it does.
const ACTIONS: [(&str, &str); 4] = [
    (PING, "Health check: answers pong"),
    (HEALTHCHECK, "Status, version, backend, uptime and number of tables as JSON"),
    (DESCRIBE, "Body: SQL. Kind, schema and exact rows of its result as an IPC schema message; runs nothing"),
    (SNAPSHOT, "Pins the present state of all tables and answers its id in decimal digits"),
];

/// What ListActions answers.
pub fn all() -> Vec<ActionType> {
    ACTIONS
        .iter()
        .map(|(name, description)| ActionType { r#type: (*name).to_owned(), description: (*description).to_owned() })
        .collect()
}

/// The bodies that an action answers.
pub async fn run(service: &Service, action: Action, request_id: &str) -> Result<Vec<Bytes>> {
    match action.r#type.as_str() {
        PING => Ok(vec![Bytes::from_static(b"pong")]),
        HEALTHCHECK => healthcheck(service).await.map(|text| vec![text.into()]),
        DESCRIBE => describe(service, &action.body, request_id).await.map(|body| vec![body]),
        SNAPSHOT => service.query.snapshot().await.map(|id| vec![id.0.to_string().into()]),
        unknown => {
            let known: Vec<_> = ACTIONS.iter().map(|(name, _)| *name).collect();
            let unknown: String = unknown.chars().take(40).collect();
            Err(Error::unsupported(format!("unknown action {unknown:?}; there are {}", known.join(", "))))
        }
    }
}

async fn healthcheck(service: &Service) -> Result<String> {
    let tables = service.query.tables().await?;
    let about = &service.options.about;
    Ok(serde_json::json!({
        "status": if service.gate.is_draining() { "stopping" } else { "healthy" },
        "version": about.version,
        "backend": about.backend,
        "protocols": about.protocols.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "uptime_s": service.gate.uptime().as_secs(),
        "tables": tables.len(),
    })
    .to_string())
}

async fn describe(service: &Service, body: &[u8], request_id: &str) -> Result<Bytes> {
    let query = match Command::decode(body)? {
        Command::Query(handle) => {
            let access = if handle.change { Access::Change } else { Access::Read };
            handle.into_query(access)
        }
        Command::Update(sql) => Query { sql, access: Access::Change, ..Query::default() },
        Command::Unknown(name) => return Err(unknown_command(&name)),
    };
    let caller = Caller { request_id: request_id.to_owned() };
    let described = service.query.describe(Query { caller, ..query }).await?;
    Ok(encode_description(&described))
}
