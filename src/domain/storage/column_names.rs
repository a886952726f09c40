//! Which column of a table a name means.
//!
//! Exactly, else by its only match without regard to case: the rule of SQL's unquoted names, for the columns of streams.

use crate::ports::{Error, Result};
use arrow::datatypes::Schema;
use std::collections::HashMap;

/// The columns of a schema by name, each found in constant time.
#[derive(Debug)]
pub struct ColumnNames<'a> {
    exact: HashMap<&'a str, usize>,
    /// By lowercase name; several where more than case tells them apart.
    folded: HashMap<String, Vec<usize>>,
}

impl<'a> ColumnNames<'a> {
    /// Collects the names of `schema`.
    pub fn new(schema: &'a Schema) -> Self {
        let mut names = Self { exact: HashMap::new(), folded: HashMap::new() };
        for (at, field) in schema.fields().iter().enumerate() {
            names.exact.insert(field.name(), at);
            names.folded.entry(field.name().to_ascii_lowercase()).or_default().push(at);
        }
        names
    }

    /// Returns the position of the column that `name` means: exactly, else by its only match without regard to case.
    ///
    /// # Errors
    ///
    /// `SchemaMismatch` where several match.
    pub fn find(&self, name: &str) -> Result<Option<usize>> {
        if let Some(at) = self.exact.get(name) {
            return Ok(Some(*at));
        }
        match self.folded.get(&name.to_ascii_lowercase()).map(Vec::as_slice) {
            None => Ok(None),
            Some([only]) => Ok(Some(*only)),
            Some(_) => {
                Err(Error::mismatch(format!("column {name:?} is ambiguous: several names differ in case alone")))
            }
        }
    }
}
