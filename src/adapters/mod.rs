//! The adapters between the ports and the outside.
//!
//! Each protocol has a server, which drives the ports, and a client, which implements them across the wire; the two
//! know nothing of each other. A protocol that is left out of the build is replaced by its stub in this file,
//! and nowhere else.

pub mod clock;
pub mod disk;
pub mod ipc;
pub mod memory;
pub mod serving;
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
