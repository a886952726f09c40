//! SHOW TABLES, SHOW FUNCTIONS and DESCRIBE.
//!
//! Each schema stands beside the rows that it describes, so that describing a statement and executing it agree.

use crate::domain::engine::Inner;
use crate::domain::engine::statements::answers::single_batch;
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::executor::FunctionHelp;
use crate::domain::sql::Name;
use crate::domain::sql::sql_name;
use crate::ports::{BatchStream, Description, Result, StatementKind};
use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use std::sync::Arc;

/// `SHOW TABLES`
pub struct ShowTables;

/// `SHOW FUNCTIONS`
pub struct ShowFunctions;

/// `DESCRIBE table`
pub struct DescribeTable(pub Name);

#[async_trait]
impl Operation for ShowTables {
    async fn describe(self: Box<Self>, _: &Arc<Inner>, request: Request) -> Result<Description> {
        Ok(description(tables_schema(), request.snapshot.len(), &request))
    }

    async fn execute(self: Box<Self>, _: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        if request.is_later_part() {
            return Ok(BatchStream::empty(tables_schema()));
        }
        let names = StringArray::from_iter_values(request.snapshot.tables().map(|table| table.name()));
        let rows = request.snapshot.tables().map(|table| i64::try_from(table.rows()).unwrap_or(i64::MAX));
        Ok(single_batch(tables_schema(), vec![Arc::new(names), Arc::new(Int64Array::from_iter_values(rows))]))
    }
}

#[async_trait]
impl Operation for ShowFunctions {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        Ok(description(functions_schema(), engine.executor.functions().len(), &request))
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        if request.is_later_part() {
            return Ok(BatchStream::empty(functions_schema()));
        }
        let functions = engine.executor.functions();
        let column = |of: fn(&FunctionHelp) -> &str| {
            Arc::new(StringArray::from_iter_values(functions.iter().map(of))) as ArrayRef
        };
        let columns: Vec<ArrayRef> = vec![
            column(|help| &help.name),
            column(|help| help.kind),
            column(|help| &help.call),
            column(|help| &help.description),
        ];
        Ok(single_batch(functions_schema(), columns))
    }
}

#[async_trait]
impl Operation for DescribeTable {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        let table = engine.table(&request.snapshot, &self.0)?;
        Ok(description(columns_schema(), table.schema().fields().len(), &request))
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        let table = engine.table(&request.snapshot, &self.0)?;
        if request.is_later_part() {
            return Ok(BatchStream::empty(columns_schema()));
        }
        let fields = table.schema().fields();
        let names = StringArray::from_iter_values(fields.iter().map(|field| field.name()));
        let types = StringArray::from_iter_values(fields.iter().map(|field| sql_name(field.data_type())));
        Ok(single_batch(columns_schema(), vec![Arc::new(names), Arc::new(types)]))
    }
}

fn description(schema: SchemaRef, rows: usize, request: &Request) -> Description {
    let rows = if request.is_later_part() { 0 } else { rows as u64 };
    Description::new(StatementKind::Read, schema, Some(rows))
}

fn tables_schema() -> SchemaRef {
    let name = Field::new("name", DataType::Utf8, false);
    Arc::new(Schema::new(vec![name, Field::new("rows", DataType::Int64, false)]))
}

fn functions_schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(["name", "kind", "call", "description"].map(column).to_vec()))
}

fn columns_schema() -> SchemaRef {
    let column = Field::new("column", DataType::Utf8, false);
    Arc::new(Schema::new(vec![column, Field::new("type", DataType::Utf8, false)]))
}
