//! Counts the allocations that segments hold against the memory account, each once, however many segments share it.
//!
//! Columns of one IPC message are slices of one allocation; an UPDATE of one column and an ALTER make segments that share
//! all other columns with the ones before; a dictionary is shared by every batch of its stream. So what is counted is the
//! allocation, by the address at which it begins, with the number of segments that hold it. Memory is asked for before an
//! allocation is registered.
//!
//! Invariant: a [`Claim`] is dropped before the buffers that it names, so that an address cannot be given to somebody else
//! while it is registered. Whoever holds both declares the claim first.

use crate::ports::{MemoryAccount, Reservation, Result};
use arrow::array::{ArrayData, RecordBatch};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The allocations of all segments. Clones share them.
#[derive(Debug, Clone)]
pub struct Allocations {
    account: MemoryAccount,
    /// What is asked for memory: the account, or the same without its limit.
    asked: MemoryAccount,
    registered: Arc<Mutex<HashMap<usize, Allocation>>>,
}

/// One allocation that at least one segment holds.
#[derive(Debug)]
struct Allocation {
    holders: usize,
    memory: Reservation,
}

/// The share that one segment has in the allocations of its columns. Dropping it gives back what nobody else holds.
#[derive(Debug)]
pub struct Claim {
    allocations: Allocations,
    addresses: Vec<usize>,
    bytes: u64,
    added_bytes: u64,
}

impl Allocations {
    /// Makes a register whose bytes are taken from `account`.
    pub fn new(account: MemoryAccount) -> Self {
        Self { asked: account.clone(), account, registered: Arc::default() }
    }

    /// Returns the same register, which refuses nothing: what was stored under a limit has to be there again under it, whatever it takes on
    /// the way.
    #[must_use]
    pub fn without_limit(&self) -> Self {
        Self { asked: self.account.without_limit(), ..self.clone() }
    }

    /// Returns the account that is asked for what is not an allocation of columns.
    pub fn asked(&self) -> &MemoryAccount {
        &self.asked
    }

