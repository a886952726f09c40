//! One state of one table: its schema and its segments, in arrival order.
//!
//! States are values: an operation makes the next state and leaves this one as it is. Appends may happen at any time;
//! whatever rewrites segments (DELETE, UPDATE, ALTER, compaction) holds the table's change lock, so the segments that it
//! began with are still there, in the same order, in the state that it changes.

use crate::domain::storage::allocations::Allocations;
use crate::domain::storage::deletion_mask::DeletionMask;
use crate::domain::storage::reshape::Reshape;
use crate::domain::storage::segment::{Segment, SegmentId};
use crate::domain::storage::symbols::SymbolTable;
use crate::domain::storage::wanted_symbols::WantedSymbols;
use crate::domain::storage::writers::Writers;
use crate::ports::{Error, MemoryAccount, Reservation, Result, TableDefinition};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Names a table for as long as it exists; another table of the same name has another one. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u64);

/// One state of a table.
#[derive(Debug, Clone)]
pub struct Table {
    id: TableId,
    name: Arc<str>,
    schema: SchemaRef,
    /// The ids of its columns, which are never used again in it.
    column_ids: Arc<[u32]>,
    next_column_id: u32,
    /// The id that the next row gets: one more than all before it, whether those are still there or not.
    next_row_id: u64,
    /// The time column that its definition names.
    declared_time: Option<Arc<str>>,
    segments: Vec<Arc<Segment>>,
    rows: u64,
    physical_rows: u64,
    change_lock: Arc<Mutex<()>>,
    symbols: Arc<WantedSymbols>,
    writers: Writers,
    /// Memory of its schema, which no column holds; none for a table of one query.
    schema_memory: Option<Arc<Reservation>>,
}

/// Names that a time column has by custom, the first that is there.
pub const TIME_NAMES: [&str; 4] = ["timestamp", "timestamp_ns", "ts", "time"];

/// Returns the bytes that the names and metadata of columns take, nested ones included.
pub fn schema_bytes(schema: &Schema) -> u64 {
    let of = |field: &Field| {
        let metadata: usize = field.metadata().iter().map(|(key, value)| key.len() + value.len()).sum();
        (size_of::<Field>() + field.name().len() + metadata) as u64
    };
    schema.flattened_fields().into_iter().map(of).sum()
}

impl Table {
    /// Makes a table of new rows.
    pub fn new(id: TableId, name: &str, schema: SchemaRef, segments: Vec<Arc<Segment>>) -> Self {
        let columns = u32::try_from(schema.fields().len()).unwrap_or(u32::MAX);
        let empty = Self {
            id,
            name: name.into(),
            schema,
            column_ids: (0..columns).collect(),
            next_column_id: columns,
            next_row_id: 0,
            declared_time: None,
            segments: Vec::new(),
            rows: 0,
            physical_rows: 0,
            change_lock: Arc::default(),
            symbols: Arc::default(),
            writers: Writers::default(),
            schema_memory: None,
        };
        empty.append(&segments)
    }

    /// Makes the table of a definition, without rows.
    pub fn of_definition(definition: &TableDefinition) -> Self {
        let table = Self::new(TableId(definition.id), &definition.name, definition.schema.clone(), Vec::new());
        Self {
            column_ids: definition.column_ids.as_slice().into(),
            next_column_id: definition.next_column_id,
            declared_time: definition.time_column.as_deref().map(Arc::from),
            ..table
        }
    }

    /// Returns what it is, without its rows.
    pub fn definition(&self) -> TableDefinition {
        TableDefinition {
            id: self.id.0,
            name: self.name.to_string(),
            schema: self.schema.clone(),
            column_ids: self.column_ids.to_vec(),
            next_column_id: self.next_column_id,
            time_column: self.declared_time().map(str::to_owned),
        }
    }

    /// Returns the ids of its columns, in their order.
    pub fn column_ids(&self) -> &[u32] {
        &self.column_ids
    }

    /// Returns how far its writers have come.
    pub fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Returns the state with other writers.
    #[must_use]
    pub fn with_writers(self, writers: Writers) -> Self {
        Self { writers, ..self }
    }

    /// Returns the state whose next row gets an id.
    pub(super) fn with_next_row_id(self, next_row_id: u64) -> Self {
        Self { next_row_id, ..self }
    }

    /// Returns the id that the next row gets.
    pub fn next_row_id(&self) -> u64 {
        self.next_row_id
    }

    /// Counts the table's schema in the account.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory is not free.
    pub fn counted_in(self, account: &MemoryAccount) -> Result<Self> {
        let memory = account.reserve(schema_bytes(&self.schema))?;
        Ok(Self { schema_memory: Some(Arc::new(memory)), ..self })
    }

