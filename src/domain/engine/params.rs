//! Parameters: which value belongs to which, and what is known of those that have none yet.
//!
//! A driver prepares a statement before it binds anything, and wants to know then what there is to bind. What the planner
//! cannot say – it has no types for bare `VALUES (?, ?)` – the column says that a value goes to.

use crate::domain::catalog::Snapshot;
use crate::domain::engine::change::column_index;
use crate::domain::engine::insert::insert_columns;
use crate::domain::engine::{Inner, count_schema, refused};
use crate::domain::executor::{Parameters, PlanInput, PlanRequest};
use crate::domain::sql::{
    CreateTable, Expr, Insert, NewColumns, ReadStatement, Statement, placeholder, rows_query, values_rows,
};
use crate::domain::storage::Table;
use crate::ports::{Description, Error, Query, Result, StatementKind};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The columns of `params` in the order of `names`. Where a statement has no names, the columns have their order already.
///
/// # Errors
///
/// `InvalidQuery` for a name without a value, or a value without a place.
pub(super) fn in_order(params: Option<RecordBatch>, names: &[Option<String>]) -> Result<Option<RecordBatch>> {
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

/// The types of values that go straight into a column.
pub(super) fn hints(count: usize, columns: impl Iterator<Item = (DataType, Expr)>) -> Vec<Option<DataType>> {
    let mut hints = vec![None; count];
    for (data_type, value) in columns {
        if let Some(hint) = placeholder(&value).and_then(|number| hints.get_mut(number - 1)) {
            *hint = Some(data_type);
        }
    }
    hints
}

fn schema_of(names: &[Option<String>], types: &[DataType]) -> SchemaRef {
    let field = |(at, (name, data_type)): (usize, (&Option<String>, &DataType))| {
        Field::new(
            name.as_ref().map_or_else(|| format!("${}", at + 1), |name| format!("${name}")),
            data_type.clone(),
            true,
        )
    };
    Arc::new(Schema::new(names.iter().zip(types).enumerate().map(field).collect::<Vec<_>>()))
}

impl Inner {
    /// Describes a statement whose parameters, called `names`, have no values yet.
    pub(super) async fn describe_open(
        self: &Arc<Self>,
        statement: Statement,
        names: &[Option<String>],
        snapshot: Arc<Snapshot>,
        query: &Query,
    ) -> Result<Description> {
        let kind = statement.kind();
        let count = names.len();
        let (schema, request) = match statement {
            Statement::Read(statement) => (None, request(*statement, None, vec![None; count])),
            Statement::Insert(insert) => {
                let table = self.table(&snapshot, &insert.table)?.1;
                let hints = insert_hints(&insert, &table, count)?;
                (Some("inserted"), request(*insert.source, None, hints))
            }
            Statement::Update(update) => {
                let table = self.table(&snapshot, &update.table)?.1;
                let assigned = update.assignments.iter().map(|(column, value)| {
                    Ok((table.schema().field(column_index(table.schema(), column)?).data_type().clone(), value.clone()))
                });
                let hints = hints(count, assigned.collect::<Result<Vec<_>>>()?.into_iter());
                let values = update.assignments.into_iter().map(|(_, value)| value).collect();
                let rows = rows_query(update.alias, update.predicate, values)?;
                (Some("updated"), request(rows, Some(table), hints))
            }
            Statement::Delete(delete) => {
                let table = self.table(&snapshot, &delete.table)?.1;
                let rows = rows_query(delete.alias, delete.predicate, Vec::new())?;
                (Some("deleted"), request(rows, Some(table), vec![None; count]))
            }
            Statement::CreateTable(CreateTable { columns: NewColumns::From(source), .. }) => {
                (None, request(*source, None, vec![None; count]))
            }
            Statement::Refused { what, .. } => return Err(refused(&what)),
            _ => return Ok(Description::new(kind, Arc::new(Schema::empty()), Some(0))),
        };
        let target = request.target.clone();
        let prepared = self.prepare_once(request, &snapshot, query).await?;
        let params = schema_of(names, prepared.params());
        let (schema, rows) = match schema {
            Some(counted) => (count_schema(counted), Some(1)),
            None if kind == StatementKind::Definition => (Arc::new(Schema::empty()), Some(0)),
            None => {
                let source = PlanInput { snapshot, target, part: query.part };
                (self.executor.bind(&prepared, source).await?.schema, None)
            }
        };
        Ok(Description { params, ..Description::new(kind, schema, rows) })
    }
}

fn request(statement: ReadStatement, target: Option<Arc<Table>>, hints: Vec<Option<DataType>>) -> PlanRequest {
    PlanRequest { statement, target, parameters: Parameters::Unbound(hints) }
}

fn insert_hints(insert: &Insert, table: &Table, count: usize) -> Result<Vec<Option<DataType>>> {
    let Some(rows) = values_rows(&insert.source) else { return Ok(vec![None; count]) };
    let columns = insert_columns(table.schema(), &insert.columns)?;
    let fields = table.schema().fields();
    let typed = rows.into_iter().flat_map(|row| {
        let value_of = |(field, value): (usize, &Option<usize>)| {
            let expr = row.get((*value)?)?;
            Some((fields[field].data_type().clone(), expr.clone()))
        };
        columns.iter().enumerate().filter_map(value_of).collect::<Vec<_>>()
    });
    Ok(hints(count, typed))
}
