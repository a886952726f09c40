//! Arrow Flight: the server that drives the ports, the client that implements them, and the bytes between.

mod actions;
mod client;
mod get;
mod grpc;
mod held;
mod put;
mod server;
mod service;
mod threads;
mod wire;

/// Whether this is the real thing, or its stand-in.
pub const BUILT: bool = true;

pub use client::Client;
pub use server::Server;
pub use wire::{Command, Handle, error_from_status, put_target, status_from_error};
