//! SQL: text in, statements out.
//!
//! A statement is split into tokens, bounded, parsed, classified by an allow-list, and its names are resolved. Nothing
//! here plans or runs anything.

mod cast_names;
mod ddl;
mod dialect;
mod dml;
mod from;
mod guard;
mod literals;
mod parse;
mod resolve;
mod rows_query;
mod scope;
mod statement;
mod system_tables;
mod time_columns;
mod timeseries;
mod tokens;
mod types;
mod values;

pub use guard::{Callee, Refused, inspect};
pub use parse::parse;
pub use resolve::ResolvedTables;
pub use rows_query::{ROW_NUMBER, TARGET, rows_query};
pub use sqlparser::ast::{Expr, Ident};
pub use statement::{
    AlterTable, Alteration, CreateTable, Delete, DropTables, Insert, Name, NewColumns, Parsed, ReadStatement,
    Statement, Truncate, Update,
};
pub use system_tables::system_tables_of;
pub use types::{arrow_type, sql_name};
pub use values::{only_values_row, placeholder, placeholders_to_columns, values_rows};
