//! UPDATE: finds the rows for which its predicate is true with their new values, and makes the segments that hold such rows
//! anew. Their other columns are shared with the segments before; order stays.

use crate::domain::catalog::{Change, Commit};
use crate::domain::engine::Inner;
use crate::domain::engine::parameters::type_hints;
use crate::domain::engine::statements::answers::{count_description, count_reply};
use crate::domain::engine::statements::matching_rows::{
    assign, column_index, column_indices, per_parameter_row, rewrite_failed,
};
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::engine::table_lock::LockedTable;
use crate::domain::sql::{Update, rows_query};
use crate::domain::storage::{RowValues, Table, slice_bytes};
use crate::ports::{BatchStream, Description, Reservation, Result};
use arrow::array::AsArray;
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::UInt64Type;
use async_trait::async_trait;
use futures::StreamExt;
use std::sync::Arc;

/// New values, and the memory that they take.
struct NewValues {
    values: RowValues,
    _memory: Vec<Reservation>,
}

#[async_trait]
impl Operation for Update {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        if !request.is_unbound() {
            return Ok(count_description("updated"));
        }
        let table = engine.table(&request.snapshot, &self.table)?;
        let assigned = self.assignments.iter().map(|(column, value)| {
            Ok((table.schema().field(column_index(table.schema(), column)?).data_type().clone(), value.clone()))
        });
        let hints = type_hints(request.parameters.len(), assigned.collect::<Result<Vec<_>>>()?.into_iter());
        let values = self.assignments.into_iter().map(|(_, value)| value).collect();
        let rows = rows_query(self.alias, self.predicate, values)?;
        let (params, _) = engine.prepare_unbound(rows, Some(table), hints, &request).await?;
        Ok(Description { params, ..count_description("updated") })
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        let locked = engine.lock_table(&self.table, &request.query).await?;
        let (names, exprs): (Vec<_>, Vec<_>) = self.assignments.into_iter().unzip();
        let columns = column_indices(locked.base.schema(), &names)?;
        let (mut snapshot, mut state, mut updated) = (locked.snapshot.clone(), locked.base.clone(), 0);
        let mut steps = Vec::new();
        // Each row of parameters finds what the ones before it made; all of it is committed at once.
        for query in per_parameter_row(&request.query, engine.time_limit(&request.query))? {
            let rows = rows_query(self.alias.clone(), self.predicate.clone(), exprs.clone())?;
            let found = engine.matching_rows(rows, snapshot.clone(), &state, &query).await?;
            let new = engine.new_values(&state, found, &columns).await?;
            updated += new.values.rows.len() as u64;
            state = Arc::new(new.values.put_into(&state, &engine.allocations)?);
            snapshot = Arc::new(snapshot.with(state.clone()));
            steps.push(new);
        }
        let values = steps.iter().map(|step| step.values.clone()).collect();
        engine.commit(replaced_segments(&locked, &state, values)).await?;
        Ok(count_reply("updated", updated))
    }
}

/// Makes the commit of an UPDATE, in which each segment of `state` stands for one of the locked table: one change from the
/// first that differs to the last.
fn replaced_segments(locked: &LockedTable, state: &Table, values: Vec<RowValues>) -> Commit {
    let (before, after) = (locked.base.segments(), state.segments());
    let differs = |at: &usize| before[*at].id() != after[*at].id();
    let (Some(first), Some(last)) = ((0..before.len()).find(differs), (0..before.len()).rfind(differs)) else {
        return Commit::default();
    };
    let removed = before[first..=last].iter().map(|segment| segment.id()).collect();
    let added = after[first..=last].to_vec();
    locked.commit_of(Change::Update { table: locked.reference(), removed, added, values })
}

impl Inner {
    /// Collects `found` rows, whose first column is their number, in the order of those.
    async fn new_values(&self, table: &Table, mut found: BatchStream, columns: &[usize]) -> Result<NewValues> {
        let (schema, account) = (found.schema(), self.allocations.account());
        let (mut batches, mut memory) = (Vec::new(), Vec::new());
        while let Some(batch) = found.next().await {
            let batch = batch?;
            let bytes = batch.columns().iter().map(|column| slice_bytes(column.as_ref())).sum();
            memory.push(account.reserve(bytes)?);
            batches.push(batch);
        }
        // One copy to put them together, one to order them, one to cast them; the last one stays.
        let bytes: u64 = memory.iter().map(Reservation::bytes).sum();
        let _copies = account.reserve(bytes.saturating_mul(2))?;
        let all = concat_batches(&schema, &batches).map_err(rewrite_failed)?;
        drop(batches);
        let order = sort_to_indices(all.column(0), None, None).map_err(rewrite_failed)?;
        let sorted = take_record_batch(&all, &order).map_err(rewrite_failed)?;
        drop(all);
        let fields = columns.iter().map(|column| table.schema().field(*column));
        let values = fields.zip(&sorted.columns()[1..]).map(|(field, value)| assign(value, field));
        let values = RowValues {
            rows: sorted.column(0).as_primitive::<UInt64Type>().values().to_vec(),
            columns: columns.to_vec(),
            values: values.collect::<Result<_>>()?,
        };
        Ok(NewValues { values, _memory: memory })
    }
}
