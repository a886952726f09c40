//! INSERT: rows of a query, or of VALUES for each row of parameters.

use crate::domain::catalog::Snapshot;
use crate::domain::engine::Inner;
use crate::domain::engine::change::{assign, assigned_columns, rewrite_failed, unchanged};
use crate::domain::engine::stage::Stage;
use crate::domain::sql::{Ident, Insert, Name, ROW_NUMBER, ReadStatement, only_values_row, placeholders_to_columns};
use crate::domain::storage::Table;
use crate::ports::{BatchStream, Error, Query, Result};
use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use futures::StreamExt;
use std::sync::Arc;

impl Inner {
    /// Rows inserted.
    pub(super) async fn insert(self: &Arc<Self>, insert: Insert, query: &Query) -> Result<u64> {
        let snapshot = self.catalog.present();
        let (name, table) = self.table(&snapshot, &insert.table)?;
        let columns = insert_columns(table.schema(), &insert.columns)?;
        let mut batches = match &query.params {
            Some(params) if params.num_rows() != 1 => self.rows_of(&insert.source, params, snapshot, query).await?,
            _ => self.read(*insert.source, snapshot, query).await?,
        };
        let given = batches.schema().fields().len();
        let wanted = columns.iter().flatten().count();
        if given != wanted {
            return Err(Error::invalid(format!("INSERT has {wanted} columns and {given} values for each row")));
        }
        let mut stage = Stage::new(&self.budget, &self.options.limits);
        while let Some(batch) = batches.next().await {
            stage.push(assigned_batch(&batch?, table.schema(), &columns)?)?;
        }
        self.catalog.publish(|present| {
            let now = unchanged(present, &name, &table)?;
            if now.schema() != table.schema() {
                return Err(changed(&name));
            }
            Ok((vec![(name.clone(), Some(now.appended(stage.segments())))], ()))
        })?;
        self.merge_later(&name);
        Ok(stage.rows())
    }

    /// The one row of VALUES in `source` for each row of `params`, in their order.
    async fn rows_of(
        self: &Arc<Self>,
        source: &ReadStatement,
        params: &RecordBatch,
        snapshot: Arc<Snapshot>,
        query: &Query,
    ) -> Result<BatchStream> {
        let Some(exprs) = only_values_row(source) else {
            return Err(Error::invalid(format!(
                "{} rows of parameters came, and only an INSERT of one row of VALUES takes other than one",
                params.num_rows()
            )));
        };
        // Each parameter is a column of a table of parameters.
        let names = (0..params.num_columns()).map(|at| format!("{ROW_NUMBER}${}", at + 1)).collect::<Vec<_>>();
        let exprs = placeholders_to_columns(exprs, &names);
        let fields = params.schema_ref().fields().iter().zip(&names);
        let fields: Vec<_> = fields.map(|(field, name)| field.as_ref().clone().with_name(name)).collect();
        let schema = Arc::new(Schema::new(fields));
        let options = RecordBatchOptions::new().with_row_count(Some(params.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), params.columns().to_vec(), &options)
            .map_err(rewrite_failed)?;
        let mut stage = Stage::new(&self.budget, &self.options.limits);
        stage.push(rows)?;
        let table = Arc::new(Table::new(0, schema, stage.segments().to_vec()));
        let query = Query { params: None, ..query.clone() };
        let found = self.find(snapshot, &table, Ident::new("x"), None, exprs, &query).await?;
        without_row_numbers(found)
    }
}

/// The same without the first column.
fn without_row_numbers(batches: BatchStream) -> Result<BatchStream> {
    let columns: Vec<usize> = (1..batches.schema().fields().len()).collect();
    let schema = batches.schema().project(&columns).map(Arc::new).map_err(rewrite_failed)?;
    let batches = batches.map(move |batch| batch.and_then(|batch| batch.project(&columns).map_err(rewrite_failed)));
    Ok(BatchStream::new(schema, batches))
}

fn changed(name: &str) -> Error {
    Error::mismatch(format!("table {name:?} changed its columns meanwhile; nothing was inserted"))
}

/// For every column of the table the position of its value.
pub(super) fn insert_columns(schema: &SchemaRef, listed: &[Name]) -> Result<Vec<Option<usize>>> {
    if listed.is_empty() {
        return Ok((0..schema.fields().len()).map(Some).collect());
    }
    let mut values = vec![None; schema.fields().len()];
    for (value, column) in assigned_columns(schema, listed)?.into_iter().enumerate() {
        values[column] = Some(value);
    }
    Ok(values)
}

fn assigned_batch(batch: &RecordBatch, schema: &SchemaRef, columns: &[Option<usize>]) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let arrays = schema
        .fields()
        .iter()
        .zip(columns)
        .map(|(field, value)| match value {
            Some(value) => assign(batch.column(*value), field),
            None => assign(&new_null_array(&DataType::Null, rows), field),
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(rewrite_failed)
}
