//! Symbols of a column, text or whole numbers, as dense codes: an index beside the columns, which stay as they arrived.
//!
//! A table has one [`SymbolTable`] for each column that was used as a key: every distinct value has a code, counted from 0 in the order in
//! which values were first seen. A segment keeps the codes of its rows once somebody asked for them. Codes take memory from the
//! account where it is free; where it is not, or a column has too many values, whoever asks does without. They are the first that
//! memory is taken back from. A code that was given out
//! stays what it is for as long as anybody holds the table of symbols.

use crate::domain::storage::coded_values::Coded;
use crate::ports::{MemoryAccount, Reservation};
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int64Array, NullArray, StringArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Rows for each last row of a symbol from which on it is worth keeping them.
const LAST_ROWS_SHARE: usize = 2;

/// Most distinct values of a column of text that has codes.
const TEXTS_MAX: usize = 1 << 20;

/// Most distinct whole numbers of a column that has codes: beyond that they name rows rather than series.
const WHOLES_MAX: usize = 1 << 17;

/// Rows whose symbols are looked up at once: others wait for no more.
const ENCODED_ROWS: usize = 1 << 15;

/// What symbols are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// Text, of dictionaries too.
    Text,
    /// Whole numbers that 64 bits hold with a sign.
    Whole,
}

impl SymbolKind {
    /// Returns the kind of the symbols in a column of a type; none where it has no codes.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            DataType::Dictionary(_, values) => Self::of(values),
            DataType::UInt64 => None,
            whole if whole.is_integer() => Some(Self::Whole),
            _ => None,
        }
    }
}

/// The distinct values of one column of one table.
#[derive(Debug)]
pub struct SymbolTable {
    kind: SymbolKind,
    known: Mutex<Known>,
    account: MemoryAccount,
}

#[derive(Debug, Default)]
struct Known {
    texts: Coded<Box<str>>,
    wholes: Coded<i64>,
    /// All values as a column, until there are more.
    column: Option<ArrayRef>,
    memory: Option<Reservation>,
    /// How many of them segments have codes of.
    given_out: usize,
    /// Whether there are too many.
    is_given_up: bool,
    /// Bytes that were not free when they were last wanted.
    lacked_bytes: u64,
}

/// The codes of a segment's rows.
#[derive(Debug)]
pub struct SegmentCodes {
    /// A dictionary of as many nulls as there were values, which take no memory: keys are looked at once, when it is made, and values
    /// are put in for each query.
    keys: DictionaryArray<UInt32Type>,
    table: Arc<SymbolTable>,
    last: OnceLock<Option<LastRows>>,
    memory: Reservation,
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

    /// Returns the memory that they take, in bytes, without that of last rows.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
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

impl SymbolTable {
    /// Makes a table without values, whose memory is taken from `account`.
    pub fn new(kind: SymbolKind, account: MemoryAccount) -> Self {
        Self { kind, known: Mutex::default(), account }
    }

    /// Makes a table without values of the same kind, which gets some once twice `freed_bytes`, and what its values take, are free: what was
    /// given up because memory was short would else be made again at once.
    pub fn emptied(&self, freed_bytes: u64) -> Self {
        let known = self.known();
        let bytes = known.memory.as_ref().map_or(0, Reservation::bytes) + freed_bytes;
        let given = Known { is_given_up: known.is_given_up, lacked_bytes: 2 * bytes, ..Known::default() };
        Self { kind: self.kind, known: Mutex::new(given), account: self.account.clone() }
    }

