//! DELETE, UPDATE and TRUNCATE.
//!
//! DELETE and UPDATE are queries for the numbers of the rows in question, and for their new values; the segments are
//! then rewritten by number. A row goes only where the predicate IS TRUE, order stays, and segments without such a row
//! are kept as they are. DataFusion's own hooks for changes are not used: they lose data (docs/design.md).

use crate::domain::catalog::Snapshot;
use crate::domain::catalog::resolve_name;
use crate::domain::engine::Inner;
use crate::domain::executor::{Parameters, PlanInput, PlanRequest};
use crate::domain::sql::{Delete, Expr, Ident, Name, Truncate, Update, rows_query};
use crate::domain::storage::{Reservation, Segment, Table, cast_exact};
use crate::ports::{BatchStream, Error, ErrorKind, Query, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, interleave, sort_to_indices, take_record_batch};
use arrow::datatypes::{Field, Schema, UInt64Type};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedMutexGuard;

/// A table that nobody else rewrites for now.
pub(super) struct Held {
    /// The state of everything from which the change starts.
    pub snapshot: Arc<Snapshot>,
    /// The table's exact name.
    pub name: String,
    /// Its state in that snapshot.
    pub base: Arc<Table>,
    /// Its change lock.
    pub changing: OwnedMutexGuard<()>,
}

