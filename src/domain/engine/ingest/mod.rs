//! Ingestion: what comes in is staged out of sight, whole streams at a time, and committed at once.

mod append;
mod backpressure;
mod staging;

pub use backpressure::Backpressure;