    /// Returns the type in which its values are given.
    pub fn value_type(&self) -> DataType {
        match self.kind {
            SymbolKind::Text => DataType::Utf8,
            SymbolKind::Whole => DataType::Int64,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the column gets no codes: for too many values, or for memory that is not free yet.
    pub fn is_given_up(&self) -> bool {
        let known = self.known();
        let free = || self.account.bytes_max().saturating_sub(self.account.used());
        known.is_given_up || (known.lacked_bytes > 0 && free() < known.lacked_bytes)
    }

    /// Returns the number of values.
    pub fn count(&self) -> usize {
        self.known().count()
    }

    /// Returns the values by their codes, as a column of [`SymbolTable::value_type`].
    pub fn values(&self) -> ArrayRef {
        let mut known = self.known();
        let Known { column, texts, wholes, .. } = &mut *known;
        let made = || match self.kind {
            SymbolKind::Text => Arc::new(StringArray::from_iter_values(texts.values.iter())) as ArrayRef,
            SymbolKind::Whole => Arc::new(Int64Array::from(wholes.values.clone())),
        };
        column.get_or_insert_with(made).clone()
    }

    /// Returns the code of a text; none where no row has it.
    pub fn code_of(&self, value: &str) -> Option<u32> {
        self.known().texts.codes.get(value).copied()
    }

    /// Returns the codes of a column; none where it has too many values, or there is no memory.
    pub fn encode(self: &Arc<Self>, column: &ArrayRef) -> Option<SegmentCodes> {
        let bytes = column.len() as u64 * 4;
        let Some(memory) = self.account.try_reserve(bytes) else {
            self.known().lacked_bytes = bytes;
            return None;
        };
        let codes = match column.data_type() {
            DataType::Dictionary(_, values) => {
                let dictionary = column.as_any_dictionary();
                let of_values = self.intern(&cast(dictionary.values(), values).ok()?)?;
                let code =
                    |(row, key): (usize, usize)| if dictionary.keys().is_valid(row) { of_values[key] } else { 0 };
                match of_values.is_empty() {
                    // Without values all rows are null, and keys mean nothing.
                    true => vec![0; column.len()],
                    false => dictionary.normalized_keys().into_iter().enumerate().map(code).collect(),
                }
            }
            _ => self.intern(column)?,
        };
        let nulls = column.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let mut known = self.known();
        if known.is_given_up {
            return None;
        }
        known.given_out = known.count();
        drop(known);
        // Of as many values as these rows need: whoever reads them may know of no more.
        let keys = UInt32Array::new(codes.into(), nulls);
        let values = Arc::new(NullArray::new(max(&keys).map_or(0, |code| code as usize + 1)));
        let keys = DictionaryArray::try_new(keys, values).ok()?;
        Some(SegmentCodes { keys, table: self.clone(), last: OnceLock::new(), memory })
    }

    fn intern(&self, column: &ArrayRef) -> Option<Vec<u32>> {
        let mut codes = Vec::with_capacity(column.len());
        for from in (0..column.len()).step_by(ENCODED_ROWS) {
            let part = column.slice(from, ENCODED_ROWS.min(column.len() - from));
            codes.append(&mut self.known().intern(&part, &self.account)?);
        }
        Some(codes)
    }
}

impl Known {
    fn count(&self) -> usize {
        self.texts.values.len() + self.wholes.values.len()
    }

    /// Returns the codes of a column's rows; none, and no new value, where it has too many of them, or there is no memory.
    fn intern(&mut self, column: &ArrayRef, account: &MemoryAccount) -> Option<Vec<u32>> {
        if self.is_given_up {
            return None;
        }
        let before = self.count();
        let codes: Option<Vec<u32>> = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().iter().map(|text| self.text(text)).collect(),
            DataType::LargeUtf8 => column.as_string::<i64>().iter().map(|text| self.text(text)).collect(),
            DataType::Utf8View => column.as_string_view().iter().map(|text| self.text(text)).collect(),
            whole if whole.is_integer() => {
                let numbers = cast(column, &DataType::Int64).ok()?;
                numbers.as_primitive::<Int64Type>().iter().map(|number| self.whole(number)).collect()
            }
            _ => None,
        };
        if codes.is_none() {
            self.is_given_up = true;
            self.truncate(self.given_out);
        } else if self.count() > before {
            self.column = None;
            let texts = self.texts.values.get(before..).unwrap_or_default();
            // A text stands here by its code, with its code, and in the column.
            let bytes = texts.iter().map(|value| 3 * value.len()).sum::<usize>() + (self.count() - before) * 64;
            match (account.try_reserve(bytes as u64), &mut self.memory) {
                (Some(more), Some(memory)) => memory.join(more),
                (Some(more), none) => *none = Some(more),
                (None, _) => {
                    self.lacked_bytes = bytes as u64;
                    self.truncate(before);
                    return None;
                }
            }
        }
        codes
    }

    /// Forgets the values from a code on.
    fn truncate(&mut self, count: usize) {
        self.texts.truncate(count);
        self.wholes.truncate(count);
    }

    fn text(&mut self, text: Option<&str>) -> Option<u32> {
        let Some(text) = text else { return Some(0) };
        if let Some(code) = self.texts.codes.get(text) {
            return Some(*code);
        }
        self.texts.push(text.into(), TEXTS_MAX)
    }

    fn whole(&mut self, number: Option<i64>) -> Option<u32> {
        let Some(number) = number else { return Some(0) };
        if let Some(code) = self.wholes.codes.get(&number) {
            return Some(*code);
        }
        self.wholes.push(number, WHOLES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::symbols::{SymbolKind, SymbolTable, WHOLES_MAX};
    use crate::ports::MemoryAccount;
    use arrow::array::{
        ArrayRef, AsArray, DictionaryArray, Int16Array, Int64Array, LargeStringArray, StringArray, StringViewArray,
    };
    use arrow::datatypes::{Int8Type, Int64Type};
    use std::sync::Arc;

    #[test]
    fn every_form_of_text_has_the_same_codes() {
        let table = Arc::new(SymbolTable::new(SymbolKind::Text, MemoryAccount::default()));
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
        let table = Arc::new(SymbolTable::new(SymbolKind::Text, MemoryAccount::new(1_000)));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|n| n.to_string())));
        assert!(table.encode(&column).is_none());
        assert!(table.is_given_up(), "it is not tried again until there is as much memory");
        assert_eq!(table.values().len(), 0);
        let few: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        assert_eq!(table.encode(&few).unwrap().codes(), [0, 1]);
    }

