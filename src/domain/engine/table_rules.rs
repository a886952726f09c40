//! What a table may be called and which columns it may have, however it is made.

use crate::domain::storage::schema_bytes;
use crate::ports::{Error, Limits, Result};
use arrow::datatypes::{Schema, SchemaRef};
use std::collections::HashSet;
use std::sync::Arc;

/// Names that the engine keeps for itself begin like this.
const RESERVED_PREFIX: &str = "__zepto";

/// Longest name of a table, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Characters of a refused name that a message shows.
const NAME_CHARS_SHOWN: usize = 40;

/// Checks that a table may have this name.
///
/// # Errors
///
/// `InvalidQuery`.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if is_reserved(name) {
        "names that begin with __zepto are reserved"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(NAME_CHARS_SHOWN).collect();
    Err(Error::invalid(format!("{shown:?} cannot name a table: {wrong}")))
}

/// Checks the number of columns of a table or stream.
///
/// # Errors
///
/// `LimitExceeded`.
pub fn check_columns(count: usize, limits: &Limits) -> Result<()> {
    if count as u64 > limits.columns_max {
        return Err(Error::limit(format!("{count} columns are more than {} (columns_max)", limits.columns_max)));
    }
    Ok(())
}

/// Returns the schema of a table made from `schema`: its columns, without the metadata of the schema as a whole.
///
/// # Errors
///
/// `InvalidQuery` for no columns, or several of one name; `LimitExceeded` for too many.
pub fn table_schema(schema: &Schema, limits: &Limits) -> Result<SchemaRef> {
    let fields = schema.fields();
    if fields.is_empty() {
        return Err(Error::invalid("a table has at least one column"));
    }
    check_columns(fields.len(), limits)?;
    check_schema_bytes(schema)?;
    let mut names = HashSet::new();
    for field in fields {
        if !names.insert(field.name()) {
            return Err(Error::invalid(format!("duplicate column {:?}", field.name())));
        }
        if is_reserved(field.name()) {
            return Err(Error::invalid(format!(
                "{:?} cannot name a column: names that begin with {RESERVED_PREFIX} are reserved",
                field.name()
            )));
        }
    }
    Ok(Arc::new(Schema::new(fields.clone())))
}

/// Most bytes of the names and metadata of a table's columns.
const SCHEMA_BYTES_MAX: u64 = 16 << 20;

fn check_schema_bytes(schema: &Schema) -> Result<()> {
    let bytes = schema_bytes(schema);
    if bytes > SCHEMA_BYTES_MAX {
        return Err(Error::limit(format!(
            "the names and metadata of the columns take {bytes} bytes, more than {SCHEMA_BYTES_MAX}"
        )));
    }
    Ok(())
}

fn is_reserved(name: &str) -> bool {
    name.get(..RESERVED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX))
}
