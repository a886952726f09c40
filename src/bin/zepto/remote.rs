//! The server, over either protocol.

use std::sync::Arc;
use zepto_flight::adapters::{flight, http};
use zepto_flight::ports::{Error, IngestPort, Limits, Query, QueryPort, Reply, Result};

/// A connection to a server.
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
    /// Creates a connection to the server at `url`. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a URL with another scheme.
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
            _ => Err(Error::invalid(format!("invalid server {url:?}; expected grpc://HOST:PORT or http://HOST:PORT"))),
        }
    }

    /// Runs a statement, which may change data.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn run(&self, sql: &str) -> Result<Reply> {
        self.query.query(Query::change(sql)).await
    }

    /// Returns the server's health as JSON.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the server cannot be reached.
    pub async fn health(&self) -> Result<String> {
        match &self.health {
            Health::Flight(client) => client.health().await,
            Health::Http(client) => client.health().await,
        }
    }
}