    /// A plan knows the values that there were; codes that were forgotten are made again when there are more.
    #[test]
    fn codes_that_are_made_again_need_no_later_values() {
        let table = Arc::new(SymbolTable::new(SymbolKind::Text, MemoryAccount::default()));
        let [early, late]: [ArrayRef; 2] =
            [vec!["a", "b"], vec!["c", "d", "e"]].map(|texts| Arc::new(StringArray::from(texts)) as _);
        table.encode(&early).unwrap();
        let known = table.values();
        table.encode(&late).unwrap();
        let again = table.encode(&early).unwrap().column(&known, 0, 2);
        assert_eq!(again.as_any_dictionary().values().len(), 2);
    }

    #[test]
    fn whole_numbers_have_codes_as_long_as_they_are_few() {
        let table = Arc::new(SymbolTable::new(SymbolKind::Whole, MemoryAccount::default()));
        let narrow: ArrayRef = Arc::new(Int16Array::from(vec![Some(7), None, Some(-7), Some(7)]));
        let encoded = table.encode(&narrow).unwrap();
        assert_eq!(encoded.codes(), [0, 0, 1, 0]);
        assert!(encoded.is_null(1) && !encoded.is_null(0));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, 7]));
        assert_eq!(table.encode(&wide).unwrap().codes(), [2, 0]);
        assert_eq!(table.values().as_primitive::<Int64Type>().values(), &[7, -7, i64::MIN]);
        let names: ArrayRef = Arc::new(Int64Array::from_iter_values(0..WHOLES_MAX as i64 + 1));
        assert!(table.encode(&names).is_none() && table.is_given_up());
        assert_eq!(table.values().as_primitive::<Int64Type>().values(), &[7, -7, i64::MIN], "what was given out stays");
        assert!(table.encode(&narrow).is_none(), "it gives out no more");
    }
}
