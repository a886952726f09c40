//! Which columns of a table are to have codes for their symbols, and the making of those.
//!
//! Codes are an index beside the columns: queries ask for them, they are made in the background where there are many rows, and
//! given up where memory is short. All states of a table share what was asked for.

use crate::domain::storage::segment::Segment;
use crate::domain::storage::symbols::{SymbolKind, SymbolTable};
use arrow::datatypes::Schema;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Rows up to which codes are made by whoever asks first.
const ENCODED_AT_ONCE: usize = 65_536;

/// The symbols of a table's columns.
#[derive(Debug, Default)]
pub struct WantedSymbols {
    /// Those that somebody asked for, by the names of the columns and what they are.
    wanted: Mutex<HashMap<(String, SymbolKind), Arc<SymbolTable>>>,
    /// Held by whoever makes codes of many rows.
    encoding: Mutex<()>,
}

impl WantedSymbols {
    /// Returns the symbols of a column, where every segment has codes for it; none where it has none, codes were given up, or
    /// they are not there yet.
    pub fn of_column(&self, index: usize, schema: &Schema, segments: &[Arc<Segment>]) -> Option<Arc<SymbolTable>> {
        let account = segments.first()?.account();
        let field = schema.fields().get(index)?;
        let kind = SymbolKind::of(field.data_type())?;
        let made = || Arc::new(SymbolTable::new(kind, account.clone()));
        let symbols = self.wanted().entry((field.name().clone(), kind)).or_insert_with(made).clone();
        let missing = segments.iter().filter(|segment| segment.codes(index, &symbols).is_none());
        if missing.map(|segment| segment.physical_rows()).sum::<usize>() <= ENCODED_AT_ONCE {
            encode(index, &symbols, segments);
        }
        segments.iter().all(|segment| segment.codes(index, &symbols).is_some()).then_some(symbols)
    }

    /// Makes the codes that are wanted and not there; nothing where somebody is at it.
    pub fn encode_wanted(&self, schema: &Schema, segments: &[Arc<Segment>]) {
        let _held = match self.encoding.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let wanted = self.wanted().clone();
        for ((name, kind), symbols) in wanted {
            if let Some(index) = column_of(schema, &name, kind) {
                encode(index, &symbols, segments);
            }
        }
    }

    /// Returns whether codes are wanted that are not there yet and could be.
    pub fn wants_codes(&self, schema: &Schema, segments: &[Arc<Segment>]) -> bool {
        let wanted = self.wanted().clone();
        let is_missing = |((name, kind), symbols): (&(String, SymbolKind), &Arc<SymbolTable>)| {
            let index = column_of(schema, name, *kind).filter(|_| !symbols.is_given_up());
            index.is_some_and(|index| segments.iter().any(|segment| segment.codes(index, symbols).is_none()))
        };
        wanted.iter().any(is_missing)
    }

    /// Forgets the codes of all segments, and what symbols there are; returns whether that freed anything.
    pub fn forget_codes(&self, segments: &[Arc<Segment>]) -> bool {
        let freed_bytes: u64 = segments.iter().map(|segment| segment.forget_codes()).sum();
        if freed_bytes > 0 {
            let wanted: Vec<_> = self.wanted().drain().collect();
            let lacking = wanted.into_iter().map(|(name, symbols)| (name, Arc::new(symbols.emptied(freed_bytes))));
            self.wanted().extend(lacking);
        }
        freed_bytes > 0
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<(String, SymbolKind), Arc<SymbolTable>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the position of a column that has symbols of a kind.
fn column_of(schema: &Schema, name: &str, kind: SymbolKind) -> Option<usize> {
    let index = schema.index_of(name).ok()?;
    (SymbolKind::of(schema.field(index).data_type()) == Some(kind)).then_some(index)
}

fn encode(index: usize, symbols: &Arc<SymbolTable>, segments: &[Arc<Segment>]) {
    // Given up for one segment, it is of no use for the others.
    let _ = !symbols.is_given_up() && segments.iter().all(|segment| segment.encode(index, symbols));
}
