//! From SQL text to a statement whose every name is known: tokens, parsing, classification, names.
//!
//! Nothing here runs or plans anything. What a statement is gets decided on its parsed form, by an allow-list, before
//! anything else looks at it.

mod changes;
mod definitions;
mod guard;
mod names;
mod statement;
mod tokens;

pub use names::{Names, TARGET};
pub use statement::{
    AlterTable, Alteration, CreateTable, Delete, DropTables, Insert, Name, NewColumns, Parsed, Statement, Truncate,
    Update, parse,
};
