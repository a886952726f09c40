//! A table of a checkpoint as bytes: a head in JSON, the table's schema, and a row for each of its batches.
//!
//! What is known of columns has their own types, so a list of a million batches is read as columns are. A list never changes:
//! a table that did not change between two checkpoints has the same one in both.

use crate::adapters::disk::heads::{TableHead, WriterHead};
use crate::adapters::disk::sections::{Body, Section, Sections, ids_of_bytes, ids_to_bytes, unreadable};
use crate::ports::{ColumnFacts, Error, Result, StoredBatch, StoredPart, StoredTable};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListArray, NullArray, RecordBatch, UInt8Array, UInt32Array, UInt64Array,
    new_null_array,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, UInt8Type, UInt32Type, UInt64Type};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a column's bounds that are written down at most: longer ones are not worth it.
const BOUNDS_BYTES_MAX: usize = 4 << 10;

/// Columns of a list before those of the table's columns: part, batch, rows, sources, ids, deleted.
const OWN_COLUMNS: usize = 6;

/// Columns of a list for each column of the table: least, most, nulls, flags.
const FACT_COLUMNS: usize = 4;

const HAS_SIGNED_NAN: u8 = 1;
const IS_IN_ORDER: u8 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListHead {
    table: TableHead,
    next_row_id: u64,
    writers: Vec<WriterHead>,
    parts: Vec<PartHead>,
    schema: Section,
    batches: Section,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartHead {
    id: u64,
    batches: u32,
    bytes: u64,
    digest: u64,
}

/// Writes a table down.
///
/// # Errors
///
/// `Internal` for a schema that Arrow IPC cannot carry, of which no table is.
pub fn list_to_bytes(table: &StoredTable) -> Result<Vec<u8>> {
    let StoredTable { definition, next_row_id, writers, batches } = table;
    let mut body = Body::default();
    let schema = body.stream(&definition.schema, &[])?;
    let rows = rows_of(table)?;
    let rows = body.stream(&rows.schema(), std::slice::from_ref(&rows))?;
    let mut parts: Vec<StoredPart> = batches.iter().map(|batch| batch.part).collect();
    parts.sort_unstable_by_key(|part| part.id);
    parts.dedup();
    let part =
        |part: StoredPart| PartHead { id: part.id, batches: part.batches, bytes: part.bytes, digest: part.digest };
    let head = ListHead {
        table: TableHead::of(definition),
        next_row_id: *next_row_id,
        writers: writers.iter().map(WriterHead::of).collect(),
        parts: parts.into_iter().map(part).collect(),
        schema,
        batches: rows,
    };
    let head = serde_json::to_vec(&head)
        .map_err(|error| Error::internal("a table could not be written down").with_source(error))?;
    let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&head);
    body.into_pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
    Ok(bytes)
}

/// Reads a table as it was written down.
///
/// # Errors
///
/// `Internal` for anything else.
pub fn list_of_bytes(bytes: Bytes) -> Result<StoredTable> {
    let too_short = || unreadable("it is too short");
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(too_short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
    let length = length.ok_or_else(too_short)?;
    let head: ListHead = serde_json::from_slice(&rest[..length]).map_err(|error| unreadable(&error.to_string()))?;
    let mut sections = Sections::of(bytes.slice(8 + length..));
    let definition = head.table.with_schema(sections.stream(head.schema)?.0);
    let rows = sections.stream(head.batches)?.1;
    let part = |part: PartHead| {
        let PartHead { id, batches, bytes, digest } = part;
        (id, StoredPart { id, table: definition.id, batches, bytes, digest })
    };
    let parts: HashMap<_, _> = head.parts.into_iter().map(part).collect();
    let batches = match rows.as_slice() {
        [] => Vec::new(),
        [rows] => batches_of(rows, definition.schema.fields().len(), &parts)?,
        _ => return Err(unreadable("a table has several lists")),
    };
    let writers = head.writers.into_iter().map(WriterHead::into_state).collect();
    Ok(StoredTable { definition, next_row_id: head.next_row_id, writers, batches })
}

/// Makes a row of each batch of a table.
fn rows_of(table: &StoredTable) -> Result<RecordBatch> {
    let batches = &table.batches;
    let sources = batches.iter().map(|batch| Some(batch.sources.iter().copied()));
    let deleted = |batch: &StoredBatch| {
        let runs: Vec<_> = batch.deleted.iter().map(|run| run.start as u64..run.end as u64).collect();
        ids_to_bytes(&runs)
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(batches.iter().map(|batch| Some(batch.part.id)).collect::<UInt64Array>()),
        Arc::new(batches.iter().map(|batch| Some(batch.batch)).collect::<UInt32Array>()),
        Arc::new(batches.iter().map(|batch| Some(batch.rows as u64)).collect::<UInt64Array>()),
        Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(sources)),
        Arc::new(BinaryArray::from_iter_values(batches.iter().map(|batch| ids_to_bytes(&batch.row_ids)))),
        Arc::new(BinaryArray::from_iter_values(batches.iter().map(deleted))),
    ];
    for at in 0..table.definition.schema.fields().len() {
        let facts: Vec<_> = batches.iter().filter_map(|batch| batch.facts.get(at)).collect();
        if facts.len() < batches.len() {
            return Err(Error::internal("a batch has facts of too few columns"));
        }
        let flags = |facts: &&ColumnFacts| {
            Some(u8::from(facts.has_signed_nan) * HAS_SIGNED_NAN + u8::from(facts.is_in_order) * IS_IN_ORDER)
        };
        columns.push(bound(&facts, 0)?);
        columns.push(bound(&facts, 1)?);
        columns.push(Arc::new(facts.iter().map(|facts| Some(facts.null_count as u64)).collect::<UInt64Array>()));
        columns.push(Arc::new(facts.iter().map(flags).collect::<UInt8Array>()));
    }
    let fields: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| Field::new(at.to_string(), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::internal("a list could not be made").with_source(error))
}