impl Inner {
    /// Waits until nobody else rewrites a table, no longer than a query may take.
    ///
    /// # Errors
    ///
    /// `NotFound` for no such table, `Timeout` where others are still at it.
    pub(super) async fn hold(&self, table: &Name, query: &Query) -> Result<Held> {
        match self.time_limit(query) {
            None => self.held(table).await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), self.held(table)).await.unwrap_or_else(|_| {
                let message = format!("other changes of table {:?} took all the time that this one had", table.text);
                Err(Error::new(ErrorKind::Timeout, message))
            }),
        }
    }

    /// Where the table was replaced meanwhile, the lock that was waited for is another table's: then it starts over.
    async fn held(&self, table: &Name) -> Result<Held> {
        loop {
            let lock = self.table(&self.catalog.present(), table)?.1.change_lock();
            let changing = lock.clone().lock_owned().await;
            let snapshot = self.catalog.present();
            let (name, base) = self.table(&snapshot, table)?;
            if Arc::ptr_eq(&lock, &base.change_lock()) {
                return Ok(Held { snapshot, name, base, changing });
            }
        }
    }

    /// Rows deleted. Each row of parameters finds what the ones before it left; all of it is published at once.
    pub(super) async fn delete(self: &Arc<Self>, delete: Delete, query: &Query) -> Result<u64> {
        let Held { mut snapshot, name, base, changing } = self.hold(&delete.table, query).await?;
        let Some(predicate) = delete.predicate else { return self.empty(&name, &base) };
        let (mut state, mut deleted) = (base.clone(), 0);
        for query in each(query)? {
            let (alias, predicate) = (delete.alias.clone(), Some(predicate.clone()));
            let found = self.find(snapshot.clone(), &state, alias, predicate, Vec::new(), &query).await?;
            let (segments, rows) = self.without_found(&state, found).await?;
            deleted += rows;
            (snapshot, state) = changed_to(&snapshot, &name, &state, segments);
        }
        self.replace(&name, &base, state.segments().to_vec())?;
        drop(changing);
        self.merge_later(&name);
        Ok(deleted)
    }

    /// The segments of `table` without the rows that were found, and how many those are.
    async fn without_found(&self, table: &Table, found: BatchStream) -> Result<(Vec<Arc<Segment>>, u64)> {
        let _marks = self.budget.reserve(table.rows())?;
        let mut doomed = vec![false; usize::try_from(table.rows()).unwrap_or(usize::MAX)];
        for batch in found.collect().await? {
            for row in batch.column(0).as_primitive::<UInt64Type>().values() {
                doomed[*row as usize] = true;
            }
        }
        let mut rest = doomed.as_slice();
        let mut segments = Vec::new();
        for segment in table.segments() {
            let (these, others) = rest.split_at(segment.rows());
            rest = others;
            segments.extend(self.without(segment, these)?);
        }
        Ok((segments, doomed.iter().filter(|doomed| **doomed).count() as u64))
    }

    /// `segment` without the rows that are marked; none where nothing is left.
    fn without(&self, segment: &Arc<Segment>, doomed: &[bool]) -> Result<Option<Arc<Segment>>> {
        match doomed.iter().filter(|doomed| **doomed).count() {
            0 => Ok(Some(segment.clone())),
            all if all == doomed.len() => Ok(None),
            _ => {
                let kept: BooleanArray = doomed.iter().map(|doomed| Some(!doomed)).collect();
                let batch = filter_record_batch(segment.batch(), &kept).map_err(rewrite_failed)?;
                Ok(Some(Segment::replacing(batch, &self.budget)))
            }
        }
    }

    /// Rows deleted.
    pub(super) async fn truncate(self: &Arc<Self>, truncate: &Truncate, query: &Query) -> Result<u64> {
        let Held { name, base, changing: _changing, .. } = match self.hold(&truncate.table, query).await {
            Err(error) if truncate.if_exists && error.kind() == ErrorKind::NotFound => return Ok(0),
            held => held?,
        };
        self.empty(&name, &base)
    }

    fn empty(&self, name: &str, base: &Arc<Table>) -> Result<u64> {
        self.replace(name, base, Vec::new())?;
        Ok(base.rows())
    }

    /// Rows updated. Each row of parameters finds what the ones before it made; all of it is published at once.
    pub(super) async fn update(self: &Arc<Self>, update: Update, query: &Query) -> Result<u64> {
        let Held { mut snapshot, name, base, changing } = self.hold(&update.table, query).await?;
        let (columns, values): (Vec<_>, Vec<_>) = update.assignments.into_iter().unzip();
        let columns = assigned_columns(base.schema(), &columns)?;
        let (mut state, mut updated) = (base.clone(), 0);
        for query in each(query)? {
            let (alias, predicate) = (update.alias.clone(), update.predicate.clone());
            let found = self.find(snapshot.clone(), &state, alias, predicate, values.clone(), &query).await?;
            let (segments, rows) = self.with_found(&state, found, &columns).await?;
            updated += rows;
            (snapshot, state) = changed_to(&snapshot, &name, &state, segments);
        }
        self.replace(&name, &base, state.segments().to_vec())?;
        drop(changing);
        self.merge_later(&name);
        Ok(updated)
    }

    /// The segments of `table` with the values that were found for `columns`, and how many rows have one.
    async fn with_found(
        &self,
        table: &Table,
        found: BatchStream,
        columns: &[usize],
    ) -> Result<(Vec<Arc<Segment>>, u64)> {
        let (found, _memory) = self.sorted_rows(found).await?;
        let values = columns
            .iter()
            .zip(&found.columns()[1..])
            .map(|(column, value)| assign(value, table.schema().field(*column)))
            .collect::<Result<Vec<_>>>()?;
        let rows = found.column(0).as_primitive::<UInt64Type>().values();
        let mut segments = Vec::new();
        let (mut first, mut at) = (0, 0);
        for segment in table.segments() {
            let end = first + segment.rows() as u64;
            let until = at + rows[at..].partition_point(|row| *row < end);
            segments.push(self.with_values(segment, first, &rows[at..until], at, columns, &values)?);
            (first, at) = (end, until);
        }
        Ok((segments, rows.len() as u64))
    }

    /// `segment`, which begins at row `first`, with `values[at..]` in `columns` of `rows`.
    fn with_values(
        &self,
        segment: &Arc<Segment>,
        first: u64,
        rows: &[u64],
        at: usize,
        columns: &[usize],
        values: &[ArrayRef],
    ) -> Result<Arc<Segment>> {
        if rows.is_empty() {
            return Ok(segment.clone());
        }
        let mut picks: Vec<_> = (0..segment.rows()).map(|row| (0, row)).collect();
        for (offset, row) in rows.iter().enumerate() {
            picks[(row - first) as usize] = (1, at + offset);
        }
        let batch = segment.batch();
        let mut arrays = batch.columns().to_vec();
        for (column, value) in columns.iter().zip(values) {
            arrays[*column] = interleave(&[&arrays[*column], value], &picks).map_err(rewrite_failed)?;
        }
        let batch = RecordBatch::try_new(batch.schema(), arrays).map_err(rewrite_failed)?;
        Segment::try_new(batch, &self.budget)
    }

    /// Numbers of the rows of `base` for which `predicate` is true, each with `values`.
    pub(super) async fn find(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        base: &Arc<Table>,
        alias: Ident,
        predicate: Option<Expr>,
        values: Vec<Expr>,
        query: &Query,
    ) -> Result<BatchStream> {
        let statement = rows_query(alias, predicate, values)?;
        let allowance = self.allowance(query)?;
        let parameters = Parameters::Bound(query.params.clone());
        let request = PlanRequest { statement, target: Some(base.clone()), parameters };
        let prepared = self.prepare_once(request, &snapshot, query).await?;
        let source = PlanInput { snapshot, target: Some(base.clone()), part: None };
        let plan = self.executor.bind(&prepared, source).await?;
        self.executor.run(plan, allowance).await
    }

    /// All of `found`, in the order of its row numbers, and its memory.
    async fn sorted_rows(&self, mut found: BatchStream) -> Result<(RecordBatch, Vec<Reservation>)> {
        let schema = found.schema();
        let (mut batches, mut memory) = (Vec::new(), Vec::new());
        while let Some(batch) = found.next().await {
            let batch = batch?;
            memory.push(self.budget.reserve(batch.get_array_memory_size() as u64)?);
            batches.push(batch);
        }
        let all = concat_batches(&schema, &batches).map_err(rewrite_failed)?;
        let order = sort_to_indices(all.column(0), None, None).map_err(rewrite_failed)?;
        let sorted = take_record_batch(&all, &order).map_err(rewrite_failed)?;
        Ok((sorted, memory))
    }

    /// Puts `segments` in the place of `base`'s; what arrived since stays.
    fn replace(&self, name: &str, base: &Arc<Table>, segments: Vec<Arc<Segment>>) -> Result<()> {
        self.catalog.publish(|present| {
            let now = unchanged(present, name, base)?;
            Ok((vec![(name.to_owned(), Some(now.rewritten(base, segments)))], ()))
        })
    }
}

