//! The memory budget: what tables, running ingestion and pinned snapshots hold together.
//!
//! A segment reserves its bytes when it is made and gives them back when the last holder drops it, so data that only an
//! old snapshot still reads is counted as well. Buffers are counted by allocation: columns that are slices of one IPC
//! message count that message once.

use crate::ports::{Error, Result};
use arrow::array::{ArrayData, RecordBatch};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A number of bytes that may be in use at once. Clones share it.
#[derive(Clone)]
pub struct Budget {
    used: Arc<AtomicU64>,
    max: u64,
    relief: Arc<OnceLock<Relief>>,
}

/// Gives up something that may hold bytes and that nobody needs at the moment; false where there is no such thing.
type Relief = Box<dyn Fn() -> bool + Send + Sync>;

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("used", &self.used).field("max", &self.max).finish_non_exhaustive()
    }
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
        Self { used: Arc::default(), max, relief: Arc::default() }
    }

    /// Says what is given up before anything is refused.
    pub fn relieved_by(&self, relief: impl Fn() -> bool + Send + Sync + 'static) {
        let set = self.relief.set(Box::new(relief));
        debug_assert!(set.is_ok(), "said once");
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where they are not free.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        loop {
            // Asked before it is taken: two that fit one by one do not refuse each other.
            let next = |used: u64| used.checked_add(bytes).filter(|next| *next <= self.max);
            match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
                Ok(_) => return Ok(Reservation { used: self.used.clone(), bytes }),
                // What is larger than all of it is refused at nobody's cost.
                Err(_) if bytes <= self.max && self.relief.get().is_some_and(|relief| relief()) => {}
                Err(used) => {
                    return Err(Error::limit(format!(
                        "out of table memory: {bytes} bytes more would make {} of {} (memory_bytes_max)",
                        used.saturating_add(bytes),
                        self.max
                    )));
                }
            }
        }
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
    fn what_nobody_needs_is_given_up_first() {
        let budget = Budget::new(100);
        let idle = std::sync::Mutex::new(vec![budget.reserve(50).unwrap(), budget.reserve(50).unwrap()]);
        budget.relieved_by(move || idle.lock().unwrap().pop().is_some());
        let needed = budget.reserve(80).unwrap();
        assert_eq!(budget.used(), 80);
        assert_eq!(budget.reserve(30).unwrap_err().kind(), ErrorKind::LimitExceeded);
        drop(needed);
        let idle = std::sync::Mutex::new(vec![()]);
        let budget = Budget::new(100);
        budget.relieved_by(move || idle.lock().unwrap().pop().is_some_and(|()| panic!("for nothing")));
        assert_eq!(budget.reserve(101).unwrap_err().kind(), ErrorKind::LimitExceeded);
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
