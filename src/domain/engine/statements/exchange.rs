//! A read that sees its caller's own stream as one more table.
//!
//! The stream is staged like an ingested one – in segments, counted against memory, visible to nobody else – and takes part
//! in the plan as a table of a snapshot of its own. It is dropped with the answer.

use crate::domain::engine::Inner;
use crate::domain::engine::table_rules::table_schema;
use crate::domain::sql::{Parsed, Statement};
use crate::domain::storage::{SchemaCoercion, Table};
use crate::ports::{Access, BatchStream, Error, INPUT, Query, Reply, Result, StatementKind};
use std::sync::Arc;

impl Inner {
    /// Answers `query` over the tables and `input`.
    pub(in crate::domain::engine) async fn exchange(
        self: Arc<Self>,
        query: Query,
        input: BatchStream,
    ) -> Result<Reply> {
        let (Parsed { statement, .. }, query) = self.parse(Query { access: Access::Read, ..query }).await?;
        let Statement::Read(statement) = statement else {
            return Err(Error::invalid("an exchange answers a SELECT over its input"));
        };
        let schema = table_schema(&input.schema(), &self.options.limits)?;
        let coercion = SchemaCoercion::new(&input.schema(), &schema, 0)?;
        let growth_bytes = |batch: &_| coercion.growth_bytes(batch);
        let stage = self.stage(input, growth_bytes, |batch, rows| coercion.apply(batch, rows)).await?;
        // The state is taken when the input is complete: what the caller saw before it sent its last row is in it.
        let snapshot = self.snapshot_of(&query)?;
        let table = Table::new(self.catalog.next_table_id(), INPUT, schema, stage.segments().to_vec());
        let snapshot = Arc::new(snapshot.with(Arc::new(table)));
        let batches = self.read_once(*statement, snapshot, &query).await?;
        Ok(Reply { kind: StatementKind::Read, batches })
    }
}
