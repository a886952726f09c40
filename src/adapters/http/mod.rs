//! HTTP: the server that drives the ports, the client that implements them, and the bytes between.

mod client;
mod compression;
mod error;
mod guard;
mod handlers;
mod insert_body;
mod insert_columns;
mod negotiation;
mod openapi;
mod query_params;
mod request;
mod response;
mod routes;
mod server;
mod wire;

/// Whether this is the real protocol, or its stub.
pub const BUILT: bool = true;

pub use client::Client;
pub use server::Server;
