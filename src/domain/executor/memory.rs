//! The memory of queries: one account for what DataFusion's operators reserve and for what functions make.
//!
//! Operators that sort, join and group reserve by themselves. A function reserves nothing, and a plan of sixty columns may make
//! gigabytes of one batch. So the result of a function that makes much of little is asked for first, and carries its
//! reservation in one of its buffers: the memory is counted until the last batch, slice or reader has let go of it.

use crate::ports::{MemoryAccount, Reservation};
use arrow::array::{Array, ArrayData, ArrayRef, make_array};
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

impl QueryMemory {
    /// Has the largest buffer of `array`, which may be one of a child, carry `memory`: without what it turned out not to need, with
    /// what it needs beyond that.
    ///
    /// # Errors
    ///
    /// `ResourcesExhausted` where the memory that was not foreseen is not free.
    pub fn counted(&self, array: ArrayRef, mut memory: Reservation) -> Result<ArrayRef> {
        let needed = array.get_array_memory_size() as u64;
        if needed > memory.bytes() {
            memory.join(self.reserve(needed - memory.bytes())?);
        }
        let data = array.to_data();
        let most = largest_buffer(&data);
        if most == 0 {
            return Ok(array);
        }
        let mut owned = Some(memory.split(needed));
        let data = with_owner(data, most, &mut owned)?;
        Ok(make_array(data))
    }
}

/// Returns the bytes of the largest buffer of `data` and its children.
fn largest_buffer(data: &ArrayData) -> usize {
    let own = data.buffers().iter().map(Buffer::len);
    own.chain(data.child_data().iter().map(largest_buffer)).max().unwrap_or(0)
}

/// Puts `memory` into the first buffer of `most` bytes.
fn with_owner(data: ArrayData, most: usize, memory: &mut Option<Reservation>) -> Result<ArrayData> {
    let carrier = data.buffers().iter().position(|buffer| buffer.len() == most);
    if let (Some(at), Some(memory)) = (carrier, memory.take_if(|_| carrier.is_some())) {
        let mut buffers = data.buffers().to_vec();
        let owner = CountedBuffer { buffer: buffers[at].clone(), _memory: memory };
        buffers[at] = Buffer::from(Bytes::from_owner(owner));
        return Ok(data.into_builder().buffers(buffers).build()?);
    }
    if memory.is_none() || largest_buffer(&data) < most {
        return Ok(data);
    }
    let children = data.child_data().iter().map(|child| with_owner(child.clone(), most, memory));
    let children = children.collect::<Result<Vec<_>>>()?;
    Ok(data.into_builder().child_data(children).build()?)
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
    use crate::domain::executor::memory::QueryMemory;
    use arrow::array::{Array, ArrayRef, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;

    #[test]
    fn a_result_is_counted_until_its_last_slice_is_gone() {
        let memory = QueryMemory::new(10 << 20);
        let reserved = memory.reserve_result(8 << 20).unwrap().unwrap();
        assert!(memory.reserve_result(4 << 20).is_err());
        let array: ArrayRef = Arc::new(StringArray::from_iter_values((0..1_000).map(|n| format!("{n:01000}"))));
        let array = memory.counted(array, reserved).unwrap();
        let used = memory.0.used();
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
        let slice = array.slice(10, 1);
        drop(array);
        assert_eq!(memory.0.used(), used);
        drop(slice);
        assert_eq!(memory.0.used(), 0);
        assert!(memory.reserve_result(100).unwrap().is_none());
    }

    #[test]
    fn what_is_nested_is_counted_by_its_children_and_what_was_not_foreseen_is_asked_for() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..500_000));
        let field = arrow::datatypes::Field::new("n", numbers.data_type().clone(), false);
        let of_struct: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(field), numbers)]));
        let lists = (0..50_000).map(|n| Some(vec![Some(n); 10]));
        let of_list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        for array in [of_struct, of_list] {
            let memory = QueryMemory::new(10 << 20);
            let reserved = memory.reserve_result(1 << 20).unwrap().unwrap();
            let array = memory.counted(array, reserved).unwrap();
            assert!(memory.0.used() >= 4_000_000, "{}", memory.0.used());
            let child = array.to_data().child_data()[0].clone();
            drop(array);
            assert!(memory.0.used() >= 4_000_000, "a child keeps it alive");
            drop(child);
            assert_eq!(memory.0.used(), 0);
            let tight = QueryMemory::new(2 << 20);
            let reserved = tight.reserve_result(1 << 20).unwrap().unwrap();
            let large: ArrayRef = Arc::new(Int64Array::from_iter_values(0..500_000));
            assert!(tight.counted(large, reserved).is_err());
        }
    }
}