/// Most rows of parameters of one change: each is a query of its own.
const PARAM_ROWS_MAX: usize = 10_000;

/// `query` with each of its rows of parameters, in the time that is left for all of them.
fn each(query: &Query) -> Result<impl Iterator<Item = Query> + use<>> {
    let rows = query.params.as_ref().map_or(1, RecordBatch::num_rows);
    if rows > PARAM_ROWS_MAX {
        return Err(Error::limit(format!(
            "{rows} rows of parameters came, more than {PARAM_ROWS_MAX}; join with a table"
        )));
    }
    let began = Instant::now();
    let query = query.clone();
    Ok((0..rows).map(move |row| {
        let spent_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let timeout_ms = query.timeout_ms.map(|timeout_ms| timeout_ms.saturating_sub(spent_ms));
        let params = query.params.as_ref().map(|params| params.slice(row, 1));
        Query { params, timeout_ms, ..query.clone() }
    }))
}

/// `table` with other segments, and the state of everything with it.
fn changed_to(
    snapshot: &Snapshot,
    name: &str,
    table: &Arc<Table>,
    segments: Vec<Arc<Segment>>,
) -> (Arc<Snapshot>, Arc<Table>) {
    let table = Arc::new(table.rewritten(table, segments));
    (Arc::new(snapshot.with(name, table.clone())), table)
}

/// The present state of the table that `base` is a state of.
pub(super) fn unchanged<'a>(present: &'a Snapshot, name: &str, base: &Table) -> Result<&'a Arc<Table>> {
    match present.tables().get(name) {
        Some(table) if table.id() == base.id() => Ok(table),
        _ => Err(Error::new(ErrorKind::NotFound, format!("table {name:?} was dropped meanwhile"))),
    }
}

pub(super) fn rewrite_failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("a segment could not be rewritten").with_source(error)
}

/// Position of each of `columns`, which are all there and all different.
pub(super) fn assigned_columns(schema: &Schema, columns: &[Name]) -> Result<Vec<usize>> {
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

/// Position of a column as SQL named it.
///
/// # Errors
///
/// `InvalidQuery`.
pub(super) fn column_index(schema: &Schema, column: &Name) -> Result<usize> {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let found = resolve_name(&column.text, column.quoted, names.clone())?;
    found.and_then(|found| schema.index_of(found).ok()).ok_or_else(|| {
        let hint = match crate::domain::catalog::closest(&column.text, names) {
            Some(close) => format!("; did you mean {close:?}?"),
            None => String::new(),
        };
        Error::invalid(format!("column {:?} not found{hint}", column.text))
    })
}

/// Casts `value` to what a column takes in an assignment, exactly, and never to null.
pub(super) fn assign(value: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let cast = cast_exact(value, field, 0)?;
    if !field.is_nullable() && cast.logical_null_count() > 0 {
        return Err(Error::mismatch(format!("column {:?} may not be null", field.name())));
    }
    Ok(cast)
}
