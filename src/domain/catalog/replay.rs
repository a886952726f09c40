//! From the journal to tables: every commit that was taken down, applied again.
//!
//! Effects name everything by ids, so nothing is decided anew: what a replay comes to is what was there, row by row in the same
//! order. Segments are compacted on the way as they are while the server runs: a million commits of one row each would
//! otherwise be a million segments, each of which makes the next commit slower.

use crate::domain::catalog::snapshot::Snapshot;
use crate::domain::storage::{
    ALL_WRITERS, Allocations, Reshape, RowValues, Segment, SegmentId, Table, compact, compactable_run,
};
use crate::ports::{Checkpoint, Effect, Entry, Error, Journal, Lsn, Result, Store, TableDefinition};
use arrow::array::RecordBatch;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Applies all that `journal` has to the newest checkpoint of `store`.
///
/// # Errors
///
/// The store's and the journal's, and `Internal` for an effect that does not fit what came before
/// it.
pub fn replay(journal: &dyn Journal, store: Option<&Arc<dyn Store>>, allocations: &Allocations) -> Result<Replayed> {
    let newest = match store {
        Some(store) => store.newest()?.map(|checkpoint| (checkpoint, store)),
        None => None,
    };
    let recorded = journal.recorded(newest.as_ref().map(|(checkpoint, _)| checkpoint.lsn))?;
    let state = Snapshot::empty(recorded.before.0);
    let replayed = Replayed { state, next_table_id: 1, time_us: i64::MIN, commits: 0, began_with: None };
    let unlimited = allocations.without_limit();
    let mut replay = Replay { replayed, names: HashMap::new(), apart: HashSet::new(), allocations: &unlimited };
    if let Some((checkpoint, store)) = newest {
        replay.begin(checkpoint, store)?;
    }
    for entry in recorded.entries {
        replay.entry(entry?)?;
    }
    Ok(replay.replayed)
}

/// What a journal comes to.
#[derive(Debug)]
pub struct Replayed {
    /// All tables, as they were.
    pub state: Snapshot,
    /// The id that the next table gets.
    pub next_table_id: u64,
    /// When the last commit was made.
    pub time_us: i64,
    /// How many commits the journal had.
    pub commits: u64,
    /// The commit of the checkpoint that it begins with.
    pub began_with: Option<Lsn>,
}

struct Replay<'a> {
    replayed: Replayed,
    /// Names of the tables that are there, by their ids.
    names: HashMap<u64, Arc<str>>,
    /// The first and last segments of runs that cannot be put together: trying costs a copy each time.
    apart: HashSet<(SegmentId, SegmentId)>,
    allocations: &'a Allocations,
}

