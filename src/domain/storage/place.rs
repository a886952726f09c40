//! Where columns lie on the disk.

use crate::ports::{Result, Store, StoredPart};
use arrow::array::ArrayRef;
use std::sync::Arc;

/// Where columns lie on the disk.
#[derive(Debug, Clone)]
pub struct Place {
    /// The part.
    pub part: Arc<PartInUse>,
    /// Which of its batches.
    pub batch: u32,
    /// For each column the one of the part; none for a column of nulls.
    pub sources: Vec<Option<u32>>,
}

/// A part that somebody may read; the store is told when nobody can any more.
#[derive(Debug)]
pub struct PartInUse {
    /// The part.
    pub part: StoredPart,
    store: Arc<dyn Store>,
}

impl PartInUse {
    /// Uses a part of `store`.
    pub fn new(part: StoredPart, store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { part, store })
    }

    /// Reads columns of one of its batches.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn read(&self, batch: u32, columns: &[u32]) -> Result<Vec<ArrayRef>> {
        self.store.read(&self.part, batch, columns)
    }
}

impl Drop for PartInUse {
    fn drop(&mut self) {
        self.store.release(&self.part);
    }
}
