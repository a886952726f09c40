//! Answers Flight SQL's catalogue requests: tables, types, keys and features.
//!
//! Schemas are those of the specification, nullability included: drivers compare them strictly. There are no keys, so
//! those answers are empty rather than refused.

use crate::adapters::flight::call::CallContext;
use crate::adapters::flight::command::{CATALOG, DB_SCHEMA, short_name};
use crate::adapters::flight::sql::sql_info::sql_info;
use crate::adapters::flight::sql::type_info::{annotate, xdbc_schema, xdbc_types};
use crate::adapters::serving::{ResultOptions, ServerOptions, Strings};
use crate::ports::{Error, Result, TableInfo};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{GetCatalogsBuilder, SqlInfoDataBuilder};
use arrow_flight::sql::{Command as SqlCommand, CommandGetTableTypes, CommandGetTables};
use std::sync::Arc;

/// The only type of table.
const TABLE_TYPE: &str = "TABLE";

/// Key of the time column of a table in the metadata of its schema.
const TIME_COLUMN: &str = "zepto:time_column";

/// Answers a catalogue request.
///
/// # Errors
///
/// Those of [`schema`] and of listing tables.
pub async fn batch(command: &SqlCommand, call: &CallContext) -> Result<RecordBatch> {
    let lists_tables = matches!(command, SqlCommand::CommandGetTables(_));
    let tables = if lists_tables { call.state.query.tables(call.caller.clone()).await? } else { Vec::new() };
    // Tables are described as a Flight SQL client would get their columns.
    let options = call.result_options.clone().or(&ResultOptions::of_strings(Strings::Plain));
    answer(command, &tables, &call.state.options, &options)
}

/// Returns the schema of the answer to a catalogue request.
///
/// # Errors
///
/// `InvalidQuery` for a message that is not a catalogue request.
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

fn answer(
    command: &SqlCommand,
    tables: &[TableInfo],
    options: &ServerOptions,
    result_options: &ResultOptions,
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
        SqlCommand::CommandGetTables(query) => list_tables(query, tables, result_options),
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

fn list_tables(query: &CommandGetTables, tables: &[TableInfo], options: &ResultOptions) -> Result<RecordBatch> {
    let mut builder = query.clone().into_builder();
    for table in tables {
        let mut schema = annotate(&options.schema(&table.schema));
        schema.metadata.extend(table.time_column.iter().map(|time| (TIME_COLUMN.to_owned(), time.clone())));
        builder.append(CATALOG, DB_SCHEMA, &table.name, TABLE_TYPE, &schema).map_err(failed)?;
    }
    builder.build().map_err(failed)
}

fn failed(error: FlightError) -> Error {
    Error::internal("the catalogue does not fit its schema").with_source(error)
}

fn nullable_text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

/// Returns the schema of primary keys (FlightSql.proto, "CommandGetPrimaryKeys").
fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        nullable_text("catalog_name"),
        nullable_text("db_schema_name"),
        required("table_name", DataType::Utf8),
        required("column_name", DataType::Utf8),
        nullable_text("key_name"),
        required("key_sequence", DataType::Int32),
    ]))
}

/// Returns the schema of foreign keys (FlightSql.proto, "CommandGetExportedKeys", "CommandGetImportedKeys" and
/// "CommandGetCrossReference").
fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        nullable_text("pk_catalog_name"),
        nullable_text("pk_db_schema_name"),
        required("pk_table_name", DataType::Utf8),
        required("pk_column_name", DataType::Utf8),
        nullable_text("fk_catalog_name"),
        nullable_text("fk_db_schema_name"),
        required("fk_table_name", DataType::Utf8),
        required("fk_column_name", DataType::Utf8),
        required("key_sequence", DataType::Int32),
        nullable_text("fk_key_name"),
        nullable_text("pk_key_name"),
        required("update_rule", DataType::UInt8),
        required("delete_rule", DataType::UInt8),
    ]))
}
