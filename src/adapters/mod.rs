//! The adapters: what stands between the ports and the outside.
//!
//! Each protocol has a server, which drives the ports, and a client, which implements them across the wire; the two
//! know nothing of each other. A protocol that is left out of the build is replaced by its stub here, and only here.

pub mod gate;
pub mod ipc;
pub mod listen;
pub mod stub;

// HTTP and the command-line client, which needs HTTP, are its only users.
#[cfg(feature = "http")]
pub mod formats;

#[cfg(feature = "flight")]
pub mod flight;
#[cfg(not(feature = "flight"))]
pub use stub::stand_ins::flight;

#[cfg(feature = "http")]
pub mod http;
#[cfg(not(feature = "http"))]
pub use stub::stand_ins::http;