/// Returns the least (`end` 0) or largest (1) values of a column of all batches.
fn bound(facts: &[&ColumnFacts], end: usize) -> Result<ArrayRef> {
    let kept = |facts: &ColumnFacts| {
        facts.bounds.clone().filter(|bounds| bounds.to_data().get_slice_memory_size().unwrap_or(0) <= BOUNDS_BYTES_MAX)
    };
    let kept: Vec<_> = facts.iter().map(|facts| kept(facts)).collect();
    let Some(data_type) = kept.iter().flatten().next().map(|bounds| bounds.data_type().clone()) else {
        return Ok(Arc::new(NullArray::new(facts.len())));
    };
    let unknown = new_null_array(&data_type, 1);
    let value = |bounds: &Option<ArrayRef>| bounds.as_ref().map_or_else(|| unknown.clone(), |both| both.slice(end, 1));
    let values: Vec<_> = kept.iter().map(value).collect();
    concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())
        .map_err(|error| Error::internal("bounds could not be put together").with_source(error))
}

fn batches_of(rows: &RecordBatch, columns: usize, parts: &HashMap<u64, StoredPart>) -> Result<Vec<StoredBatch>> {
    let wrong = || unreadable("a list has other columns");
    let number = |at: usize| rows.columns().get(at).and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let binary = |at: usize| rows.columns().get(at).and_then(|column| column.as_binary_opt::<i32>());
    let (part_ids, lengths) = (number(0).ok_or_else(wrong)?, number(2).ok_or_else(wrong)?);
    let numbers = rows.columns()[1].as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
    let sources = rows.columns().get(3).and_then(|column| column.as_list_opt::<i32>()).ok_or_else(wrong)?;
    let (ids, deleted) = (binary(4).ok_or_else(wrong)?, binary(5).ok_or_else(wrong)?);
    let facts: Vec<_> = (0..columns).map(|at| Facts::of(rows, at).ok_or_else(wrong)).collect::<Result<_>>()?;
    let batch = |row: usize| {
        let part = parts.get(&part_ids.value(row)).ok_or_else(|| unreadable("a list names a part that it has not"))?;
        let of_row = sources.value(row);
        let sources = of_row.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
        let position = |run: Range<u64>| run.start as usize..run.end as usize;
        Ok(StoredBatch {
            part: *part,
            batch: numbers.value(row),
            rows: lengths.value(row) as usize,
            sources: sources.iter().collect(),
            row_ids: ids_of_bytes(ids.value(row))?,
            deleted: ids_of_bytes(deleted.value(row))?.into_iter().map(position).collect(),
            facts: facts.iter().map(|facts| facts.row(row)).collect::<Result<_>>()?,
        })
    };
    (0..rows.num_rows()).map(batch).collect()
}

/// What is known of one column in all batches.
struct Facts<'a> {
    least: &'a ArrayRef,
    most: &'a ArrayRef,
    nulls: &'a UInt64Array,
    flags: &'a UInt8Array,
}

