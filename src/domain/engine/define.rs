//! CREATE TABLE, CREATE TABLE AS and DROP TABLE.

use crate::domain::engine::Inner;
use crate::domain::engine::ingest::{check_name, table_schema};
use crate::domain::engine::stage::Stage;
use crate::domain::sql::{CreateTable, DropTables, NewColumns};
use crate::domain::storage::{Conform, Table};
use crate::ports::{BatchStream, Error, ErrorKind, Query, Result};
use arrow::datatypes::Schema;
use futures::StreamExt;
use std::sync::Arc;

/// The answer of a definition.
pub(super) fn defined() -> BatchStream {
    BatchStream::empty(Arc::new(Schema::empty()))
}

impl Inner {
    /// Makes a table.
    pub(super) async fn create_table(self: &Arc<Self>, create: CreateTable, query: &Query) -> Result<BatchStream> {
        check_name(&create.table)?;
        let exists = || self.catalog.present().tables().contains_key(&create.table);
        if exists() && create.if_not_exists {
            return Ok(defined());
        }
        if exists() && !create.or_replace {
            return Err(already_exists(&create.table));
        }
        let mut stage = Stage::new(&self.budget, &self.options.limits);
        let schema = match create.columns {
            NewColumns::Listed(schema) => table_schema(&schema, &self.options.limits)?,
            NewColumns::From(source) => {
                let mut batches = self.read(*source, self.catalog.present(), query).await?;
                // What a query can't answer null today, the table may well hold tomorrow.
                let nullable = |field: &Arc<_>| arrow::datatypes::Field::clone(field).with_nullable(true);
                let fields: Vec<_> = batches.schema().fields().iter().map(nullable).collect();
                let schema = table_schema(&Schema::new(fields), &self.options.limits)?;
                let conform = Conform::new(&batches.schema(), &schema, 0)?;
                while let Some(batch) = batches.next().await {
                    stage.push(conform.apply(&batch?, stage.rows())?)?;
                }
                schema
            }
        };
        self.catalog.publish(|present| {
            if present.tables().contains_key(&create.table) && !create.or_replace {
                let result = if create.if_not_exists { Ok(()) } else { Err(already_exists(&create.table)) };
                return result.map(|()| (Vec::new(), ()));
            }
            let table = Table::new(self.catalog.next_table_id(), schema.clone(), stage.segments().to_vec());
            Ok((vec![(create.table.clone(), Some(table))], ()))
        })?;
        Ok(defined())
    }

    /// Drops tables, all of them or none.
    pub(super) fn drop_tables(&self, drop: &DropTables) -> Result<BatchStream> {
        self.catalog.publish(|present| {
            let mut edits = Vec::new();
            for table in &drop.tables {
                match present.resolve(&table.text, table.quoted) {
                    Ok(name) => edits.push((name.to_owned(), None)),
                    Err(error) if drop.if_exists && error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok((edits, ()))
        })?;
        Ok(defined())
    }
}

/// The error for a table that may not be there.
pub(super) fn already_exists(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("table {name:?} exists already"))
}
