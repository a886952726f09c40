//! How many rows and bytes are decoded at a time.
//!
//! A decoder allocates for the number of rows that it is told, every field of each, before it reads the first, and keeps
//! the text of all undecoded ones. Both are bounded here, whatever a body looks like: many columns, few bytes that stand
//! for many values, or large rows.

use crate::ports::{Error, Result};
use arrow::datatypes::{DataType, Field, Schema};

/// Most values and rows of one batch.
const VALUES_MAX: usize = 1 << 20;
const ROWS_MAX: usize = 16_384;

/// Bytes of text that fill a batch, and the most that may be held: a single row can take more than the target.
const PENDING_BYTES: usize = 8 << 20;
const PENDING_BYTES_MAX: usize = 256 << 20;

/// Bytes that a value takes where an item of a list leaves it out: a null needs its place, too.
const VALUE_BYTES: usize = 8;

/// How deep a row may nest: arrow's error messages recurse over a value.
const DEPTH_MAX: usize = 128;

/// The rows and bytes that a decoder holds, against what it may.
#[derive(Debug)]
pub struct BatchBudget {
    /// For rows that are JSON objects: the state of the scan, and the bytes that an item of a list takes beyond its text.
    json: Option<(JsonScan, usize)>,
    rows_max: usize,
    rows: usize,
    bytes: usize,
}

impl BatchBudget {
    /// Creates an empty budget for rows that are JSON objects; `sample`, their beginning, shows how long rows are.
    pub fn for_objects(schema: &Schema, sample: &[u8]) -> Self {
        let items = schema.fields().iter().map(|field| item_width(field)).max().unwrap_or(0);
        Self { json: Some((JsonScan::default(), items.saturating_mul(VALUE_BYTES))), ..Self::for_lines(schema, sample) }
    }

    /// Creates an empty budget for lines of cells.
    pub fn for_lines(schema: &Schema, sample: &[u8]) -> Self {
        let values = schema.fields().iter().map(|field| width(field)).fold(0, usize::saturating_add).max(1);
        let lines = sample.iter().filter(|byte| **byte == b'\n').count().max(1);
        let of_bytes = PENDING_BYTES / (sample.len() / lines).max(1);
        Self { json: None, rows_max: (VALUES_MAX / values).min(of_bytes).clamp(1, ROWS_MAX), rows: 0, bytes: 0 }
    }

    /// Returns the most rows of a batch.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Counts `text`, with which `rows` ended. A decoder may have taken it already, but must not be flushed before this.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where rows take far too much, `InvalidQuery` for a row that nests too deep.
    pub fn add(&mut self, text: &[u8], rows: usize) -> Result<()> {
        let unnamed = match &mut self.json {
            Some((scan, item_bytes)) => scan.items(text)?.saturating_mul(*item_bytes),
            None => 0,
        };
        self.bytes = self.bytes.saturating_add(text.len()).saturating_add(unnamed);
        self.rows += rows;
        if self.bytes > PENDING_BYTES_MAX {
            let message = format!("rows of the body take more than {PENDING_BYTES_MAX} bytes; send them as Arrow");
            return Err(Error::limit(message));
        }
        Ok(())
    }

    /// Returns whether the decoder holds enough for a batch.
    pub fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.bytes >= PENDING_BYTES
    }

    /// Empties the budget, after a flush.
    pub fn reset(&mut self) {
        (self.rows, self.bytes) = (0, 0);
    }
}

/// Counts the values that one value of a field takes, null or not.
fn width(field: &Field) -> usize {
    let inner = match field.data_type() {
        DataType::Struct(members) => members.iter().map(|member| width(member)).fold(0, usize::saturating_add),
        DataType::FixedSizeList(item, size) => width(item).saturating_mul(usize::try_from(*size).unwrap_or(0)),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => width(item),
        _ => 0,
    };
    inner.saturating_add(1)
}

/// Returns the most values that an item of any list or map of a field takes; 0 where there is neither.
fn item_width(field: &Field) -> usize {
    match field.data_type() {
        DataType::Struct(members) => members.iter().map(|member| item_width(member)).max().unwrap_or(0),
        DataType::FixedSizeList(item, _) => item_width(item),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => width(item).max(item_width(item)),
        _ => 0,
    }
}

/// The state of a scan over JSON text that arrives in pieces.
#[derive(Debug, Default)]
struct JsonScan {
    in_string: bool,
    escaped: bool,
    depth: usize,
}

impl JsonScan {
    /// Counts the values in `text` that may take more memory than their own text: objects and nulls.
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
                // Outside of strings, only `null` contains an n.
                (false, b'n') => items += 1,
                _ => {}
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::formats::read::batch_budget::{BatchBudget, PENDING_BYTES};
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
        assert_eq!(BatchBudget::for_objects(&of(members(3)), b"").rows_max(), 16_384);
        assert_eq!(BatchBudget::for_objects(&of(members(1 << 21)), b"").rows_max(), 1, "members count");
        let embedding = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), 1 << 18);
        assert_eq!(
            BatchBudget::for_objects(&of(embedding), b"").rows_max(),
            3,
            "so do the items of a list of one size"
        );
        let long = [b"x".repeat(PENDING_BYTES / 4), vec![b'\n']].concat();
        assert_eq!(BatchBudget::for_lines(&of(members(3)), &long).rows_max(), 3);
    }

    #[test]
    fn a_few_bytes_that_stand_for_many_values_count_for_them() {
        for item in ["{},", "null,"] {
            let mut budget = BatchBudget::for_objects(&of(DataType::new_list(members(100_000), true)), b"");
            budget.add(item.repeat(9).as_bytes(), 0).unwrap();
            budget.add(b"\"{}null\\\"{}{}{}{}{}{}\"", 0).unwrap();
            assert!(!budget.is_full(), "text within quotes is text");
            budget.add(item.repeat(9).as_bytes(), 0).unwrap();
            assert!(budget.is_full());
            assert_eq!(budget.add(item.repeat(1_000).as_bytes(), 0).unwrap_err().kind(), ErrorKind::LimitExceeded);
            budget.reset();
            assert!(!budget.is_full());
        }
        // Rows themselves are bounded in number.
        let mut budget = BatchBudget::for_objects(&of(members(100_000)), b"");
        budget.add(&b"{}\n".repeat(1_000), 0).unwrap();
        assert!(!budget.is_full());
    }

    #[test]
    fn what_nests_too_deep_is_refused_however_it_comes() {
        let mut budget = BatchBudget::for_objects(&of(members(1)), b"");
        budget.add(&b"[".repeat(128), 0).unwrap();
        assert_eq!(budget.add(b"[", 0).unwrap_err().kind(), ErrorKind::InvalidQuery);
    }
}
