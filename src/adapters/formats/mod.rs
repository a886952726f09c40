//! Text and file formats: bodies to batches, and results to bytes.
//!
//! Shared by the HTTP server and the command-line client, so it knows no request and no socket: readers take a stream of
//! chunks or a whole body, writers give bytes back.

pub mod format;
pub mod read;
pub mod write;

pub use format::Format;
