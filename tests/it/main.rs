//! The integration tests, in one binary: linking the engine and two protocol stacks is what costs.
//!
//! `contract` runs the same cases over every path that a query can take; the rest looks at one thing each.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

mod answers;
mod architecture;
mod bodies;
mod contract;
mod durability;
mod end_to_end;
mod faults;
mod flight_sql;
mod flight_wire;
mod fuzz;
mod harness;
mod hostile;
mod http_wire;
mod limits;
mod mocks;
mod model;
mod silence;
mod sql;
mod timeseries;
mod torture;
