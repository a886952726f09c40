//! Other columns for the same rows: what an ALTER TABLE does to the segments of a table.
//!
//! Columns that stay are shared with the segments before; only a column that is added takes memory.

use crate::domain::storage::allocations::Allocations;
use crate::domain::storage::segment::Segment;
use crate::ports::{Error, Result};
use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, SchemaRef};
use std::sync::Arc;

/// The next schema of a table, and where each of its columns comes from.
#[derive(Debug, Clone)]
pub struct Reshape {
    schema: SchemaRef,
    sources: Vec<Option<usize>>,
}

impl Reshape {
    /// Makes a change to `schema`, each column of which comes from that position of the schema before; none: all null.
    pub fn new(schema: SchemaRef, sources: Vec<Option<usize>>) -> Self {
        debug_assert_eq!(schema.fields().len(), sources.len());
        Self { schema, sources }
    }

    /// Returns the schema after it.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns for each column after it the position that it had before; none for a new one.
    pub fn sources(&self) -> &[Option<usize>] {
        &self.sources
    }

    /// Returns what the column at `index` before is called after it; none where it goes.
    pub fn renamed(&self, index: usize) -> Option<&str> {
        let at = self.sources.iter().position(|source| *source == Some(index))?;
        Some(self.schema.field(at).name())
    }

    /// Checks that a table of so many rows may be changed: a column without nulls can be added only where there are none.
    ///
    /// # Errors
    ///
    /// `SchemaMismatch`.
    pub fn check_rows(&self, rows: u64) -> Result<()> {
        let added = self.schema.fields().iter().zip(&self.sources).filter(|(_, source)| source.is_none());
        match added.map(|(field, _)| field).find(|field| !field.is_nullable()) {
            Some(field) if rows > 0 => Err(Error::mismatch(format!(
                "column {:?} may not be null, and {rows} rows would have no value for it",
                field.name()
            ))),
            _ => Ok(()),
        }
    }

    /// Reshapes segments.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for added columns is not free.
    pub fn segments(&self, segments: &[Arc<Segment>], allocations: &Allocations) -> Result<Vec<Arc<Segment>>> {
        let reshape = |segment: &Arc<Segment>| {
            if let Some(reshaped) = segment.reshaped(&self.schema, &self.sources) {
                return Ok(reshaped);
            }
            // What is about to be made is asked for first; the claim then counts what it came to.
            let room = allocations.reserve(self.added_bytes(segment.physical_rows()))?;
            let batch = self.batch(&segment.physical_batch()?)?;
            drop(room);
            segment.with_columns(batch, allocations)
        };
        segments.iter().map(reshape).collect()
    }

    fn added_bytes(&self, rows: usize) -> u64 {
        let added = self.schema.fields().iter().zip(&self.sources).filter(|(_, source)| source.is_none());
        let width = |field: &Arc<Field>| field.data_type().primitive_width().unwrap_or(16) as u64;
        added.map(|(field, _)| (rows as u64).saturating_mul(width(field))).fold(0, u64::saturating_add)
    }

    fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let column = |(field, source): (&Arc<Field>, &Option<usize>)| match source {
            Some(index) => batch.column(*index).clone(),
            None => new_null_array(field.data_type(), rows),
        };
        let columns = self.schema.fields().iter().zip(&self.sources).map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::internal("a segment could not be altered").with_source(error))
    }
}