impl<'a> Facts<'a> {
    fn of(rows: &'a RecordBatch, column: usize) -> Option<Self> {
        let at = |fact: usize| rows.columns().get(OWN_COLUMNS + column * FACT_COLUMNS + fact);
        Some(Self {
            least: at(0)?,
            most: at(1)?,
            nulls: at(2)?.as_primitive_opt::<UInt64Type>()?,
            flags: at(3)?.as_primitive_opt::<UInt8Type>()?,
        })
    }

    fn row(&self, row: usize) -> Result<ColumnFacts> {
        let is_known = *self.least.data_type() != DataType::Null && self.least.is_valid(row);
        let bounds = || concat(&[self.least.slice(row, 1).as_ref(), self.most.slice(row, 1).as_ref()]);
        let bounds = is_known.then(bounds).transpose().map_err(|error| unreadable(&error.to_string()))?;
        let flags = self.flags.value(row);
        Ok(ColumnFacts {
            bounds,
            null_count: self.nulls.value(row) as usize,
            has_signed_nan: flags & HAS_SIGNED_NAN > 0,
            is_in_order: flags & IS_IN_ORDER > 0,
        })
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one run is a list of runs, too")]
mod tests {
    use crate::adapters::disk::list_codec::{list_of_bytes, list_to_bytes};
    use crate::ports::{ColumnFacts, StoredBatch, StoredPart, StoredTable, TableDefinition, WriterState};
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn facts(bounds: Option<ArrayRef>) -> ColumnFacts {
        let (has_signed_nan, is_in_order) = (bounds.is_some(), bounds.is_none());
        ColumnFacts { bounds, null_count: 3, has_signed_nan, is_in_order }
    }

    fn table() -> StoredTable {
        let floats = |values: [f64; 2]| facts(Some(Arc::new(Float64Array::from(values.to_vec()))));
        let texts = |values: [&str; 2]| facts(Some(Arc::new(StringArray::from(values.to_vec()))));
        let fields = vec![
            Field::new("x", DataType::Float64, true),
            Field::new("s", DataType::Utf8, false),
            Field::new("n", DataType::Null, true),
        ];
        let part = StoredPart { id: u64::MAX, table: 7, batches: 2, bytes: 4_096, digest: u64::MAX - 1 };
        let batch = |batch, facts: Vec<ColumnFacts>| StoredBatch {
            part,
            batch,
            rows: 10,
            sources: vec![Some(0), None, Some(5)],
            row_ids: vec![3..7, 9..15],
            deleted: vec![0..1],
            facts: facts.into(),
        };
        StoredTable {
            definition: TableDefinition {
                id: 7,
                name: "t".into(),
                schema: Arc::new(Schema::new(fields)),
                column_ids: vec![0, 4, 2],
                next_column_id: 5,
                time_column: None,
            },
            next_row_id: 15,
            writers: vec![WriterState { writer: "w".into(), sequence: 3, ..WriterState::default() }],
            batches: vec![
                batch(0, vec![floats([-0.0, f64::INFINITY]), texts(["a", "b"]), facts(None)]),
                batch(1, vec![facts(None), texts(["", "z"]), facts(None)]),
            ],
        }
    }

    #[test]
    fn tables_are_read_as_they_were_written() {
        let table = table();
        let bytes = list_to_bytes(&table).unwrap();
        assert_eq!(list_of_bytes(bytes.clone().into()).unwrap(), table);
        let empty = StoredTable { batches: Vec::new(), ..table };
        assert_eq!(list_of_bytes(list_to_bytes(&empty).unwrap().into()).unwrap(), empty);
        for end in [0, 7, 20, bytes.len() - 9] {
            assert!(list_of_bytes(bytes[..end].to_vec().into()).is_err(), "{end}");
        }
    }

    #[test]
    fn long_bounds_are_left_out() {
        let mut table = table();
        let long = "z".repeat(10_000);
        let bounds: ArrayRef = Arc::new(StringArray::from(vec!["a", long.as_str()]));
        table.batches[1].facts = [facts(None), ColumnFacts { bounds: Some(bounds), ..facts(None) }, facts(None)].into();
        let read = list_of_bytes(list_to_bytes(&table).unwrap().into()).unwrap();
        assert!(read.batches[1].facts[1].bounds.is_none() && read.batches[0].facts[1].bounds.is_some());
    }
}
