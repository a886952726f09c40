//! Flight SQL's questions about the catalogue: what tables, types, keys and features there are.
//!
//! Schemas are the specification's, nullability included: drivers compare them strictly. There are no keys, so those
//! answers are empty, which is not the same as refusing to answer.

use crate::adapters::flight::columns::{described, xdbc_schema, xdbc_types};
use crate::adapters::flight::command::{CATALOG, DB_SCHEMA, short_name};
use crate::adapters::flight::sql_info::sql_info;
use crate::adapters::gate::ServerOptions;
use crate::adapters::ipc::Presentation;
use crate::ports::{Error, Result, TableInfo};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{GetCatalogsBuilder, SqlInfoDataBuilder};
use arrow_flight::sql::{Command as SqlCommand, CommandGetTableTypes, CommandGetTables};
use std::sync::Arc;

/// The one type of table.
const TABLE_TYPE: &str = "TABLE";

/// Whether a message asks about tables, so that its answer takes a list of them.
pub fn asks_for_tables(command: &SqlCommand) -> bool {
    matches!(command, SqlCommand::CommandGetTables(_))
}

/// The schema of the answer to a message.
///
/// # Errors
///
/// `InvalidQuery` for one that asks for something else than the catalogue.
pub fn schema(command: &SqlCommand) -> Result<SchemaRef> {
    match command {
        SqlCommand::CommandGetXdbcTypeInfo(_) => xdbc_schema(),
        SqlCommand::CommandGetSqlInfo(_) => Ok(Arc::new(SqlInfoDataBuilder::schema().clone())),
        SqlCommand::CommandGetTables(query) => Ok(query.clone().into_builder().schema()),
        SqlCommand::CommandGetPrimaryKeys(_) => Ok(primary_keys()),
        SqlCommand::CommandGetExportedKeys(_)
        | SqlCommand::CommandGetImportedKeys(_)
        | SqlCommand::CommandGetCrossReference(_) => Ok(foreign_keys()),
        SqlCommand::CommandGetCatalogs(_) => Ok(GetCatalogsBuilder::new().schema()),
        SqlCommand::CommandGetDbSchemas(query) => Ok(query.clone().into_builder().schema()),
        SqlCommand::CommandGetTableTypes(_) => Ok(CommandGetTableTypes {}.into_builder().schema()),
        other => Err(Error::invalid(format!(
            "{} is not for GetFlightInfo, GetSchema or a ticket",
            short_name(other.type_url())
        ))),
    }
}

/// The answer to a message. `tables` are all there are, where it asks for them; `presentation` is how their columns would
/// be given.
///
/// # Errors
///
/// Those of [`schema`].
pub fn answer(
    command: &SqlCommand,
    tables: &[TableInfo],
    options: &ServerOptions,
    presentation: &Presentation,
) -> Result<RecordBatch> {
    match command {
        SqlCommand::CommandGetCatalogs(_) => {
            let mut builder = GetCatalogsBuilder::new();
            builder.append(CATALOG);
            builder.build().map_err(failed)
        }
        SqlCommand::CommandGetDbSchemas(query) => {
            let mut builder = query.clone().into_builder();
            builder.append(CATALOG, DB_SCHEMA);
            builder.build().map_err(failed)
        }
        SqlCommand::CommandGetTables(query) => list_tables(query, tables, presentation),
        SqlCommand::CommandGetTableTypes(_) => {
            let mut builder = CommandGetTableTypes {}.into_builder();
            builder.append(TABLE_TYPE);
            builder.build().map_err(failed)
        }
        SqlCommand::CommandGetXdbcTypeInfo(query) => xdbc_types(query.data_type),
        SqlCommand::CommandGetSqlInfo(query) => sql_info(&query.info, options),
        other => schema(other).map(RecordBatch::new_empty),
    }
}

fn list_tables(query: &CommandGetTables, tables: &[TableInfo], presentation: &Presentation) -> Result<RecordBatch> {
    let mut builder = query.clone().into_builder();
    for table in tables {
        let schema = described(&presentation.schema(&table.schema));
        builder.append(CATALOG, DB_SCHEMA, &table.name, TABLE_TYPE, &schema).map_err(failed)?;
    }
    builder.build().map_err(failed)
}

fn failed(error: FlightError) -> Error {
    Error::internal("the catalogue does not fit its schema").with_source(error)
}

fn utf8(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn some(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

/// FlightSql.proto, "CommandGetPrimaryKeys".
fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        utf8("catalog_name"),
        utf8("db_schema_name"),
        some("table_name", DataType::Utf8),
        some("column_name", DataType::Utf8),
        utf8("key_name"),
        some("key_sequence", DataType::Int32),
    ]))
}

/// FlightSql.proto, "CommandGetExportedKeys", "CommandGetImportedKeys" and "CommandGetCrossReference".
fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        utf8("pk_catalog_name"),
        utf8("pk_db_schema_name"),
        some("pk_table_name", DataType::Utf8),
        some("pk_column_name", DataType::Utf8),
        utf8("fk_catalog_name"),
        utf8("fk_db_schema_name"),
        some("fk_table_name", DataType::Utf8),
        some("fk_column_name", DataType::Utf8),
        some("key_sequence", DataType::Int32),
        utf8("fk_key_name"),
        utf8("pk_key_name"),
        some("update_rule", DataType::UInt8),
        some("delete_rule", DataType::UInt8),
    ]))
}
