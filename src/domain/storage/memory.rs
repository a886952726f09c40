//! The memory budget: what tables, running ingestion and pinned snapshots hold together.
//!
//! A segment reserves its bytes when it is made and gives them back when the last holder drops it, so data that only an
//! old snapshot still reads is counted as well. Buffers are counted by allocation: columns that are slices of one IPC
//! message count that message once.

use crate::ports::{Error, Result};
use arrow::array::{ArrayData, RecordBatch};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that may be in use at once. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicU64>,
    max: u64,
}

/// A share of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Budget {
    /// A budget of `max` bytes.
    pub fn new(max: u64) -> Self {
        Self { used: Arc::default(), max }
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where they are not free.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        let reservation = self.reserve_unchecked(bytes);
        let used = self.used.load(Ordering::Relaxed);
        if used > self.max {
            return Err(Error::limit(format!(
                "out of table memory: {bytes} bytes more would make {used} of {} (memory_bytes_max)",
                self.max
            )));
        }
        Ok(reservation)
    }

    /// Takes `bytes` whether they are free or not: for work that gives back as much soon after.
    pub fn reserve_unchecked(&self, bytes: u64) -> Reservation {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { used: self.used.clone(), bytes }
    }

    /// Bytes in use.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Bytes taken.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of all allocations that `batch` keeps alive, each counted once.
pub fn held_bytes(batch: &RecordBatch) -> u64 {
    let mut allocations = HashMap::new();
    for column in batch.columns() {
        collect_allocations(&column.to_data(), &mut allocations);
    }
    allocations.into_values().map(|bytes| bytes as u64).sum()
}

fn collect_allocations(data: &ArrayData, allocations: &mut HashMap<usize, usize>) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        let start = buffer.data_ptr().as_ptr() as usize;
        let bytes = allocations.entry(start).or_default();
        *bytes = (*bytes).max(buffer.capacity());
    }
    for child in data.child_data() {
        collect_allocations(child, allocations);
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::memory::{Budget, held_bytes};
    use crate::ports::ErrorKind;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    #[test]
    fn a_budget_refuses_what_is_not_free_and_takes_back_what_is_dropped() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(60).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(budget.used(), 60);
        drop(first);
        assert_eq!(budget.reserve(100).unwrap().bytes(), 100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn slices_of_one_allocation_count_once() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch =
            RecordBatch::try_from_iter([("whole", column.slice(0, 500)), ("part", column.slice(500, 500))]).unwrap();
        let bytes = held_bytes(&batch);
        assert!((8_000..9_000).contains(&bytes), "{bytes}");
    }
}
