//! How a server is to behave, and what it tells of itself.
//!
//! The composition root fills these in; every protocol gets the same.

use crate::ports::{Limits, MemoryAccount};

/// A server's description of itself.
#[derive(Debug, Clone, Default)]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// Name of the backend, so that a stub can't pass for the real thing.
    pub backend: String,
    /// Every protocol with its address, or a note that it is a stub.
    pub protocols: Vec<(String, String)>,
}

/// Names and web pages that may reach an HTTP server, beside addresses, `localhost` and its own pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrowserPolicy {
    /// Host names that mean this server, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins of other pages that may send requests, such as `https://desk.example`.
    pub allowed_origins: Vec<String>,
}

/// Options of a server.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Its limits.
    pub limits: Limits,
    /// Which browsers may reach it.
    pub browsers: BrowserPolicy,
    /// Its description of itself.
    pub info: ServerInfo,
    /// Whether the log shows statements and what is wrong with them word for word.
    pub log_sql: bool,
    /// What it keeps in memory for clients is counted here.
    pub memory: MemoryAccount,
}
