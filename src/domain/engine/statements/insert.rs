//! INSERT: rows of a query, or of VALUES for each row of parameters.

use crate::domain::catalog::{Change, Commit, Snapshot, TableRef};
use crate::domain::engine::Inner;
use crate::domain::engine::parameters::type_hints;
use crate::domain::engine::statements::answers::{count_description, count_reply};
use crate::domain::engine::statements::matching_rows::{assign, column_indices, rewrite_failed};
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::sql::{
    Ident, Insert, Name, ROW_NUMBER, ReadStatement, TARGET, only_values_row, placeholders_to_columns, rows_query,
    values_rows,
};
use crate::domain::storage::{Segment, Table, slice_bytes};
use crate::ports::{BatchStream, Description, Error, Query, Result};
use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use std::sync::Arc;

#[async_trait]
impl Operation for Insert {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        if !request.is_unbound() {
            return Ok(count_description("inserted"));
        }
        let table = engine.table(&request.snapshot, &self.table)?;
        let hints = insert_hints(&self, &table, request.parameters.len())?;
        let (params, _) = engine.prepare_unbound(*self.source, None, hints, &request).await?;
        Ok(Description { params, ..count_description("inserted") })
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        let (query, snapshot) = (&request.query, engine.catalog.current());
        let table = engine.table(&snapshot, &self.table)?;
        let sources = column_sources(table.schema(), &self.columns)?;
        let batches = match &query.params {
            Some(params) if params.num_rows() != 1 => engine.rows_of(&self.source, params, snapshot, query).await?,
            _ => engine.read_once(*self.source, snapshot, query).await?,
        };
        let given = batches.schema().fields().len();
        let wanted = sources.iter().flatten().count();
        if given != wanted {
            return Err(Error::invalid(format!("INSERT has {wanted} columns and {given} values for each row")));
        }
        let schema = table.schema().clone();
        let growth_bytes = |batch: &RecordBatch| assigned_bytes(batch, &schema, &sources);
        let convert = |batch: &RecordBatch, _| assigned_batch(batch, &schema, &sources);
        let stage = engine.stage(batches, growth_bytes, convert).await?;
        let segments = stage.segments().to_vec();
        let change = Change::Append { table: TableRef::of(&table), schema: schema.clone(), segments };
        engine.commit(Commit::of(change)).await?;
        Ok(count_reply("inserted", stage.rows()))
    }
}

impl Inner {
    /// Evaluates the one row of VALUES in `source` for each row of `params`, in their order.
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
        let segments = vec![Segment::try_new(rows, &self.allocations)?];
        let table = Arc::new(Table::new(self.catalog.next_table_id(), TARGET, schema, segments));
        let query = Query { params: None, ..query.clone() };
        let rows = rows_query(Ident::new("x"), None, exprs)?;
        without_row_numbers(self.matching_rows(rows, snapshot, &table, &query).await?)
    }
}

/// Drops the first column.
fn without_row_numbers(batches: BatchStream) -> Result<BatchStream> {
    let columns: Vec<usize> = (1..batches.schema().fields().len()).collect();
    let schema = batches.schema().project(&columns).map(Arc::new).map_err(rewrite_failed)?;
    let batches = batches.map(move |batch| batch.and_then(|batch| batch.project(&columns).map_err(rewrite_failed)));
    Ok(BatchStream::new(schema, batches))
}

/// Finds for every column of the table the position of its value; none: null.
fn column_sources(schema: &SchemaRef, listed: &[Name]) -> Result<Vec<Option<usize>>> {
    if listed.is_empty() {
        return Ok((0..schema.fields().len()).map(Some).collect());
    }
    let mut values = vec![None; schema.fields().len()];
    for (value, column) in column_indices(schema, listed)?.into_iter().enumerate() {
        values[column] = Some(value);
    }
    Ok(values)
}

/// Returns the bytes of the columns that are made anew, about: those that are cast, and those that are left out.
fn assigned_bytes(batch: &RecordBatch, schema: &SchemaRef, columns: &[Option<usize>]) -> u64 {
    let rows = batch.num_rows() as u64;
    let of = |(field, value): (&Arc<Field>, &Option<usize>)| {
        let width = rows.saturating_mul(field.data_type().primitive_width().unwrap_or(4) as u64);
        match value.map(|value| batch.column(value)) {
            None => width,
            Some(value) if value.data_type() == field.data_type() => 0,
            Some(value) => width.max(slice_bytes(value.as_ref())),
        }
    };
    schema.fields().iter().zip(columns).map(of).fold(0, u64::saturating_add)
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

/// Finds the types of parameters that stand alone in a row of VALUES: those of the columns that they go to.
fn insert_hints(insert: &Insert, table: &Table, count: usize) -> Result<Vec<Option<DataType>>> {
    let Some(rows) = values_rows(&insert.source) else { return Ok(vec![None; count]) };
    let sources = column_sources(table.schema(), &insert.columns)?;
    let fields = table.schema().fields();
    let typed = rows.into_iter().flat_map(|row| {
        let value_of = |(field, value): (usize, &Option<usize>)| {
            let expr = row.get((*value)?)?;
            Some((fields[field].data_type().clone(), expr.clone()))
        };
        sources.iter().enumerate().filter_map(value_of).collect::<Vec<_>>()
    });
    Ok(type_hints(count, typed))
}