    /// Makes `column` its time column.
    #[must_use]
    pub fn with_time(self, column: &str) -> Self {
        Self { declared_time: Some(column.into()), ..self }
    }

    /// Returns the time column that its definition names; none where it names none.
    pub fn declared_time(&self) -> Option<&str> {
        self.declared_time.as_deref()
    }

    /// Returns its time column: the one that its definition names, else the first TIMESTAMP of a customary name, else the first
    /// TIMESTAMP.
    pub fn time_column(&self) -> Option<&str> {
        let times = || self.schema.fields().iter().filter(|field| matches!(field.data_type(), DataType::Timestamp(..)));
        let named = TIME_NAMES.iter().find_map(|name| times().find(|field| field.name().eq_ignore_ascii_case(name)));
        self.declared_time().or_else(|| named.or_else(|| times().next()).map(|field| field.name().as_str()))
    }

    /// Returns which table this is a state of.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// Returns its exact name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns its segments, in arrival order.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Returns the number of its rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the number of its rows, with those that are deleted but not yet compacted away.
    pub fn physical_rows(&self) -> u64 {
        self.physical_rows
    }

    /// Returns about how many bytes its rows have, in memory or on the disk.
    pub fn data_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.columns().data_bytes()).sum()
    }

    /// Returns the symbols of a column, where every segment has codes for it; none where it has none, codes were given up, or they
    /// are not there yet. Those of few rows are made at once, of more by [`Table::encode_wanted`].
    pub fn symbols(&self, index: usize) -> Option<Arc<SymbolTable>> {
        self.symbols.of_column(index, &self.schema, &self.segments)
    }

    /// Makes the codes that somebody asked for and that are not there yet, which takes some tens of nanoseconds a row; nothing where
    /// somebody is at it.
    pub fn encode_wanted(&self) {
        self.symbols.encode_wanted(&self.schema, &self.segments);
    }

    /// Returns whether codes were asked for that are not there yet and could be.
    pub fn wants_codes(&self) -> bool {
        self.symbols.wants_codes(&self.schema, &self.segments)
    }

    /// Forgets the codes of all segments, and what symbols there are; returns whether that freed anything. They are made again when they
    /// are asked for and there is more memory than they took.
    pub fn forget_codes(&self) -> bool {
        self.symbols.forget_codes(&self.segments)
    }

    /// Returns the lock that serialises what rewrites segments; all states of the table share it.
    pub fn change_lock(&self) -> Arc<Mutex<()>> {
        self.change_lock.clone()
    }

    /// Returns the state after `segments` arrived, whose rows get their ids here.
    pub fn append(&self, segments: &[Arc<Segment>]) -> Self {
        let mut next_row_id = self.next_row_id;
        let placed = segments.iter().map(|segment| {
            let placed = segment.placed(next_row_id);
            next_row_id += segment.physical_rows() as u64;
            placed
        });
        let segments = self.segments.iter().cloned().chain(placed).collect();
        Self { next_row_id, ..self.with_segments(segments) }
    }

    /// Returns the state in which only the rows of `masks` are left in those segments; a segment without rows goes.
    ///
    /// # Errors
    ///
    /// `Internal` where a segment is not there: somebody rewrote it without the change lock.
    pub fn mask(&self, masks: &[(SegmentId, DeletionMask)]) -> Result<Self> {
        let mut wanted: HashMap<_, _> = masks.iter().map(|(id, mask)| (*id, mask)).collect();
        let mut segments = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            match wanted.remove(&segment.id()) {
                None => segments.push(segment.clone()),
                Some(mask) if mask.rows() > 0 => segments.push(segment.masked(mask.clone())),
                Some(_) => {}
            }
        }
        if wanted.is_empty() { Ok(self.with_segments(segments)) } else { Err(lost_segment()) }
    }

    /// Returns the state in which `added` stand in the place of `removed`, which are neighbours in this order.
    ///
    /// # Errors
    ///
    /// `Internal` where they are not there: somebody rewrote them without the change lock.
    pub fn replace(&self, removed: &[SegmentId], added: &[Arc<Segment>]) -> Result<Self> {
        let Some(first) = removed.first() else { return Ok(self.append(added)) };
        let from = self.segments.iter().position(|segment| segment.id() == *first).ok_or_else(lost_segment)?;
        let run = self.segments.get(from..from + removed.len()).ok_or_else(lost_segment)?;
        if !run.iter().map(|segment| segment.id()).eq(removed.iter().copied()) {
            return Err(lost_segment());
        }
        let mut segments = self.segments.clone();
        segments.splice(from..from + removed.len(), added.iter().cloned());
        Ok(self.with_segments(segments))
    }

    /// Returns the state with other columns. `reshaped` are the first segments, reshaped already; what arrived since is
    /// reshaped here.
    ///
    /// # Errors
    ///
    /// Those of [`Reshape`], and `Internal` where the first segments are others.
    pub fn alter(&self, reshape: &Reshape, reshaped: &[Arc<Segment>], allocations: &Allocations) -> Result<Self> {
        let ids = |segments: &[Arc<Segment>]| segments.iter().map(|segment| segment.id()).collect::<Vec<_>>();
        let first = self.segments.get(..reshaped.len()).ok_or_else(lost_segment)?;
        if ids(first) != ids(reshaped) {
            return Err(lost_segment());
        }
        reshape.check_rows(self.rows)?;
        let mut segments = reshaped.to_vec();
        segments.extend(reshape.segments(&self.segments[reshaped.len()..], allocations)?);
        let declared_time = self.declared_time().and_then(|name| reshape.renamed(self.schema.index_of(name).ok()?));
        let schema = reshape.schema().clone();
        let mut next_column_id = self.next_column_id;
        let column_id = |source: &Option<usize>| match source {
            Some(before) => self.column_ids[*before],
            None => {
                next_column_id += 1;
                next_column_id - 1
            }
        };
        let column_ids = reshape.sources().iter().map(column_id).collect();
        let declared_time = declared_time.map(Arc::from);
        let table = Self { schema, column_ids, next_column_id, declared_time, ..self.with_segments(segments) };
        table.counted_in(allocations.asked())
    }

    /// Returns the state with other segments, whose rows have their ids already.
    pub(super) fn with_segments(&self, segments: Vec<Arc<Segment>>) -> Self {
        let rows = segments.iter().map(|segment| segment.rows() as u64).sum();
        let physical_rows = segments.iter().map(|segment| segment.physical_rows() as u64).sum();
        Self {
            id: self.id,
            name: self.name.clone(),
            schema: self.schema.clone(),
            column_ids: self.column_ids.clone(),
            next_column_id: self.next_column_id,
            next_row_id: self.next_row_id,
            declared_time: self.declared_time.clone(),
            segments,
            rows,
            physical_rows,
            change_lock: self.change_lock.clone(),
            symbols: self.symbols.clone(),
            writers: self.writers.clone(),
            schema_memory: self.schema_memory.clone(),
        }
    }
}

