//! TRUNCATE, and what a DELETE without a predicate does.

use crate::domain::catalog::Change;
use crate::domain::engine::Inner;
use crate::domain::engine::statements::answers::{count_description, count_reply};
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::engine::table_lock::LockedTable;
use crate::domain::sql::Truncate;
use crate::ports::{BatchStream, Description, ErrorKind, Result};
use async_trait::async_trait;
use std::sync::Arc;

#[async_trait]
impl Operation for Truncate {
    async fn describe(self: Box<Self>, _: &Arc<Inner>, _: Request) -> Result<Description> {
        Ok(count_description("deleted"))
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        let rows = match engine.lock_table(&self.table, &request.query).await {
            Err(error) if self.if_exists && error.kind() == ErrorKind::NotFound => 0,
            locked => engine.empty_table(&locked?).await?,
        };
        Ok(count_reply("deleted", rows))
    }
}

impl Inner {
    /// Deletes all rows that a locked table had when it was locked, and returns their number.
    pub(in crate::domain::engine) async fn empty_table(&self, locked: &LockedTable) -> Result<u64> {
        let removed: Vec<_> = locked.base.segments().iter().map(|segment| segment.id()).collect();
        if !removed.is_empty() {
            let change = Change::Truncate { table: locked.reference(), removed };
            self.commit(locked.commit_of(change)).await?;
        }
        Ok(locked.base.rows())
    }
}