impl Replay<'_> {
    /// Begins with the tables of a checkpoint.
    fn begin(&mut self, checkpoint: Checkpoint, store: &Arc<dyn Store>) -> Result<()> {
        let Checkpoint { lsn, time_us, next_table_id, tables } = checkpoint;
        self.replayed =
            Replayed { state: Snapshot::empty(lsn.0), next_table_id, time_us, commits: 0, began_with: Some(lsn) };
        for stored in &tables {
            let table = Table::of_stored(stored, store, self.allocations)?;
            self.names.insert(table.id().0, table.name().clone());
            self.replayed.state.put(Arc::new(table));
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let lsn = entry.lsn;
        self.replayed.state = std::mem::take(&mut self.replayed.state).numbered(lsn.0);
        self.replayed.time_us = entry.time_us;
        self.replayed.commits += 1;
        for effect in entry.effects {
            self.effect(effect).map_err(|error| {
                Error::new(error.kind(), format!("commit {lsn} cannot be read again: {}", error.message()))
            })?;
        }
        Ok(())
    }

    fn effect(&mut self, effect: Effect) -> Result<()> {
        let next = match effect {
            Effect::Create { definition, replaced, batches } => {
                if let Some(replaced) = replaced {
                    self.remove(replaced)?;
                }
                self.create(&definition, batches)?
            }
            Effect::Append { table, first_row, batches } => {
                let present = self.table(table)?;
                if present.next_row_id() != first_row {
                    let expected = present.next_row_id();
                    return Err(Error::internal(format!("rows begin at {first_row}, not at {expected}")));
                }
                present.append(&self.segments(batches)?)
            }
            Effect::Erase { table, rows } => self.table(table)?.erase(&rows, self.allocations.account()),
            Effect::Update { table, rows, columns, values } => {
                let present = self.table(table)?;
                let columns = columns.iter().map(|id| column(present, *id)).collect::<Result<_>>()?;
                let rows = present.positions(&rows);
                if rows.len() != values.num_rows() {
                    return Err(Error::internal(format!("{} values for {} rows", values.num_rows(), rows.len())));
                }
                RowValues { rows, columns, values: values.columns().to_vec() }.put_into(present, self.allocations)?
            }
            Effect::Writer { table, state } => {
                let present = self.table(table)?;
                let writers =
                    present.writers().with(state, ALL_WRITERS, &self.allocations.account().without_limit())?;
                Table::clone(present).with_writers(writers)
            }
            Effect::Alter { definition } => self.alter(&definition)?,
            Effect::Drop { table } => return self.remove(table),
        };
        let next = self.compacted(next)?;
        self.replayed.state.put(Arc::new(next));
        Ok(())
    }

    fn table(&self, id: u64) -> Result<&Arc<Table>> {
        let table = self.names.get(&id).and_then(|name| self.replayed.state.get(name));
        table.ok_or_else(|| Error::internal(format!("there is no table of id {id}")))
    }

    fn remove(&mut self, id: u64) -> Result<()> {
        let name = self.names.remove(&id).ok_or_else(|| Error::internal(format!("there is no table of id {id}")))?;
        self.replayed.state.remove(&name);
        Ok(())
    }

    fn create(&mut self, definition: &TableDefinition, batches: Vec<RecordBatch>) -> Result<Table> {
        let next_table_id = &mut self.replayed.next_table_id;
        *next_table_id = (*next_table_id).max(definition.id.saturating_add(1));
        let table = Table::of_definition(definition).counted_in(&self.allocations.account().without_limit())?;
        self.names.insert(definition.id, table.name().clone());
        Ok(table.append(&self.segments(batches)?))
    }

    fn segments(&self, batches: Vec<RecordBatch>) -> Result<Vec<Arc<Segment>>> {
        batches.into_iter().map(|batch| Segment::try_new(batch, self.allocations)).collect()
    }

    fn alter(&self, definition: &TableDefinition) -> Result<Table> {
        let present = self.table(definition.id)?;
        let source = |id: &u32| present.column_ids().iter().position(|before| before == id);
        let sources = definition.column_ids.iter().map(source).collect();
        let reshape = Reshape::new(definition.schema.clone(), sources);
        let reshaped = reshape.segments(present.segments(), self.allocations)?;
        let next = present.alter(&reshape, &reshaped, self.allocations)?;
        if next.definition() != *definition {
            return Err(Error::internal(format!("table {:?} would get other columns", definition.name)));
        }
        Ok(next)
    }

    /// Puts segments together as long as that pays; those that cannot be stay.
    fn compacted(&mut self, mut table: Table) -> Result<Table> {
        let mut from = 0;
        while let Some(run) = compactable_run(&table.segments()[from..]) {
            let run = from + run.start..from + run.end;
            let segments = &table.segments()[run.clone()];
            let removed: Vec<_> = segments.iter().map(|segment| segment.id()).collect();
            let ends = (removed[0], removed[removed.len() - 1]);
            match (!self.apart.contains(&ends)).then(|| compact(segments, self.allocations)) {
                Some(Ok(compacted)) => table = table.replace(&removed, &[compacted])?,
                Some(Err(_)) | None => {
                    self.apart.insert(ends);
                    from = run.end;
                }
            }
        }
        Ok(table)
    }
}

fn column(table: &Table, id: u32) -> Result<usize> {
    let found = table.column_ids().iter().position(|known| *known == id);
    found.ok_or_else(|| Error::internal(format!("table {:?} has no column of id {id}", table.name())))
}
