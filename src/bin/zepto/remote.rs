//! The server at the other end, whichever protocol it is reached by.

use std::sync::Arc;
use zepto_flight::adapters::{flight, http};
use zepto_flight::ports::{Error, IngestPort, Limits, Query, QueryPort, Reply, Result};

/// A server.
pub struct Remote {
    /// Its query port.
    pub query: Arc<dyn QueryPort>,
    /// Its ingest port.
    pub ingest: Arc<dyn IngestPort>,
    health: Health,
}

enum Health {
    Flight(Arc<flight::Client>),
    Http(Arc<http::Client>),
}

impl Remote {
    /// The server at `url`. It is connected to when it is first asked.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a URL that is none of ours.
    pub fn new(url: &str) -> Result<Self> {
        let limits = Limits::default();
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("grpc") => {
                let client = Arc::new(flight::Client::new(url, &limits)?);
                Ok(Self { query: client.clone(), ingest: client.clone(), health: Health::Flight(client) })
            }
            Some("http") => {
                let client = Arc::new(http::Client::new(url, &limits)?);
                Ok(Self { query: client.clone(), ingest: client.clone(), health: Health::Http(client) })
            }
            _ => Err(Error::invalid(format!("{url:?} is no server: there are grpc://HOST:PORT and http://HOST:PORT"))),
        }
    }

    /// Starts a statement, whatever it does.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn run(&self, sql: &str) -> Result<Reply> {
        self.query.query(Query::change(sql)).await
    }

    /// What the server says of its health, as JSON.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it is not there.
    pub async fn health(&self) -> Result<String> {
        match &self.health {
            Health::Flight(client) => client.health().await,
            Health::Http(client) => client.health().await,
        }
    }
}
