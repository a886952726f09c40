//! From SQL text to a statement whose every name is known: tokens, parsing, classification, names.
//!
//! Nothing here runs or plans anything. What a statement is gets decided on its parsed form, by an allow-list, before
//! anything else looks at it.

mod ddl;
mod dialect;
mod dml;
mod from;
mod guard;
mod literals;
mod resolve;
mod scope;
mod statement;
mod tokens;
mod types;

pub use guard::{Callee, Refused, inspect};
pub use resolve::{Names, TARGET};
pub use statement::{
    AlterTable, Alteration, CreateTable, Delete, DropTables, Insert, Name, NewColumns, Parsed, Statement, Truncate,
    Update, parse,
};
pub use types::{arrow_type, sql_name};
