//! Arrow Flight: the server that drives the ports, the client that implements them, and the bytes between.
//!
//! `server` accepts connections, `service` dispatches calls, `rpc` answers them. `state` is all that the server
//! remembers, `sql` is Flight SQL, `grpc` the framing of calls that carry batches. Imports go one way: server, service,
//! rpc, call, state.

mod call;
mod call_stream;
mod client;
mod command;
mod connection_threads;
mod grpc;
mod reply_stream;
mod rpc;
mod server;
mod service;
mod session;
mod sql;
mod state;
mod ticket;
mod wire;

/// Whether the protocol is in the build.
pub const BUILT: bool = true;

pub use client::Client;
pub use command::{Command, put_target};
pub use server::Server;
pub use ticket::Handle;
pub use wire::{error_from_status, status_from_error};
