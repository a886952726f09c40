//! CREATE TABLE and CREATE TABLE AS.

use crate::domain::catalog::{Change, Commit, Rejection};
use crate::domain::engine::Inner;
use crate::domain::engine::statements::answers::{definition_description, definition_reply};
use crate::domain::engine::statements::matching_rows::column_index;
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::engine::table_rules::{check_name, table_schema};
use crate::domain::sql::{CreateTable, Name, NewColumns, ReadStatement, sql_name};
use crate::domain::storage::{SchemaCoercion, Segment, Table};
use crate::ports::{BatchStream, Description, Error, Query, Result};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use std::sync::Arc;

#[async_trait]
impl Operation for CreateTable {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        match self.columns {
            NewColumns::From(source) if request.is_unbound() => {
                let hints = vec![None; request.parameters.len()];
                let (params, _) = engine.prepare_unbound(*source, None, hints, &request).await?;
                Ok(Description { params, ..definition_description() })
            }
            _ => Ok(definition_description()),
        }
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        check_name(&self.table)?;
        // Before the query runs, and again when the table is committed.
        if let Some(table) = engine.catalog.current().get(&self.table).filter(|_| !self.or_replace) {
            return if_exists(self.if_not_exists, Rejection::Exists(table.name().clone()));
        }
        let (schema, segments) = match self.columns {
            NewColumns::Listed(schema) => (table_schema(&schema, &engine.options.limits)?, Vec::new()),
            NewColumns::From(source) => engine.read_table(source, &request.query).await?,
        };
        let time = self.time.map(|name| time_column(&schema, &name)).transpose()?;
        let table = Table::new(engine.catalog.next_table_id(), &self.table, schema, segments);
        let table = match time {
            Some(time) => table.with_time(&time),
            None => table,
        };
        let table = Arc::new(table.counted_in(engine.allocations.account())?);
        match engine.commit(Commit::of(Change::Create { table, or_replace: self.or_replace })).await {
            Ok(()) => Ok(definition_reply()),
            Err(rejection) => if_exists(self.if_not_exists, rejection),
        }
    }
}

/// Finds the column that a definition names as its time.
fn time_column(schema: &SchemaRef, name: &Name) -> Result<String> {
    let field = schema.field(column_index(schema, name)?);
    match field.data_type() {
        DataType::Timestamp(..) => Ok(field.name().clone()),
        other => Err(Error::invalid(format!(
            "column {:?} has type {}; the time column of a table is a TIMESTAMP",
            field.name(),
            sql_name(other)
        ))),
    }
}

/// Answers where the table may be there already.
fn if_exists(may_exist: bool, rejection: Rejection) -> Result<BatchStream> {
    match rejection {
        Rejection::Exists(_) if may_exist => Ok(definition_reply()),
        rejection => Err(Error::from(rejection)),
    }
}

impl Inner {
    /// Reads the columns and rows of a table from a query.
    async fn read_table(
        self: &Arc<Self>,
        source: Box<ReadStatement>,
        query: &Query,
    ) -> Result<(SchemaRef, Vec<Arc<Segment>>)> {
        let batches = self.read_once(*source, self.catalog.current(), query).await?;
        // A column that the query cannot answer null today may well hold nulls in the table tomorrow.
        let nullable = |field: &Arc<Field>| Field::clone(field).with_nullable(true);
        let fields: Vec<_> = batches.schema().fields().iter().map(nullable).collect();
        let schema = table_schema(&Schema::new(fields), &self.options.limits)?;
        let coercion = SchemaCoercion::new(&batches.schema(), &schema, 0)?;
        let growth_bytes = |batch: &_| coercion.growth_bytes(batch);
        let stage = self.stage(batches, growth_bytes, |batch, rows| coercion.apply(batch, rows)).await?;
        Ok((schema, stage.segments().to_vec()))
    }
}
