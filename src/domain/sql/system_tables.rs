//! System tables: what the server knows of itself, read like any other table.
//!
//! They are named `system.NAME`, are made when a statement names them, and are part of no snapshot.

use crate::domain::sql::statement::ReadStatement;
use sqlparser::ast::{Ident, ObjectName, ObjectNamePart, visit_relations};
use std::ops::ControlFlow;

/// The schema that they are in.
const SCHEMA: &str = "system";

/// Returns the names of the system tables that a statement reads, as `system.NAME`, each once.
pub fn system_tables_of(statement: &ReadStatement) -> Vec<String> {
    let mut found = Vec::new();
    let _ = visit_relations(statement, |name| {
        found.extend(system_name(name).filter(|name| !found.contains(name)));
        ControlFlow::<()>::Continue(())
    });
    found
}

/// Makes the name of a system table one identifier; leaves any other.
pub(super) fn join_system_name(name: &mut ObjectName) {
    if let Some(joined) = system_name(name) {
        name.0 = vec![ObjectNamePart::Identifier(Ident::with_quote('"', joined))];
    }
}

fn system_name(name: &ObjectName) -> Option<String> {
    let parts: Vec<_> = name.0.iter().filter_map(ObjectNamePart::as_ident).collect();
    match parts.as_slice() {
        [schema, table] if schema.value.eq_ignore_ascii_case(SCHEMA) => {
            Some(format!("{SCHEMA}.{}", table.value.to_ascii_lowercase()))
        }
        _ => None,
    }
}
