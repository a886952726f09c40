//! The domain: tables in memory, and SQL over them.
//!
//! [`Engine`] implements both ports in this process. It orchestrates: the catalogue says which tables there are, the
//! storage keeps their columns, `sql` reads statements, the executor plans and runs them over a snapshot. Each room uses
//! only those before it: storage, catalog, sql, executor, engine. The domain opens no file and no socket, and knows no
//! protocol.

mod catalog;
mod decorators;
mod engine;
mod executor;
mod sql;
mod storage;

pub use decorators::{Limited, ReadOnly};
pub use engine::{Engine, EngineOptions, Foundation, Lanes, Parallelism, PlanCounts, STACK_BYTES};
