//! A read that sees its caller's own stream as one more table.
//!
//! The stream is staged like an ingested one – in segments, counted against memory, visible to nobody else – and takes part
//! in the plan as a table of a snapshot of its own. It goes when the answer does.

use crate::domain::engine::Inner;
use crate::domain::engine::ingest::table_schema;
use crate::domain::sql::{Parsed, Statement};
use crate::domain::storage::{Conform, Table};
use crate::ports::{Access, BatchStream, Error, INPUT, Query, Reply, Result, StatementKind};
use std::sync::Arc;

impl Inner {
    /// Answers `query` over the tables and `input`.
    pub(super) async fn exchange(self: Arc<Self>, query: Query, input: BatchStream) -> Result<Reply> {
        let (Parsed { statement, .. }, query) = self.parse(Query { access: Access::Read, ..query }).await?;
        let Statement::Read(statement) = statement else {
            return Err(Error::invalid("an exchange answers a SELECT over its input"));
        };
        let schema = table_schema(&input.schema(), &self.options.limits)?;
        let conform = Conform::new(&input.schema(), &schema, 0)?;
        let stage = self.staged(input, &conform).await?;
        // The state is taken when the input is there: what the caller saw before it sent its last row is in it.
        let snapshot = self.snapshot_of(&query)?;
        let table = Table::new(self.catalog.next_table_id(), schema, stage.segments().to_vec());
        let snapshot = Arc::new(snapshot.with(INPUT, Arc::new(table)));
        let batches = self.read(*statement, snapshot, &query).await?;
        Ok(Reply { kind: StatementKind::Read, batches })
    }
}
