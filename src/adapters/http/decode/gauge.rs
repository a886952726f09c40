//! How much is decoded at a time.
//!
//! A decoder makes room for as many rows as it is told, with every field of each, before it reads the first, and keeps the text
//! of all that wait. Both are bounded here, whatever a body looks like: many columns, few bytes that stand for many of them,
//! or rows that are large.

use crate::ports::{Error, Result};
use arrow::datatypes::Schema;

/// Fields and rows of one batch.
const FIELDS_MAX: usize = 1 << 20;
const ROWS_MAX: usize = 16_384;

/// Bytes that wait for a batch, about, and bytes beyond which nothing waits any longer.
const WAITING_BYTES: usize = 8 << 20;
const WAITING_BYTES_MAX: usize = 256 << 20;

/// Bytes that a field takes where an object does not even name it.
const FIELD_BYTES: usize = 8;

/// What waits in a decoder.
#[derive(Debug)]
pub struct Gauge {
    /// What an object adds to its own text: nothing where rows are not objects.
    object_bytes: usize,
    rows_max: usize,
    rows: usize,
    bytes: usize,
}

impl Gauge {
    /// Nothing waits. Rows are objects of JSON, and `sample` is their beginning, which tells how long they are.
    pub fn of_objects(schema: &Schema, sample: &[u8]) -> Self {
        let lines = Self::of_lines(schema, sample);
        Self { object_bytes: FIELD_BYTES * schema.flattened_fields().len(), ..lines }
    }

    /// The same for lines of cells.
    pub fn of_lines(schema: &Schema, sample: &[u8]) -> Self {
        let fields = schema.flattened_fields().len().max(1);
        let lines = sample.iter().filter(|byte| **byte == b'\n').count().max(1);
        let of_bytes = WAITING_BYTES / (sample.len() / lines).max(1);
        Self { object_bytes: 0, rows_max: (FIELDS_MAX / fields).min(of_bytes).clamp(1, ROWS_MAX), rows: 0, bytes: 0 }
    }

    /// Rows of a batch.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Counts `text`, with which `rows` ended.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where far too much waits.
    pub fn add(&mut self, text: &[u8], rows: usize) -> Result<()> {
        let objects = text.iter().filter(|byte| **byte == b'{').count();
        self.bytes = self.bytes.saturating_add(text.len()).saturating_add(objects * self.object_bytes);
        self.rows += rows;
        if self.bytes > WAITING_BYTES_MAX {
            let message = format!("rows of the body take more than {WAITING_BYTES_MAX} bytes; send them as Arrow");
            return Err(Error::limit(message));
        }
        Ok(())
    }

    /// Whether what waits is enough for a batch.
    pub fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.bytes >= WAITING_BYTES
    }

    /// Nothing waits any more.
    pub fn reset(&mut self) {
        (self.rows, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::http::decode::gauge::{Gauge, WAITING_BYTES};
    use crate::ports::ErrorKind;
    use arrow::datatypes::{DataType, Field, Schema};

    fn wide(fields: usize) -> Schema {
        let fields = (0..fields).map(|at| Field::new(format!("c{at}"), DataType::Int64, true)).collect();
        Schema::new(vec![Field::new("s", DataType::Struct(fields), true)])
    }

    #[test]
    fn batches_are_smaller_where_rows_are_wide_or_long() {
        assert_eq!(Gauge::of_objects(&wide(3), b"").rows_max(), 16_384);
        assert_eq!(Gauge::of_objects(&wide(1 << 21), b"").rows_max(), 1, "fields of members count");
        let long = [b"x".repeat(WAITING_BYTES / 4), vec![b'\n']].concat();
        assert_eq!(Gauge::of_objects(&wide(3), &long).rows_max(), 3);
    }

    #[test]
    fn a_few_bytes_that_stand_for_many_fields_count_for_them() {
        let mut gauge = Gauge::of_objects(&wide(100_000), b"");
        gauge.add(&b"{},".repeat(9), 0).unwrap();
        assert!(!gauge.is_full());
        gauge.add(&b"{},".repeat(9), 0).unwrap();
        assert!(gauge.is_full());
        assert_eq!(gauge.add(&b"{},".repeat(1_000), 0).unwrap_err().kind(), ErrorKind::LimitExceeded);
        gauge.reset();
        assert!(!gauge.is_full());
    }
}
