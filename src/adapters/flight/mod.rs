//! Arrow Flight: the server that drives the ports, the client that implements them, and the bytes between.

mod actions;
mod bound;
mod client;
mod columns;
mod command;
mod get;
mod grpc;
mod handle;
mod handshake;
mod held;
mod incoming;
mod info;
mod metadata;
mod polled;
mod put;
mod recent;
mod running;
mod server;
mod service;
mod session;
mod sql_info;
mod threads;
mod wire;

/// Whether this is the real thing, or its stand-in.
pub const BUILT: bool = true;

pub use client::Client;
pub use command::{Command, put_target};
pub use handle::Handle;
pub use server::Server;
pub use wire::{error_from_status, status_from_error};
