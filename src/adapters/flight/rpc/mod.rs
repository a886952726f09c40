//! The RPCs of Flight, one file each.
//!
//! Each is a function over the server's state: it admits its call, asks a port, and answers. No file here imports the
//! service that dispatches to them.

pub(super) mod do_action;
pub(super) mod do_exchange;
pub(super) mod do_get;
pub(super) mod do_put;
pub(super) mod flight_info;
pub(super) mod handshake;
pub(super) mod list_flights;
pub(super) mod poll_info;
