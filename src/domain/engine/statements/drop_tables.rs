//! DROP TABLE: all of the tables that it names, or none.

use crate::domain::catalog::{Change, Commit, Rejection, Snapshot, TableRef};
use crate::domain::engine::Inner;
use crate::domain::engine::statements::answers::{definition_description, definition_reply};
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::sql::DropTables;
use crate::ports::{BatchStream, Description, ErrorKind, Result};
use async_trait::async_trait;
use std::sync::Arc;

#[async_trait]
impl Operation for DropTables {
    async fn describe(self: Box<Self>, _: &Arc<Inner>, _: Request) -> Result<Description> {
        Ok(definition_description())
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, _: Request) -> Result<BatchStream> {
        loop {
            let commit = drop_commit(&self, &engine.catalog.current())?;
            match engine.commit(commit).await {
                // Somebody dropped or replaced one of them meanwhile: what is named may be another table now.
                Err(Rejection::Gone(_)) => {}
                committed => return Ok(committed.map(|()| definition_reply())?),
            }
        }
    }
}

fn drop_commit(drop: &DropTables, snapshot: &Snapshot) -> Result<Commit> {
    let mut tables: Vec<TableRef> = Vec::new();
    for table in &drop.tables {
        match snapshot.resolve(&table.text, table.quoted).and_then(|name| snapshot.table(name)) {
            // A table that is named twice is dropped once.
            Ok(table) if tables.iter().any(|known| known.id == table.id()) => {}
            Ok(table) => tables.push(TableRef::of(table)),
            Err(error) if drop.if_exists && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let changes = tables.into_iter().map(|table| Change::Drop { table }).collect();
    Ok(Commit { changes, lock: None })
}
