//! Values and their codes, counted from 0 in the order in which values were first seen.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Values by their codes, and codes by their values.
#[derive(Debug)]
pub struct Coded<T> {
    /// The code of each value.
    pub codes: HashMap<T, u32, BuildHasherDefault<SymbolHasher>>,
    /// The values by their codes.
    pub values: Vec<T>,
}

impl<T> Default for Coded<T> {
    fn default() -> Self {
        Self { codes: HashMap::default(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Coded<T> {
    /// Gives the next code to a value that has none; none where there are `most` already.
    pub fn push(&mut self, value: T, most: usize) -> Option<u32> {
        let code = self.values.len();
        if code >= most {
            return None;
        }
        self.codes.insert(value.clone(), code as u32);
        self.values.push(value);
        Some(code as u32)
    }

    /// Forgets the values from a code on.
    pub fn truncate(&mut self, count: usize) {
        for value in self.values.drain(count.min(self.values.len())..) {
            self.codes.remove(&value);
        }
    }
}

/// Hashes short text and numbers eight bytes at a time. Whoever fills a table with colliding symbols slows down their own queries alone,
/// and the most values that a column may have bound by how much.
#[derive(Debug, Default)]
pub struct SymbolHasher(u64);

impl Hasher for SymbolHasher {
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
