//! DELETE: finds the rows for which its predicate is true, and masks them.
//!
//! No row is copied: a segment keeps its columns and gets a bit for each of its rows, so a DELETE needs next to no memory.

use crate::domain::catalog::Change;
use crate::domain::engine::Inner;
use crate::domain::engine::statements::answers::{count_description, count_reply};
use crate::domain::engine::statements::matching_rows::per_parameter_row;
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::sql::{Delete, rows_query};
use crate::domain::storage::{DeletionMask, SegmentId, Table};
use crate::ports::{BatchStream, Description, Error, Result};
use arrow::array::{AsArray, BooleanBufferBuilder};
use arrow::datatypes::UInt64Type;
use async_trait::async_trait;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

#[async_trait]
impl Operation for Delete {
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description> {
        if !request.is_unbound() {
            return Ok(count_description("deleted"));
        }
        let table = engine.table(&request.snapshot, &self.table)?;
        let rows = rows_query(self.alias, self.predicate, Vec::new())?;
        let hints = vec![None; request.parameters.len()];
        let (params, _) = engine.prepare_unbound(rows, Some(table), hints, &request).await?;
        Ok(Description { params, ..count_description("deleted") })
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        let locked = engine.lock_table(&self.table, &request.query).await?;
        let Some(predicate) = self.predicate else {
            return Ok(count_reply("deleted", engine.empty_table(&locked).await?));
        };
        let (mut snapshot, mut state) = (locked.snapshot.clone(), locked.base.clone());
        let mut masks = BTreeMap::new();
        // Each row of parameters finds what the ones before it left; all of it is committed at once.
        for query in per_parameter_row(&request.query, engine.time_limit(&request.query))? {
            let rows = rows_query(self.alias.clone(), Some(predicate.clone()), Vec::new())?;
            let found = engine.matching_rows(rows, snapshot.clone(), &state, &query).await?;
            let found = engine.mask_rows(&state, found).await?;
            state = Arc::new(state.mask(&found)?);
            snapshot = Arc::new(snapshot.with(state.clone()));
            // Masks add up: the last one of a segment is the whole one.
            masks.extend(found);
        }
        let deleted = locked.base.rows() - state.rows();
        if !masks.is_empty() {
            let change = Change::Mask { table: locked.reference(), masks: masks.into_iter().collect() };
            engine.commit(locked.commit_of(change)).await?;
        }
        Ok(count_reply("deleted", deleted))
    }
}

impl Inner {
    /// Makes the masks that `found` rows leave of the segments of `table`, for those segments that lose any.
    async fn mask_rows(&self, table: &Table, mut found: BatchStream) -> Result<Vec<(SegmentId, DeletionMask)>> {
        let account = self.allocations.account();
        let rows = usize::try_from(table.physical_rows()).map_err(|_| Error::limit("the table has too many rows"))?;
        let _memory = account.reserve_over_limit(table.physical_rows() / 8);
        let mut deleted = BooleanBufferBuilder::new(rows);
        deleted.append_n(rows, false);
        while let Some(batch) = found.next().await {
            for row in batch?.column(0).as_primitive::<UInt64Type>().values() {
                deleted.set_bit(*row as usize, true);
            }
        }
        let (deleted, mut from) = (deleted.finish(), 0);
        let mut masks = Vec::new();
        for segment in table.segments() {
            let part = deleted.slice(from, segment.physical_rows());
            from += segment.physical_rows();
            if part.count_set_bits() > 0 {
                masks.push((segment.id(), DeletionMask::new(&part, segment.mask(), account)));
            }
        }
        Ok(masks)
    }
}
