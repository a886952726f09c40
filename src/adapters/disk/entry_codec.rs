//! Entries as the content of records: a head in JSON that says what a commit does, and a body with its rows.
//!
//! The body is what the head names, in the same order: schemas and rows as Arrow IPC streams, ids of rows as pairs of
//! little-endian u64. A new kind of effect, or another field of one, needs no new format of the journal: what an older build does not
//! know it refuses to read.

use crate::adapters::disk::heads::{TableHead, WriterHead};
use crate::adapters::disk::sections::{Body, Section, Sections, unreadable};
use crate::ports::{Effect, Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A commit's effects as bytes, those of columns where they lie.
#[derive(Debug)]
pub struct Content {
    /// The head.
    pub head: Vec<u8>,
    /// The body, in pieces.
    pub body: Vec<Bytes>,
}

/// All effects of a commit, without their rows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    effects: Vec<EffectHead>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum EffectHead {
    Create { table: TableHead, replaced: Option<u64>, rows: Section },
    Append { table: u64, first_row: u64, rows: Section },
    Erase { table: u64, ids: Section },
    Update { table: u64, columns: Vec<u32>, ids: Section, values: Section },
    Alter { table: TableHead, schema: Section },
    Writer { table: u64, state: WriterHead },
    Drop { table: u64 },
}

impl Content {
    /// Writes effects down.
    ///
    /// # Errors
    ///
    /// `Unsupported` for columns that Arrow IPC cannot carry.
    pub fn of(effects: &[Effect]) -> Result<Self> {
        let mut body = Body::default();
        let effects = effects.iter().map(|effect| body.effect(effect)).collect::<Result<_>>()?;
        let head = serde_json::to_vec(&Head { effects })
            .map_err(|error| Error::internal("a commit could not be written down").with_source(error))?;
        Ok(Self { head, body: body.into_pieces() })
    }

    /// Returns the bytes of the body.
    pub fn body_bytes(&self) -> u64 {
        self.body.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// Reads effects as they were written down.
///
/// # Errors
///
/// `Internal` for anything else.
pub fn read_effects(head: &[u8], body: Bytes) -> Result<Vec<Effect>> {
    let head: Head = serde_json::from_slice(head).map_err(|error| unreadable(&error.to_string()))?;
    let mut rest = Sections::of(body);
    head.effects.into_iter().map(|effect| rest.effect(effect)).collect()
}

impl Body {
    fn effect(&mut self, effect: &Effect) -> Result<EffectHead> {
        Ok(match effect {
            Effect::Create { definition, replaced, batches } => {
                let rows = self.stream(&definition.schema, batches)?;
                EffectHead::Create { table: TableHead::of(definition), replaced: *replaced, rows }
            }
            Effect::Append { table, first_row, batches } => {
                let schema = batches.first().map_or_else(|| Schema::empty().into(), RecordBatch::schema);
                let rows = self.stream(&schema, batches)?;
                EffectHead::Append { table: *table, first_row: *first_row, rows }
            }
            Effect::Erase { table, rows } => EffectHead::Erase { table: *table, ids: self.ids(rows) },
            Effect::Update { table, rows, columns, values } => {
                let ids = self.ids(rows);
                let values = self.stream(&values.schema(), std::slice::from_ref(values))?;
                EffectHead::Update { table: *table, columns: columns.clone(), ids, values }
            }
            Effect::Alter { definition } => {
                let schema = self.stream(&definition.schema, &[])?;
                EffectHead::Alter { table: TableHead::of(definition), schema }
            }
            Effect::Writer { table, state } => EffectHead::Writer { table: *table, state: WriterHead::of(state) },
            Effect::Drop { table } => EffectHead::Drop { table: *table },
        })
    }
}

impl Sections {
    fn effect(&mut self, effect: EffectHead) -> Result<Effect> {
        Ok(match effect {
            EffectHead::Create { table, replaced, rows } => {
                let (schema, batches) = self.stream(rows)?;
                Effect::Create { definition: table.with_schema(schema), replaced, batches }
            }
            EffectHead::Append { table, first_row, rows } => {
                Effect::Append { table, first_row, batches: self.stream(rows)?.1 }
            }
            EffectHead::Erase { table, ids } => Effect::Erase { table, rows: self.ids(ids)? },
            EffectHead::Update { table, columns, ids, values } => {
                let rows = self.ids(ids)?;
                let (schema, mut batches) = self.stream(values)?;
                let values = batches.pop().unwrap_or_else(|| RecordBatch::new_empty(schema));
                Effect::Update { table, rows, columns, values }
            }
            EffectHead::Alter { table, schema } => {
                Effect::Alter { definition: table.with_schema(self.stream(schema)?.0) }
            }
            EffectHead::Writer { table, state } => Effect::Writer { table, state: state.into_state() },
            EffectHead::Drop { table } => Effect::Drop { table },
        })
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one run is a list of runs, too")]
mod tests {
    use crate::adapters::disk::entry_codec::{Content, read_effects};
    use crate::ports::{Effect, TableDefinition, WriterState};
    use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, NullArray, RecordBatch, StringArray};
    use bytes::Bytes;
    use std::sync::Arc;

    fn batch(rows: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    fn effects() -> Vec<Effect> {
        let definition = TableDefinition {
            id: 7,
            name: "a table".into(),
            schema: batch(1).schema(),
            column_ids: vec![3],
            next_column_id: 4,
            time_column: None,
        };
        vec![
            Effect::Create {
                definition: definition.clone(),
                replaced: Some(6),
                batches: vec![batch(3), batch(70_000)],
            },
            Effect::Append { table: 7, first_row: 70_003, batches: vec![batch(1)] },
            Effect::Erase { table: 7, rows: vec![0..2, 5..6] },
            Effect::Update { table: 7, rows: vec![3..4], columns: vec![3], values: batch(1) },
            Effect::Alter { definition },
            Effect::Writer {
                table: 7,
                state: WriterState { writer: "w".into(), sequence: 3, offset: Some("x".into()), ..Default::default() },
            },
            Effect::Drop { table: 7 },
        ]
    }

    #[test]
    fn what_a_stream_may_not_bring_is_read_all_the_same() {
        let texts: StringArray = (0..5_000).map(|n| Some(format!("symbol {n}"))).collect();
        let keys = Int32Array::from_iter_values(0..5_000);
        let coded: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(texts)));
        let nulls: ArrayRef = Arc::new(NullArray::new(20_000_000));
        for column in [coded, nulls] {
            let batches = vec![RecordBatch::try_from_iter([("c", column)]).unwrap()];
            let effects = vec![Effect::Append { table: 1, first_row: 0, batches }];
            let content = Content::of(&effects).unwrap();
            let body: Bytes = content.body.iter().flatten().copied().collect();
            assert_eq!(read_effects(&content.head, body).unwrap(), effects);
        }
    }

    #[test]
    fn effects_are_read_as_they_were_written() {
        let content = Content::of(&effects()).unwrap();
        let body: Bytes = content.body.iter().flatten().copied().collect();
        assert_eq!(content.body_bytes(), body.len() as u64);
        assert_eq!(read_effects(&content.head, body.clone()).unwrap(), effects());
        for end in [0, 100, body.len() - 1] {
            assert!(read_effects(&content.head, body.slice(..end)).is_err(), "{end}");
        }
        let unknown = String::from_utf8(content.head).unwrap().replace("\"drop\"", "\"expire\"");
        let error = read_effects(unknown.as_bytes(), body).unwrap_err();
        assert!(error.message().contains("expire"), "{error}");
    }
}
