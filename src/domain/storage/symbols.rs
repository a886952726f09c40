//! Symbols of a column as dense codes: an index beside the columns, which stay as they arrived.
//!
//! A table has one [`SymbolTable`] for each column that was used as a key: every distinct value has a code, counted from 0 in the order in
//! which values were first seen. A segment keeps the codes of its rows once somebody asked for them. Codes take memory from the
//! account where it is free and are given up where it is not, and so is a column of too many values: whoever asks then does without.

use crate::ports::{MemoryAccount, Reservation};
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, NullArray, StringArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt32Type};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Rows for each last row of a symbol from which on it is worth keeping them.
const LAST_ROWS_SHARE: usize = 2;

/// Most distinct values of a column that has codes.
const SYMBOLS_MAX: usize = 1 << 20;

/// The distinct values of one column of one table.
#[derive(Debug)]
pub struct SymbolTable {
    known: Mutex<Known>,
    account: MemoryAccount,
}

#[derive(Debug, Default)]
struct Known {
    codes: HashMap<Box<str>, u32, BuildHasherDefault<TextHasher>>,
    values: Vec<Box<str>>,
    /// All values as a column, until there are more.
    column: Option<ArrayRef>,
    memory: Option<Reservation>,
    /// Whether there were too many, or no memory for them.
    given_up: bool,
}

/// The codes of a segment's rows.
#[derive(Debug)]
pub struct SegmentCodes {
    /// A dictionary of as many nulls as there were values, which take no memory: keys are looked at once, when it is made, and values
    /// are put in for each query.
    keys: DictionaryArray<UInt32Type>,
    table: Arc<SymbolTable>,
    last: OnceLock<Option<LastRows>>,
    _memory: Reservation,
}

/// The last row of each symbol of a segment, NULL included, in the order of the rows.
#[derive(Debug)]
struct LastRows {
    rows: UInt32Array,
    _memory: Reservation,
}

impl SegmentCodes {
    /// Returns whether the codes are those of `table`.
    pub fn is_of(&self, table: &Arc<SymbolTable>) -> bool {
        Arc::ptr_eq(&self.table, table)
    }

    /// Returns the code of each row, 0 for NULL.
    pub fn codes(&self) -> &[u32] {
        self.keys.keys().values()
    }

    /// Returns whether a row is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        self.keys.keys().is_null(row)
    }

    /// Returns which rows are not NULL, where some are.
    pub fn nulls(&self) -> Option<&NullBuffer> {
        self.keys.keys().nulls()
    }

    /// Returns rows as a dictionary of `values`, which are those of the table now or later, without a copy.
    pub fn column(&self, values: &ArrayRef, offset: usize, rows: usize) -> ArrayRef {
        Arc::new(self.keys.slice(offset, rows).with_values(values.clone()))
    }

    /// Returns the last row of each symbol, NULL included, in the order of the rows; looked for when it is first asked. None where there
    /// is no memory for them, or they are not much fewer than the rows.
    pub fn last_rows(&self) -> Option<&UInt32Array> {
        self.last.get_or_init(|| self.find_last_rows()).as_ref().map(|last| &last.rows)
    }

    fn find_last_rows(&self) -> Option<LastRows> {
        let codes = self.codes();
        let most = codes.iter().copied().max()?;
        let mut last = vec![u32::MAX; most as usize + 2];
        let null = most as usize + 1;
        for (row, code) in codes.iter().enumerate() {
            let is_null = self.nulls().is_some_and(|nulls| nulls.is_null(row));
            last[if is_null { null } else { *code as usize }] = row as u32;
        }
        last.retain(|row| *row != u32::MAX);
        if last.len() > codes.len() / LAST_ROWS_SHARE {
            return None;
        }
        last.sort_unstable();
        let memory = self.table.account.try_reserve(last.len() as u64 * 4)?;
        Some(LastRows { rows: last.into(), _memory: memory })
    }
}

/// Returns whether columns of a type may have codes.
pub fn has_codes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => has_codes(values),
        _ => false,
    }
}

