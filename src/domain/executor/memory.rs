//! The memory of queries: one account for what DataFusion's operators reserve and for what functions make.
//!
//! Operators that sort, join and group reserve by themselves. A function reserves nothing, and a plan of sixty columns may make
//! gigabytes of one batch. So the result of a function that makes much of little is asked for first, and carries its
//! reservation in one of its buffers: the memory is counted until the last batch, slice or reader has let go of it.

use crate::ports::{MemoryAccount, Reservation};
use arrow::array::{Array, ArrayRef, make_array};
use arrow::buffer::Buffer;
use bytes::Bytes;
use datafusion::common::resources_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Results below this are too small to be counted.
const COUNTED_BYTES_MIN: u64 = 1 << 20;

/// The account of queries. Functions that have one are the same function whatever it is.
#[derive(Debug, Clone)]
pub struct QueryMemory(MemoryAccount);

impl QueryMemory {
    /// Makes an account of `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self(MemoryAccount::new(bytes_max))
    }

    /// Reserves the result of a function before it is made; none where it is small.
    ///
    /// # Errors
    ///
    /// `ResourcesExhausted` where the memory is not free.
    pub fn reserve_result(&self, bytes: u64) -> Result<Option<Reservation>> {
        if bytes < COUNTED_BYTES_MIN {
            return Ok(None);
        }
        self.reserve(bytes).map(Some)
    }

    fn reserve(&self, bytes: u64) -> Result<Reservation> {
        self.0.reserve(bytes).map_err(|_| {
            resources_datafusion_err!(
                "{bytes} bytes more would make {} of {}",
                self.0.used() + bytes,
                self.0.bytes_max()
            )
        })
    }
}

impl PartialEq for QueryMemory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for QueryMemory {}

impl Hash for QueryMemory {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A buffer with its reservation.
struct CountedBuffer {
    buffer: Buffer,
    _memory: Reservation,
}

impl AsRef<[u8]> for CountedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

/// Has the first buffer of `array` carry `memory`, but for what it turned out not to need.
pub fn counted(array: ArrayRef, mut memory: Reservation) -> Result<ArrayRef> {
    let data = array.to_data();
    let Some(first) = data.buffers().first().filter(|buffer| !buffer.is_empty()).cloned() else { return Ok(array) };
    let needed = array.get_array_memory_size() as u64;
    let owner = CountedBuffer { buffer: first, _memory: memory.split(needed) };
    let mut buffers = data.buffers().to_vec();
    buffers[0] = Buffer::from(Bytes::from_owner(owner));
    Ok(make_array(data.into_builder().buffers(buffers).build()?))
}

/// DataFusion's pool over the account.
#[derive(Debug)]
pub struct AccountPool {
    memory: QueryMemory,
    held: Mutex<Reservation>,
}

impl AccountPool {
    /// Makes a pool that takes from `memory`.
    pub fn new(memory: QueryMemory) -> Self {
        let held = Mutex::new(memory.0.reserve_over_limit(0));
        Self { memory, held }
    }

    fn held(&self) -> MutexGuard<'_, Reservation> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for AccountPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MemoryPool for AccountPool {
    fn name(&self) -> &str {
        "account"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        let more = self.memory.0.reserve_over_limit(additional as u64);
        self.held().join(more);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        drop(self.held().split(shrink as u64));
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        let more = self.memory.reserve(additional as u64)?;
        self.held().join(more);
        Ok(())
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.held().bytes()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::memory::{QueryMemory, counted};
    use arrow::array::{ArrayRef, StringArray};
    use std::sync::Arc;

    #[test]
    fn a_result_is_counted_until_its_last_slice_is_gone() {
        let memory = QueryMemory::new(10 << 20);
        let reserved = memory.reserve_result(8 << 20).unwrap().unwrap();
        assert!(memory.reserve_result(4 << 20).is_err());
        let array: ArrayRef = Arc::new(StringArray::from_iter_values((0..1_000).map(|n| format!("{n:01000}"))));
        let array = counted(array, reserved).unwrap();
        let used = memory.0.used();
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
        let slice = array.slice(10, 1);
        drop(array);
        assert_eq!(memory.0.used(), used);
        drop(slice);
        assert_eq!(memory.0.used(), 0);
        assert!(memory.reserve_result(100).unwrap().is_none());
    }
}
