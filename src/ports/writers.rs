//! Writers: clients that number their commits, so that one that is sent again counts once.
//!
//! What a writer has committed is taken down together with the rows themselves, so the two cannot differ. It belongs to the
//! table: deleting rows does not change it, dropping the table ends it.

/// A commit's place among those of its writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterCommit {
    /// The writer's name, of 1 to 128 bytes.
    pub writer: String,
    /// Which process writes under that name: a higher one takes over, a lower one is refused from then on.
    pub epoch: u64,
    /// The commit's number: 1 for the first, then one more each time.
    pub sequence: u64,
    /// What the writer wants to be told again, such as how far it has read: up to 1024 bytes.
    pub offset: Option<String>,
}

/// How far a writer has come in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterState {
    /// The writer's name.
    pub writer: String,
    /// The highest epoch that wrote.
    pub epoch: u64,
    /// The number of its last commit.
    pub sequence: u64,
    /// What it gave with that commit.
    pub offset: Option<String>,
    /// Rows of all its commits.
    pub rows: u64,
    /// The number of the last commit among those of all tables.
    pub lsn: u64,
    /// When that was made, in microseconds since 1970 UTC.
    pub time_us: i64,
}