impl SymbolTable {
    /// Makes a table without values, whose memory is taken from `account`.
    pub fn new(account: MemoryAccount) -> Self {
        Self { known: Mutex::default(), account }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the column has no codes, for too many values or too little memory.
    pub fn is_given_up(&self) -> bool {
        self.known().given_up
    }

    /// Returns the values by their codes, as a column of text.
    pub fn values(&self) -> ArrayRef {
        let mut known = self.known();
        let Known { column, values, .. } = &mut *known;
        let made = || Arc::new(StringArray::from_iter_values(values.iter())) as ArrayRef;
        column.get_or_insert_with(made).clone()
    }

    /// Returns the code of a value; none where no row has it.
    pub fn code_of(&self, value: &str) -> Option<u32> {
        self.known().codes.get(value).copied()
    }

    /// Returns the codes of a column; none where it has too many values, or there is no memory.
    pub fn encode(self: &Arc<Self>, column: &ArrayRef) -> Option<SegmentCodes> {
        let memory = self.account.try_reserve(column.len() as u64 * 4)?;
        let mut known = self.known();
        if known.given_up {
            return None;
        }
        let codes = match column.data_type() {
            DataType::Dictionary(_, values) => {
                let dictionary = column.as_any_dictionary();
                let of_values = known.intern(&cast(dictionary.values(), values).ok()?, &self.account)?;
                let code =
                    |(row, key): (usize, usize)| if dictionary.keys().is_valid(row) { of_values[key] } else { 0 };
                match of_values.is_empty() {
                    // Without values all rows are null, and keys mean nothing.
                    true => vec![0; column.len()],
                    false => dictionary.normalized_keys().into_iter().enumerate().map(code).collect(),
                }
            }
            _ => known.intern(column, &self.account)?,
        };
        let nulls = column.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let values = Arc::new(NullArray::new(known.values.len()));
        let keys = DictionaryArray::try_new(UInt32Array::new(codes.into(), nulls), values).ok()?;
        Some(SegmentCodes { keys, table: self.clone(), last: OnceLock::new(), _memory: memory })
    }
}

impl Known {
    fn intern(&mut self, column: &ArrayRef, account: &MemoryAccount) -> Option<Vec<u32>> {
        let before = self.values.len();
        let codes: Option<Vec<u32>> = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().iter().map(|text| self.code(text)).collect(),
            DataType::LargeUtf8 => column.as_string::<i64>().iter().map(|text| self.code(text)).collect(),
            DataType::Utf8View => column.as_string_view().iter().map(|text| self.code(text)).collect(),
            _ => None,
        };
        if self.values.len() > before {
            self.column = None;
            let bytes: usize = self.values[before..].iter().map(|value| 2 * value.len() + 64).sum();
            match (account.try_reserve(bytes as u64), &mut self.memory) {
                (Some(more), Some(memory)) => memory.join(more),
                (Some(more), none) => *none = Some(more),
                (None, _) => self.given_up = true,
            }
        }
        if codes.is_none() || self.given_up {
            *self = Self { given_up: true, ..Self::default() };
            return None;
        }
        codes
    }

    fn code(&mut self, text: Option<&str>) -> Option<u32> {
        let Some(text) = text else { return Some(0) };
        if let Some(code) = self.codes.get(text) {
            return Some(*code);
        }
        if self.values.len() >= SYMBOLS_MAX {
            return None;
        }
        let code = self.values.len() as u32;
        self.codes.insert(text.into(), code);
        self.values.push(text.into());
        Some(code)
    }
}

/// Hashes short text eight bytes at a time. Whoever fills a table with colliding symbols slows down their own queries alone, and
/// [`SYMBOLS_MAX`] bounds by how much.
#[derive(Debug, Default)]
struct TextHasher(u64);

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = mixed ^ (mixed >> 29);
        }
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::symbols::SymbolTable;
    use crate::ports::MemoryAccount;
    use arrow::array::{ArrayRef, AsArray, DictionaryArray, LargeStringArray, StringArray, StringViewArray};
    use arrow::datatypes::Int8Type;
    use std::sync::Arc;

    #[test]
    fn every_form_of_text_has_the_same_codes() {
        let table = Arc::new(SymbolTable::new(MemoryAccount::default()));
        let texts = [Some("b"), None, Some("a"), Some("b"), Some("a rather long symbol")];
        let columns: [ArrayRef; 4] = [
            Arc::new(StringArray::from_iter(texts)),
            Arc::new(LargeStringArray::from_iter(texts)),
            Arc::new(StringViewArray::from_iter(texts)),
            Arc::new(texts.into_iter().collect::<DictionaryArray<Int8Type>>()),
        ];
        for column in columns {
            let encoded = table.encode(&column).unwrap();
            assert_eq!(encoded.codes(), [0, 0, 1, 0, 2]);
            assert!(encoded.nulls().is_some_and(|nulls| nulls.is_null(1)) && encoded.is_of(&table));
        }
        let values = table.values();
        assert_eq!(values.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["b", "a", "a rather long symbol"]);
    }

    #[test]
    fn without_memory_there_are_no_codes() {
        let table = Arc::new(SymbolTable::new(MemoryAccount::new(1_000)));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|n| n.to_string())));
        assert!(table.encode(&column).is_none());
        assert!(table.encode(&column).is_none(), "it is not tried again");
    }
}
