//! How much is decoded at a time.
//!
//! A decoder makes room for as many rows as it is told, with every field of each, before it reads the first, and keeps the text
//! of all that wait. Both are bounded here, whatever a body looks like: many columns, few bytes that stand for many of them,
//! or rows that are large.

use crate::ports::{Error, Result};
use arrow::datatypes::{DataType, Field, Schema};

/// Values and rows of one batch.
const VALUES_MAX: usize = 1 << 20;
const ROWS_MAX: usize = 16_384;

/// Bytes that wait for a batch, about, and bytes beyond which nothing waits any longer.
const WAITING_BYTES: usize = 8 << 20;
const WAITING_BYTES_MAX: usize = 256 << 20;

/// Bytes that a value takes where an item of a list does not even name it.
const VALUE_BYTES: usize = 8;

/// How deep a row may nest: who says what is wrong with a value follows it down.
const DEPTH_MAX: usize = 128;

/// What waits in a decoder.
#[derive(Debug)]
pub struct Gauge {
    /// Where rows are objects of JSON: how far the text is, and what an item of a list takes beyond its own text.
    json: Option<(Scan, usize)>,
    rows_max: usize,
    rows: usize,
    bytes: usize,
}

impl Gauge {
    /// Nothing waits. Rows are objects of JSON, and `sample` is their beginning, which tells how long they are.
    pub fn of_objects(schema: &Schema, sample: &[u8]) -> Self {
        let items = schema.fields().iter().map(|field| item_width(field)).max().unwrap_or(0);
        Self { json: Some((Scan::default(), items.saturating_mul(VALUE_BYTES))), ..Self::of_lines(schema, sample) }
    }

    /// The same for lines of cells.
    pub fn of_lines(schema: &Schema, sample: &[u8]) -> Self {
        let values = schema.fields().iter().map(|field| width(field)).fold(0, usize::saturating_add).max(1);
        let lines = sample.iter().filter(|byte| **byte == b'\n').count().max(1);
        let of_bytes = WAITING_BYTES / (sample.len() / lines).max(1);
        Self { json: None, rows_max: (VALUES_MAX / values).min(of_bytes).clamp(1, ROWS_MAX), rows: 0, bytes: 0 }
    }

    /// Rows of a batch.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Counts `text`, with which `rows` ended. A decoder may have taken it already, but must not flush it before it is counted.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where far too much waits, `InvalidQuery` for what nests too deep.
    pub fn add(&mut self, text: &[u8], rows: usize) -> Result<()> {
        let unnamed = match &mut self.json {
            Some((scan, item_bytes)) => scan.items(text)?.saturating_mul(*item_bytes),
            None => 0,
        };
        self.bytes = self.bytes.saturating_add(text.len()).saturating_add(unnamed);
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

/// Values that one value of a field takes, be it null.
fn width(field: &Field) -> usize {
    let inner = match field.data_type() {
        DataType::Struct(members) => members.iter().map(|member| width(member)).fold(0, usize::saturating_add),
        DataType::FixedSizeList(item, size) => width(item).saturating_mul(usize::try_from(*size).unwrap_or(0)),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => width(item),
        _ => 0,
    };
    inner.saturating_add(1)
}

/// The most values that an item of any list or map of a field takes; none where it has no such.
fn item_width(field: &Field) -> usize {
    match field.data_type() {
        DataType::Struct(members) => members.iter().map(|member| item_width(member)).max().unwrap_or(0),
        DataType::FixedSizeList(item, _) => item_width(item),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => width(item).max(item_width(item)),
        _ => 0,
    }
}

/// How far JSON text is that comes in pieces.
#[derive(Debug, Default)]
struct Scan {
    in_string: bool,
    escaped: bool,
    depth: usize,
}

impl Scan {
    /// How many values of `text` may take more room than their own text: objects and nulls.
    fn items(&mut self, text: &[u8]) -> Result<usize> {
        let mut items = 0;
        for byte in text {
            match (self.in_string, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_string = false,
                (true, _) => {}
                (false, b'"') => self.in_string = true,
                (false, b'{' | b'[') => {
                    items += usize::from(*byte == b'{');
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        return Err(Error::invalid(format!("a row of the body nests deeper than {DEPTH_MAX}")));
                    }
                }
                (false, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                // It begins null, and nothing else.
                (false, b'n') => items += 1,
                _ => {}
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::http::decode::gauge::{Gauge, WAITING_BYTES};
    use crate::ports::ErrorKind;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn members(count: usize) -> DataType {
        DataType::Struct((0..count).map(|at| Field::new(format!("c{at}"), DataType::Int64, true)).collect())
    }

    fn of(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("s", data_type, true)])
    }

    #[test]
    fn batches_are_smaller_where_rows_are_wide_or_long() {
        assert_eq!(Gauge::of_objects(&of(members(3)), b"").rows_max(), 16_384);
        assert_eq!(Gauge::of_objects(&of(members(1 << 21)), b"").rows_max(), 1, "members count");
        let embedding = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), 1 << 18);
        assert_eq!(Gauge::of_objects(&of(embedding), b"").rows_max(), 3, "so do the items of a list of one size");
        let long = [b"x".repeat(WAITING_BYTES / 4), vec![b'\n']].concat();
        assert_eq!(Gauge::of_lines(&of(members(3)), &long).rows_max(), 3);
    }

    #[test]
    fn a_few_bytes_that_stand_for_many_values_count_for_them() {
        for item in ["{},", "null,"] {
            let mut gauge = Gauge::of_objects(&of(DataType::new_list(members(100_000), true)), b"");
            gauge.add(item.repeat(9).as_bytes(), 0).unwrap();
            gauge.add(b"\"{}null\\\"{}{}{}{}{}{}\"", 0).unwrap();
            assert!(!gauge.is_full(), "text within quotes is text");
            gauge.add(item.repeat(9).as_bytes(), 0).unwrap();
            assert!(gauge.is_full());
            assert_eq!(gauge.add(item.repeat(1_000).as_bytes(), 0).unwrap_err().kind(), ErrorKind::LimitExceeded);
            gauge.reset();
            assert!(!gauge.is_full());
        }
        // Rows themselves are bounded in number.
        let mut gauge = Gauge::of_objects(&of(members(100_000)), b"");
        gauge.add(&b"{}\n".repeat(1_000), 0).unwrap();
        assert!(!gauge.is_full());
    }

    #[test]
    fn what_nests_too_deep_is_refused_however_it_comes() {
        let mut gauge = Gauge::of_objects(&of(members(1)), b"");
        gauge.add(&b"[".repeat(128), 0).unwrap();
        assert_eq!(gauge.add(b"[", 0).unwrap_err().kind(), ErrorKind::InvalidQuery);
    }
}