    /// Reserves bytes that are about to be allocated.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where they are not free.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        self.asked.reserve(bytes)
    }

    /// Returns the account that all bytes are taken from.
    pub fn account(&self) -> &MemoryAccount {
        &self.account
    }

    /// Claims the allocations of `batch`; those that are registered already cost nothing.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where the memory for the others is not free.
    pub fn claim(&self, batch: &RecordBatch) -> Result<Claim> {
        self.claim_with(batch, |bytes| self.asked.reserve(bytes))
    }

    /// Claims the allocations of `batch` even past the account's limit: for what takes the place of other segments.
    pub fn claim_over_limit(&self, batch: &RecordBatch) -> Claim {
        self.claim_with(batch, |bytes| Ok(self.account.reserve_over_limit(bytes)))
            .expect("a reservation over the limit is never refused")
    }

    fn claim_with(&self, batch: &RecordBatch, reserve: impl Fn(u64) -> Result<Reservation>) -> Result<Claim> {
        let found = allocations_of(batch);
        let bytes = found.values().sum();
        // Reserving may drop segments to make room, whose claims lock the register: never reserve under the lock.
        let mut memory = reserve(self.missing_bytes(&found))?;
        loop {
            let mut registered = self.lock();
            let missing = missing_bytes(&registered, &found);
            if missing <= memory.bytes() {
                for (address, bytes) in &found {
                    register(&mut registered, *address, *bytes, &mut memory);
                }
                // What was reserved too much goes back when `memory` is dropped.
                let addresses = found.into_keys().collect();
                return Ok(Claim { allocations: self.clone(), addresses, bytes, added_bytes: missing });
            }
            // Another holder let go meanwhile.
            drop(registered);
            drop(memory);
            memory = reserve(missing)?;
        }
    }

    fn missing_bytes(&self, found: &HashMap<usize, u64>) -> u64 {
        missing_bytes(&self.lock(), found)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Allocation>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing_bytes(registered: &HashMap<usize, Allocation>, found: &HashMap<usize, u64>) -> u64 {
    let missing = |(address, bytes): (&usize, &u64)| {
        bytes.saturating_sub(registered.get(address).map_or(0, |allocation| allocation.memory.bytes()))
    };
    found.iter().map(missing).sum()
}

fn register(registered: &mut HashMap<usize, Allocation>, address: usize, bytes: u64, memory: &mut Reservation) {
    let allocation = registered.entry(address).or_insert_with(|| Allocation { holders: 0, memory: memory.split(0) });
    allocation.holders += 1;
    // A buffer may say less of an allocation than another one does: the larger counts.
    if let Some(more) = bytes.checked_sub(allocation.memory.bytes()).filter(|more| *more > 0) {
        allocation.memory.join(memory.split(more));
    }
}

impl Claim {
    /// Returns the bytes of all its allocations, shared ones included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the bytes that nobody else had claimed when this was made.
    pub fn added_bytes(&self) -> u64 {
        self.added_bytes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut registered = self.allocations.lock();
        for address in &self.addresses {
            if let Some(allocation) = registered.get_mut(address) {
                allocation.holders -= 1;
                if allocation.holders == 0 {
                    registered.remove(address);
                }
            }
        }
    }
}

/// Returns the bytes of all allocations that `batch` keeps alive, each counted once.
pub fn held_bytes(batch: &RecordBatch) -> u64 {
    allocations_of(batch).into_values().sum()
}

/// Returns the allocations of a batch, by address, with their bytes.
fn allocations_of(batch: &RecordBatch) -> HashMap<usize, u64> {
    let mut found = HashMap::new();
    for column in batch.columns() {
        collect_allocations(&column.to_data(), &mut found);
    }
    found
}

fn collect_allocations(data: &ArrayData, found: &mut HashMap<usize, u64>) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        // An empty buffer has no allocation: its address is the same dangling one for all.
        if buffer.capacity() > 0 {
            let bytes = found.entry(buffer.data_ptr().as_ptr() as usize).or_default();
            *bytes = (*bytes).max(buffer.capacity() as u64);
        }
    }
    for child in data.child_data() {
        collect_allocations(child, found);
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::allocations::{Allocations, held_bytes};
    use crate::ports::{ErrorKind, MemoryAccount};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    fn batch(columns: &[(&str, &ArrayRef)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().map(|(name, column)| (*name, Arc::clone(column)))).unwrap()
    }

    #[test]
    fn slices_of_one_allocation_count_once() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let (first, second): (ArrayRef, ArrayRef) = (column.slice(0, 500), column.slice(500, 500));
        let bytes = held_bytes(&batch(&[("whole", &first), ("part", &second)]));
        assert!((8_000..9_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_several_claim_is_counted_once_until_the_last_lets_go() {
        let account = MemoryAccount::new(20_000);
        let allocations = Allocations::new(account.clone());
        let column = |from: i64| Arc::new(Int64Array::from_iter_values(from..from + 1000)) as ArrayRef;
        let (a, b, c) = (column(0), column(1), column(2));
        let first = allocations.claim(&batch(&[("a", &a), ("b", &b)])).unwrap();
        let used = account.used();
        assert_eq!(used, first.bytes());
        let second = allocations.claim(&batch(&[("a", &a), ("b", &b)])).unwrap();
        assert_eq!(account.used(), used);
        // A third column does not fit beside the two; two of them and their sharers do.
        assert_eq!(allocations.claim(&batch(&[("a", &a), ("c", &c)])).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(account.used(), used);
        drop(first);
        assert_eq!(account.used(), used);
        drop(second);
        assert_eq!(account.used(), 0);
        let over = allocations.claim_over_limit(&batch(&[("a", &a), ("b", &b), ("c", &c)]));
        assert!(account.used() > account.bytes_max() && over.bytes() == account.used());
        drop(over);
        assert_eq!(account.used(), 0);
    }
}
