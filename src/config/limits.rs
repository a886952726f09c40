//! The flags of the limits: one for each field of [`Limits`], with its default.

use crate::ports::Limits;
use clap::Args;

macro_rules! limit_settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $env:literal,)+) => {
        /// A flag for each field of [`Limits`].
        #[derive(Debug, Clone, Args)]
        #[command(next_help_heading = "Limits")]
        pub struct LimitSettings {
            $($(#[doc = $doc])+ #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.$name, env = $env)] pub $name: u64,)+
        }

        impl From<&LimitSettings> for Limits {
            fn from(settings: &LimitSettings) -> Self {
                Self { $($name: settings.$name,)+ }
            }
        }
    };
}

limit_settings! {
    /// Bytes of tables, ingestion, decoding, snapshots and stored results together [default: 60 % of the machine's memory]
    memory_bytes_max: "ZEPTO_MEMORY_BYTES_MAX",
    /// Bytes that running queries hold to sort, join and group [default: 20 % of the machine's memory]
    query_memory_bytes_max: "ZEPTO_QUERY_MEMORY_BYTES_MAX",
    /// Queries running at the same time
    query_concurrency_max: "ZEPTO_QUERY_CONCURRENCY_MAX",
    /// Milliseconds that one query may compute; 0: no limit
    query_timeout_ms: "ZEPTO_QUERY_TIMEOUT_MS",
    /// Milliseconds that a query waits for a client that does not read; 0: no limit
    stall_timeout_ms: "ZEPTO_STALL_TIMEOUT_MS",
    /// Bytes of one statement
    sql_bytes_max: "ZEPTO_SQL_BYTES_MAX",
    /// Operators and set operations in one statement
    sql_operators_max: "ZEPTO_SQL_OPERATORS_MAX",
    /// Levels of nesting in one statement
    sql_depth_max: "ZEPTO_SQL_DEPTH_MAX",
    /// Relations that one statement reads where all of it is written out
    plan_nodes_max: "ZEPTO_PLAN_NODES_MAX",
    /// Terms of one statement's expressions where all of it is written out
    plan_expressions_max: "ZEPTO_PLAN_EXPRESSIONS_MAX",
    /// Plans kept for statements that are asked again
    plans_max: "ZEPTO_PLANS_MAX",
    /// Rows of one ingested stream
    stream_rows_max: "ZEPTO_STREAM_ROWS_MAX",
    /// Bytes of one ingested stream
    stream_bytes_max: "ZEPTO_STREAM_BYTES_MAX",
    /// Bytes that all streams stage before only the oldest is read on
    staged_bytes_max: "ZEPTO_STAGED_BYTES_MAX",
    /// Bytes of one received message
    message_bytes_max: "ZEPTO_MESSAGE_BYTES_MAX",
    /// Bytes of one received message after decompression
    inflated_bytes_max: "ZEPTO_INFLATED_BYTES_MAX",
    /// Bytes of one sent message, unless a single row has more
    message_bytes_target: "ZEPTO_MESSAGE_BYTES_TARGET",
    /// Bytes of a request's headers
    header_bytes_max: "ZEPTO_HEADER_BYTES_MAX",
    /// Milliseconds for a request's headers, or a Flight connection's first bytes, to arrive; 0: no limit
    header_timeout_ms: "ZEPTO_HEADER_TIMEOUT_MS",
    /// Milliseconds between two pieces of a request's body; 0: no limit
    body_timeout_ms: "ZEPTO_BODY_TIMEOUT_MS",
    /// Milliseconds that a Flight connection is kept open without a call; 0: no limit
    idle_timeout_ms: "ZEPTO_IDLE_TIMEOUT_MS",
    /// Open connections of each protocol; more wait. One other machine gets at most three quarters of them
    connections_max: "ZEPTO_CONNECTIONS_MAX",
    /// Tables
    tables_max: "ZEPTO_TABLES_MAX",
    /// Columns of one table
    columns_max: "ZEPTO_COLUMNS_MAX",
    /// Snapshots pinned at the same time
    snapshots_max: "ZEPTO_SNAPSHOTS_MAX",
    /// Milliseconds that a ticket is good for after its last use
    ticket_ttl_ms: "ZEPTO_TICKET_TTL_MS",
    /// Bytes of memory for results that wait for their tickets
    held_bytes_max: "ZEPTO_HELD_BYTES_MAX",
    /// Bytes of disk for results that wait for their tickets
    spool_bytes_max: "ZEPTO_SPOOL_BYTES_MAX",
    /// Bytes of the data directory; 0: as many as the disk has
    disk_bytes_max: "ZEPTO_DISK_BYTES_MAX",
    /// Bytes of the journal; half of them have tables flushed to files
    journal_bytes_max: "ZEPTO_JOURNAL_BYTES_MAX",
    /// Milliseconds after which commits are flushed to files; 0: only where the journal or memory is full
    flush_age_ms: "ZEPTO_FLUSH_AGE_MS",
    /// Writers of one table whose commits are numbered
    writers_max: "ZEPTO_WRITERS_MAX",
    /// Milliseconds after which a writer that commits nothing is forgotten; 0: never
    writers_keep_ms: "ZEPTO_WRITERS_KEEP_MS",
    /// Milliseconds given to running requests at a stop
    shutdown_grace_ms: "ZEPTO_SHUTDOWN_GRACE_MS",
}
