//! From SQL text to a statement whose every name is known: tokens, parsing, classification, names.
//!
//! Nothing here runs or plans anything. What a statement is gets decided on its parsed form, by an allow-list, before
//! anything else looks at it.

mod changes;
mod definitions;
mod dialect;
mod from;
mod guard;
mod literals;
mod names;
mod rows_query;
mod scope;
mod statement;
mod tokens;

pub use guard::{Callee, Refused, inspect};
pub use names::{Names, TARGET};
pub use rows_query::{placeholder, rows_query};
pub use statement::{
    AlterTable, Alteration, CreateTable, Delete, DropTables, Insert, Name, NewColumns, Parsed, Statement, Truncate,
    Update, parse,
};
