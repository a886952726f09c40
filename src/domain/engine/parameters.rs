//! Parameters: which value belongs to which, and what is known of those that have none yet.
//!
//! A driver prepares a statement before it binds anything, and wants to know then what there is to bind. What the planner
//! cannot say – it has no types for bare `VALUES (?, ?)` – the column says that a value goes to.

use crate::domain::sql::{Expr, placeholder};
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Orders the columns of `params` by `names`. Where a statement has no names, the columns have their order already.
///
/// # Errors
///
/// `InvalidQuery` for a name without a value, or a value without a place.
pub fn order_by_placeholder(params: Option<RecordBatch>, names: &[Option<String>]) -> Result<Option<RecordBatch>> {
    let Some(params) = params.filter(|params| params.num_columns() > 0) else { return Ok(None) };
    let mut columns = Vec::new();
    for name in names.iter().flatten() {
        let schema = params.schema();
        let at = schema.fields().iter().position(|field| field.name().trim_start_matches('$') == name);
        columns.push(at.ok_or_else(|| Error::invalid(format!("parameter ${name} has no value")))?);
    }
    if columns.is_empty() {
        // What no place takes was meant for one.
        if params.num_columns() > names.len() {
            let (given, places) = (params.num_columns(), names.len());
            return Err(Error::invalid(format!("{given} values came for a statement with {places} parameters")));
        }
        return Ok(Some(params));
    }
    params.project(&columns).map(Some).map_err(|error| Error::internal("parameters in order").with_source(error))
}

/// Finds the types of the parameters among values that go straight into a column of a known type.
pub fn type_hints(count: usize, columns: impl Iterator<Item = (DataType, Expr)>) -> Vec<Option<DataType>> {
    let mut hints = vec![None; count];
    for (data_type, value) in columns {
        if let Some(hint) = placeholder(&value).and_then(|number| hints.get_mut(number - 1)) {
            *hint = Some(data_type);
        }
    }
    hints
}

/// Returns the schema of parameters with these names and types; those without a name are `$1`, `$2`, ….
pub fn parameter_schema(names: &[Option<String>], types: &[DataType]) -> SchemaRef {
    let field = |(at, (name, data_type)): (usize, (&Option<String>, &DataType))| {
        Field::new(
            name.as_ref().map_or_else(|| format!("${}", at + 1), |name| format!("${name}")),
            data_type.clone(),
            true,
        )
    };
    Arc::new(Schema::new(names.iter().zip(types).enumerate().map(field).collect::<Vec<_>>()))
}
