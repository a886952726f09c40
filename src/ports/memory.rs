//! The memory account: one number for everything that holds bytes on behalf of clients.
//!
//! Tables, staged and decoded data, dictionaries of decoders, inflation, stored results, pinned snapshots and deletion
//! masks all reserve here. It sits among the ports because both sides of them take from the same account: the adapters
//! what they decode and keep, the engine what it stores. It is a counter, not an allocator: whoever is about to allocate
//! asks first, and gives back by dropping the [`Reservation`].

use crate::ports::{Error, Result};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A number of bytes that may be in use at once. Clones share it.
#[derive(Clone)]
pub struct MemoryAccount {
    used: Arc<AtomicU64>,
    bytes_max: u64,
    relief: Arc<OnceLock<Relief>>,
}

/// Frees something that may hold bytes and is not in use; false where there is no such thing.
type Relief = Box<dyn Fn() -> bool + Send + Sync>;

/// A share of a [`MemoryAccount`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl MemoryAccount {
    /// Makes an account of `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { used: Arc::default(), bytes_max, relief: Arc::default() }
    }

    /// Sets what is freed before a reservation is refused. Only the first call has an effect: an account has one owner.
    pub fn relieved_by(&self, relief: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.relief.set(Box::new(relief));
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where they are not free, even after relief.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        loop {
            // Compared before it is added: two that fit one by one do not refuse each other.
            let next = |used: u64| used.checked_add(bytes).filter(|next| *next <= self.bytes_max);
            match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
                Ok(_) => return Ok(Reservation { used: self.used.clone(), bytes }),
                // What is larger than the whole account is refused without freeing anything for it.
                Err(_) if bytes <= self.bytes_max && self.relief.get().is_some_and(|relief| relief()) => {}
                Err(used) => {
                    return Err(Error::limit(format!(
                        "out of memory for data: {bytes} bytes more would make {} of {} (memory_bytes_max)",
                        used.saturating_add(bytes),
                        self.bytes_max
                    )));
                }
            }
        }
    }

    /// Reserves `bytes` if they are free as things are: nothing is freed for them. For what has another place to go.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let next = |used: u64| used.checked_add(bytes).filter(|next| *next <= self.bytes_max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok().then(|| Reservation { used: self.used.clone(), bytes })
    }

    /// Reserves `bytes` whether they are free or not, for work that frees memory: compaction, and masks of
    /// deleted rows.
    pub fn reserve_over_limit(&self, bytes: u64) -> Reservation {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { used: self.used.clone(), bytes }
    }

    /// Returns the same account without its limit: for what has to be there again after a restart.
    #[must_use]
    pub fn without_limit(&self) -> Self {
        Self { used: self.used.clone(), bytes_max: u64::MAX, relief: Arc::default() }
    }

    /// Returns the bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the bytes that may be in use at once.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

impl fmt::Debug for MemoryAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryAccount").field("used", &self.used()).field("bytes_max", &self.bytes_max).finish()
    }
}

impl Default for MemoryAccount {
    /// Makes an account without a limit.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Reservation {
    /// Returns the bytes reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Splits off up to `bytes` into a reservation of its own.
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { used: self.used.clone(), bytes }
    }

    /// Adds `other` of the same account to this reservation.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.used, &other.used), "reservations of two accounts");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::ports::{ErrorKind, MemoryAccount};
    use std::sync::Mutex;

    #[test]
    fn an_account_refuses_what_is_not_free_and_takes_back_what_is_dropped() {
        let account = MemoryAccount::new(100);
        let mut first = account.reserve(60).unwrap();
        assert_eq!(account.reserve(60).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let part = first.split(20);
        assert_eq!((first.bytes(), part.bytes(), account.used()), (40, 20, 60));
        drop(first);
        assert_eq!(account.used(), 20);
        drop(part);
        assert_eq!(account.reserve(100).unwrap().bytes(), 100);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn what_is_not_in_use_is_freed_first() {
        let account = MemoryAccount::new(100);
        let idle = Mutex::new(vec![account.reserve(50).unwrap(), account.reserve(50).unwrap()]);
        account.relieved_by(move || idle.lock().unwrap().pop().is_some());
        let needed = account.reserve(80).unwrap();
        assert_eq!(account.used(), 80);
        assert_eq!(account.reserve(30).unwrap_err().kind(), ErrorKind::LimitExceeded);
        drop(needed);
        let account = MemoryAccount::new(100);
        account.relieved_by(|| panic!("for nothing"));
        assert_eq!(account.reserve(101).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
