//! The domain: tables in memory, and SQL over them.
//!
//! [`Engine`] implements both ports in this process. It orchestrates: the catalogue says which tables there are, the
//! storage keeps their columns, the executor plans and runs SQL over a snapshot of both. The domain opens no file and
//! no socket, and knows no protocol.

mod catalog;
mod engine;
mod executor;
mod storage;
mod types;

pub use engine::{Engine, EngineOptions, Lanes, PlanCounts, STACK_BYTES};
