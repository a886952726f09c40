//! zepto-flight keeps live time-series tables in memory as Arrow columns and serves them to any Arrow client.
//!
//! Three layers, whose arrows point down only. [`ports`] is the service contract: [`ports::QueryPort`],
//! [`ports::IngestPort`] and the values in their signatures. [`domain`] implements them in this process. [`adapters`]
//! are the protocols: each has a server that drives the ports and a client that implements them across the wire.
//! [`app`] puts them together as [`config`] says.
//!
//! ```
//! use zepto_flight::app;
//! use zepto_flight::ports::Query;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let backend = app::in_memory()?;
//! backend.query.query(Query::change("CREATE TABLE quotes AS SELECT 1 AS symbol, 101.5 AS price")).await?;
//! let reply = backend.query.query(Query::read("SELECT price FROM quotes WHERE symbol = 1")).await?;
//! let batches = reply.batches.collect().await?;
//! assert_eq!(batches[0].num_rows(), 1);
//! # Ok::<_, zepto_flight::ports::Error>(())
//! # }).unwrap();
//! ```

pub mod adapters;
pub mod app;
pub mod config;
pub mod domain;
pub mod ports;
