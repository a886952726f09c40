//! HTTP: the server that drives the ports, the client that implements them, and the bytes between.

mod client;
mod decode;
mod format;
mod guard;
mod handlers;
mod incoming;
mod ingest;
mod openapi;
mod params;
mod render;
mod routes;
mod server;
mod wire;

/// Whether this is the real thing, or its stand-in.
pub const BUILT: bool = true;

pub use client::Client;
pub use format::Format;
pub use render::{NanStyle, Style, Writer};
pub use server::Server;
