//! The rows that a DELETE or UPDATE is about, found by a query for their numbers.
//!
//! Rows are numbered by their place in the table, deleted ones included. DataFusion's own hooks for changes are not used:
//! they lose data (docs/design.md).

use crate::domain::catalog::{Snapshot, closest, resolve_name};
use crate::domain::engine::Inner;
use crate::domain::executor::{Parameters, PlanInput, PlanRequest};
use crate::domain::sql::{Name, ReadStatement};
use crate::domain::storage::{Table, cast_exact};
use crate::ports::{BatchStream, Error, Query, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use std::sync::Arc;
use std::time::Instant;

/// Most rows of parameters of one change: each is a query of its own.
const PARAM_ROWS_MAX: usize = 10_000;

impl Inner {
    /// Runs `rows_query`, which asks for row numbers of `base` and values beside them.
    pub(super) async fn matching_rows(
        self: &Arc<Self>,
        rows_query: ReadStatement,
        snapshot: Arc<Snapshot>,
        base: &Arc<Table>,
        query: &Query,
    ) -> Result<BatchStream> {
        let limits = self.query_limits(query);
        let parameters = Parameters::Bound(query.params.clone());
        let request = PlanRequest { statement: rows_query, target: Some(base.clone()), parameters };
        let prepared = self.prepare_once(request, &snapshot, query).await?;
        let source = PlanInput { snapshot, target: Some(base.clone()), part: None };
        let plan = self.executor.bind(&prepared, source).await?;
        self.executor.run(plan, limits).await
    }
}

/// Returns `query` with each of its rows of parameters. All of them together have until `deadline`.
///
/// # Errors
///
/// `LimitExceeded` for too many rows.
pub fn per_parameter_row(query: &Query, deadline: Option<Instant>) -> Result<impl Iterator<Item = Query> + use<>> {
    let rows = query.params.as_ref().map_or(1, RecordBatch::num_rows);
    if rows > PARAM_ROWS_MAX {
        return Err(Error::limit(format!(
            "{rows} rows of parameters came, more than {PARAM_ROWS_MAX}; join with a table"
        )));
    }
    let query = Query { deadline, ..query.clone() };
    Ok((0..rows).map(move |row| {
        let params = query.params.as_ref().map(|params| params.slice(row, 1));
        Query { params, ..query.clone() }
    }))
}

/// Finds the position of each of `columns`, which are all there and all different.
///
/// # Errors
///
/// `InvalidQuery`.
pub fn column_indices(schema: &Schema, columns: &[Name]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for column in columns {
        let index = column_index(schema, column)?;
        if found.contains(&index) {
            return Err(Error::invalid(format!("duplicate column {:?}", column.text)));
        }
        found.push(index);
    }
    Ok(found)
}

/// Finds the position of a column as SQL named it.
///
/// # Errors
///
/// `InvalidQuery`.
pub fn column_index(schema: &Schema, column: &Name) -> Result<usize> {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let found = resolve_name(&column.text, column.quoted, names.clone())?;
    found.and_then(|found| schema.index_of(found).ok()).ok_or_else(|| {
        let hint = match closest(&column.text, names) {
            Some(close) => format!("; did you mean {close:?}?"),
            None => String::new(),
        };
        Error::invalid(format!("column {:?} not found{hint}", column.text))
    })
}

/// Casts `value` to what a column takes in an assignment, exactly, and never to null.
///
/// # Errors
///
/// `SchemaMismatch`.
pub fn assign(value: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let cast = cast_exact(value, field, 0)?;
    if !field.is_nullable() && cast.logical_null_count() > 0 {
        return Err(Error::mismatch(format!("column {:?} may not be null", field.name())));
    }
    Ok(cast)
}

/// Makes the error for rows that could not be put together.
pub fn rewrite_failed(error: ArrowError) -> Error {
    Error::internal("a segment could not be rewritten").with_source(error)
}
