//! What the system tables have: made of one state, for one statement.

use crate::domain::catalog::Snapshot;
use crate::domain::engine::Inner;
use crate::domain::sql::{ReadStatement, system_tables_of};
use crate::domain::storage::{Segment, Table};
use crate::ports::{Result, StoredPart};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of a part that one state of a table reads.
#[derive(Debug, Default, Clone, Copy)]
struct PartRows {
    batches: usize,
    rows: usize,
    deleted: usize,
}

impl Inner {
    /// Returns `snapshot` with the system tables that `statement` reads; none where it reads none.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where there is no memory for them.
    pub(in crate::domain::engine) fn with_system_tables(
        &self,
        statement: &ReadStatement,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Option<Arc<Snapshot>>> {
        let mut with = None;
        for name in system_tables_of(statement) {
            let Some(rows) = self.system_rows(&name, snapshot) else { continue };
            let segments = match rows.num_rows() {
                0 => Vec::new(),
                _ => vec![Segment::try_new(rows.clone(), &self.allocations)?],
            };
            let table = Table::new(self.catalog.next_table_id(), &name, rows.schema(), segments);
            with = Some(Arc::new(with.as_ref().unwrap_or(snapshot).with(Arc::new(table))));
        }
        Ok(with)
    }

    fn system_rows(&self, name: &str, snapshot: &Snapshot) -> Option<RecordBatch> {
        let columns = match name {
            "system.tables" => self.tables(snapshot),
            "system.files" => self.files(snapshot),
            "system.writers" => writers(snapshot),
            "system.recovery" => self.recovery(),
            _ => return None,
        };
        RecordBatch::try_from_iter(columns).ok()
    }

    fn tables(&self, snapshot: &Snapshot) -> Vec<(&'static str, ArrayRef)> {
        let tables: Vec<_> = snapshot.tables().collect();
        let durability = match self.flusher.is_some() {
            true => self.options.durability.as_str(),
            false => "none",
        };
        let on_disk = |table: &&Arc<Table>| parts_of(table).keys().map(|part| part.bytes).sum::<u64>();
        let in_memory = |table: &&Arc<Table>| table.segments().iter().map(|segment| segment.bytes()).sum::<u64>();
        vec![
            ("name", texts(tables.iter().map(|table| Some(table.name().to_string())))),
            ("rows", numbers(tables.iter().map(|table| table.rows()))),
            ("memory_bytes", numbers(tables.iter().map(in_memory))),
            ("disk_bytes", numbers(tables.iter().map(on_disk))),
            ("durability", texts(tables.iter().map(|_| Some(durability.to_owned())))),
            ("time_column", texts(tables.iter().map(|table| table.time_column().map(str::to_owned)))),
        ]
    }

    fn files(&self, snapshot: &Snapshot) -> Vec<(&'static str, ArrayRef)> {
        let of = |table: &Arc<Table>| {
            parts_of(table).into_iter().map(|(part, rows)| (table.name().to_string(), part, rows)).collect::<Vec<_>>()
        };
        let files: Vec<_> = snapshot.tables().flat_map(of).collect();
        let path = |part: &StoredPart| self.flusher.as_ref().map(|flusher| flusher.store().path(part));
        vec![
            ("table", texts(files.iter().map(|(table, ..)| Some(table.clone())))),
            ("path", texts(files.iter().map(|(_, part, _)| path(part)))),
            ("bytes", numbers(files.iter().map(|(_, part, _)| part.bytes))),
            ("batches", numbers(files.iter().map(|(.., rows)| rows.batches as u64))),
            ("rows", numbers(files.iter().map(|(.., rows)| rows.rows as u64))),
            ("deleted_rows", numbers(files.iter().map(|(.., rows)| rows.deleted as u64))),
        ]
    }

    fn recovery(&self) -> Vec<(&'static str, ArrayRef)> {
        let recovery = self.catalog.recovery();
        let rows = usize::from(self.flusher.is_some());
        let one = |number: u64| numbers(std::iter::repeat_n(number, rows));
        let checkpoint: UInt64Array = std::iter::repeat_n(recovery.checkpoint.map(|lsn| lsn.0), rows).collect();
        vec![
            ("checkpoint_lsn", Arc::new(checkpoint)),
            ("commits", one(recovery.commits)),
            ("lsn", Arc::new(UInt64Array::from_iter_values(std::iter::repeat_n(recovery.lsn.0, rows)))),
            ("took_ms", one(recovery.took_ms)),
        ]
    }
}

fn writers(snapshot: &Snapshot) -> Vec<(&'static str, ArrayRef)> {
    let of = |table: &Arc<Table>| {
        let mut states: Vec<_> = table.writers().states().cloned().collect();
        states.sort_unstable_by(|a, b| a.writer.cmp(&b.writer));
        states.into_iter().map(|state| (table.name().to_string(), state)).collect::<Vec<_>>()
    };
    let writers: Vec<_> = snapshot.tables().flat_map(of).collect();
    let times = TimestampMicrosecondArray::from_iter_values(writers.iter().map(|(_, state)| state.time_us));
    vec![
        ("table", texts(writers.iter().map(|(table, _)| Some(table.clone())))),
        ("writer", texts(writers.iter().map(|(_, state)| Some(state.writer.clone())))),
        ("epoch", numbers(writers.iter().map(|(_, state)| state.epoch))),
        ("sequence", numbers(writers.iter().map(|(_, state)| state.sequence))),
        ("offset", texts(writers.iter().map(|(_, state)| state.offset.clone()))),
        ("rows", numbers(writers.iter().map(|(_, state)| state.rows))),
        ("last_commit", Arc::new(times)),
    ]
}

/// Returns the parts that a state of a table reads, in the order of their numbers.
fn parts_of(table: &Table) -> BTreeMap<StoredPart, PartRows> {
    let mut parts: BTreeMap<StoredPart, PartRows> = BTreeMap::new();
    for segment in table.segments() {
        if let Some(place) = segment.columns().place() {
            let rows = parts.entry(place.part.part).or_default();
            rows.batches += 1;
            rows.rows += segment.rows();
            rows.deleted += segment.physical_rows() - segment.rows();
        }
    }
    parts
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|value| i64::try_from(value).unwrap_or(i64::MAX))))
}
