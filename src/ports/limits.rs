//! Every limit of the service: one name, one default, one flag each.
//!
//! They are policy, so they stand together rather than next to the code that keeps them: the engine keeps the ones on
//! queries and memory, the protocols those on what arrives. `docs/configuration.md` lists them for operators, and a
//! test holds the list, the flags and this struct together.

use std::time::Duration;

/// All limits. A time of 0 means no limit in time; of sizes and counts only the disk's has such an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all that is held for clients: tables, what is being ingested and decoded, pinned snapshots, stored results.
    pub memory_bytes_max: u64,
    /// Memory that running queries may hold for sorting, joining and grouping, all of them together.
    pub query_memory_bytes_max: u64,
    /// Queries that may run at the same time.
    pub query_concurrency_max: u64,
    /// Time one query may compute.
    pub query_timeout_ms: u64,
    /// Time a query waits for a client that does not read, before it is stopped.
    pub stall_timeout_ms: u64,
    /// Length of one statement.
    pub sql_bytes_max: u64,
    /// Operators and set operations in one statement. The engine's stack is made for this many.
    pub sql_operators_max: u64,
    /// Nesting of expressions and subqueries in one statement.
    pub sql_depth_max: u64,
    /// Relations that a statement reads where everything that it names twice is written out twice.
    pub plan_nodes_max: u64,
    /// Terms of all its expressions, each column replaced by what it is computed from.
    pub plan_expressions_max: u64,
    /// Plans kept for statements that are asked again; 0: none.
    pub plans_max: u64,
    /// Rows of one ingested stream.
    pub stream_rows_max: u64,
    /// Bytes of one ingested stream.
    pub stream_bytes_max: u64,
    /// Bytes that all streams together may stage before only the oldest of them is read on.
    pub staged_bytes_max: u64,
    /// Bytes of one received gRPC message, and of one message of an Arrow stream over HTTP.
    pub message_bytes_max: u64,
    /// Bytes of one received message after decompression.
    pub inflated_bytes_max: u64,
    /// Bytes of one sent message, unless a single row is larger.
    pub message_bytes_target: u64,
    /// Bytes of all headers of one request.
    pub header_bytes_max: u64,
    /// Time to send a request's headers.
    pub header_timeout_ms: u64,
    /// Time between two pieces of a request's body.
    pub body_timeout_ms: u64,
    /// Time a Flight connection is kept open without a call.
    pub idle_timeout_ms: u64,
    /// Open connections of each protocol; more wait. One other machine gets at most three quarters of them.
    pub connections_max: u64,
    /// Tables there may be.
    pub tables_max: u64,
    /// Columns of one table, and of one stream.
    pub columns_max: u64,
    /// Snapshots pinned at the same time; the one that was not used for longest gives way.
    pub snapshots_max: u64,
    /// Time a snapshot or a stored result is kept after its last use.
    pub ticket_ttl_ms: u64,
    /// Memory for results stored for their tickets, before they go to a spool file.
    pub held_bytes_max: u64,
    /// Disk for results stored for their tickets.
    pub spool_bytes_max: u64,
    /// Bytes of the data directory; 0: as many as the disk has.
    pub disk_bytes_max: u64,
    /// Bytes of the journal: half of them have tables flushed, all of them have commits wait for that.
    pub journal_bytes_max: u64,
    /// Time after which what was committed is flushed to parts, so that the journal need not be read at the next start.
    pub flush_age_ms: u64,
    /// Writers of one table whose commits are numbered.
    pub writers_max: u64,
    /// Time after which a writer that commits nothing is forgotten.
    pub writers_keep_ms: u64,
    /// Time given to running requests at a stop.
    pub shutdown_grace_ms: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Limits {
    /// The defaults, before `memory_bytes_max` and `query_memory_bytes_max` are fitted to the machine.
    pub const DEFAULT: Self = Self {
        memory_bytes_max: 12 * GIB,
        query_memory_bytes_max: 4 * GIB,
        query_concurrency_max: 256,
        query_timeout_ms: 300_000,
        stall_timeout_ms: 300_000,
        sql_bytes_max: MIB,
        sql_operators_max: 1_000,
        sql_depth_max: 50,
        plan_nodes_max: 2_000,
        plan_expressions_max: 100_000,
        plans_max: 1_024,
        stream_rows_max: 10_000_000_000,
        stream_bytes_max: 64 * GIB,
        staged_bytes_max: 4 * GIB,
        message_bytes_max: 64 * MIB,
        inflated_bytes_max: GIB,
        message_bytes_target: 2 * MIB,
        header_bytes_max: 64 * KIB,
        header_timeout_ms: 10_000,
        body_timeout_ms: 120_000,
        idle_timeout_ms: 600_000,
        connections_max: 10_000,
        tables_max: 10_000,
        columns_max: 10_000,
        snapshots_max: 1_024,
        ticket_ttl_ms: 600_000,
        held_bytes_max: 256 * MIB,
        spool_bytes_max: 16 * GIB,
        disk_bytes_max: 0,
        journal_bytes_max: GIB,
        flush_age_ms: 600_000,
        writers_max: 10_000,
        writers_keep_ms: 7 * 24 * 3_600_000,
        shutdown_grace_ms: 10_000,
    };

    /// How long a snapshot, a held result or a ticket is good after its last use.
    pub fn ticket_ttl(&self) -> Duration {
        if self.ticket_ttl_ms == 0 { Duration::MAX } else { Duration::from_millis(self.ticket_ttl_ms) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use crate::ports::Limits;
    use std::time::Duration;

    #[test]
    fn a_time_of_zero_is_no_limit() {
        assert_eq!(Limits { ticket_ttl_ms: 0, ..Limits::DEFAULT }.ticket_ttl(), Duration::MAX);
        assert_eq!(Limits { ticket_ttl_ms: 5, ..Limits::DEFAULT }.ticket_ttl(), Duration::from_millis(5));
    }
}