fn lost_segment() -> Error {
    Error::internal("segments were rewritten without the table's change lock")
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::allocations::Allocations;
    use crate::domain::storage::deletion_mask::DeletionMask;
    use crate::domain::storage::segment::Segment;
    use crate::domain::storage::table::{Table, TableId};
    use crate::ports::{ErrorKind, MemoryAccount};
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::buffer::BooleanBuffer;
    use std::sync::Arc;

    fn segment(rows: i64, allocations: &Allocations) -> Arc<Segment> {
        let column = Int64Array::from_iter_values(0..rows);
        Segment::try_new(RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap(), allocations).unwrap()
    }

    #[test]
    fn states_keep_order_and_count_what_is_left() {
        let allocations = Allocations::new(MemoryAccount::default());
        let parts: Vec<_> = [3, 4, 5].map(|rows| segment(rows, &allocations)).into();
        let table = Table::new(TableId(1), "t", parts[0].columns().schema().clone(), parts.clone());
        let mask = |deleted: &[usize], rows| {
            let marks = BooleanBuffer::collect_bool(rows, |row| deleted.contains(&row));
            DeletionMask::new(&marks, None, allocations.account())
        };
        let masked = table.mask(&[(parts[0].id(), mask(&[0, 1, 2], 3)), (parts[2].id(), mask(&[4], 5))]).unwrap();
        assert_eq!((masked.rows(), masked.physical_rows(), masked.segments().len()), (8, 9, 2));
        assert_eq!(masked.segments()[1].id(), parts[2].id());
        assert_eq!(table.rows(), 12);
        let other = segment(1, &allocations);
        let replaced = table.replace(&[parts[0].id(), parts[1].id()], std::slice::from_ref(&other)).unwrap();
        assert_eq!(replaced.segments().iter().map(|segment| segment.rows()).collect::<Vec<_>>(), [1, 5]);
        let lost = replaced.replace(&[parts[1].id()], &[]).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Internal);
        assert!(table.replace(&[parts[0].id(), parts[2].id()], &[]).is_err(), "they are no neighbours");
    }
}
