//! States that are kept for a while because a client was given their number.
//!
//! Bounded in number and in time. Under memory pressure the state that was not used for longest goes first, before an
//! append is refused; the present state is never given up, which would free nothing.
//!
//! A state's number would do as its id, if numbers were never given twice. But what was acknowledged in memory alone may be lost with the
//! process, and its number given again to something else. So ids are mixed with a number of this process: one of another process
//! means nothing here.

use crate::domain::catalog::snapshot::Snapshot;
use crate::ports::{Error, ErrorKind, Limits, Result, SnapshotId};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Times to live after which a pin goes although it is used: what is read for hours was pinned again meanwhile.
const AGE_TTLS_MAX: u32 = 6;

/// The pinned states, by their versions.
#[derive(Debug)]
pub struct Pins {
    pins: Mutex<BTreeMap<u64, Pin>>,
    count_max: usize,
    ttl: Duration,
    /// What ids are mixed with.
    process: u64,
}

#[derive(Debug)]
struct Pin {
    snapshot: Arc<Snapshot>,
    pinned: Instant,
    used: Instant,
}

impl Pins {
    /// Makes an empty set within `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            pins: Mutex::default(),
            count_max: usize::try_from(limits.snapshots_max).unwrap_or(usize::MAX),
            ttl: limits.ticket_ttl(),
            process: RandomState::new().hash_one("process") >> 2,
        }
    }

    /// Pins a state. Pinning a state again is the same pin.
    pub fn pin(&self, snapshot: Arc<Snapshot>) -> SnapshotId {
        let (id, now) = (snapshot.version(), Instant::now());
        let mut pins = self.lock_unexpired();
        pins.insert(id, Pin { snapshot, pinned: now, used: now });
        let mut evicted = Vec::new();
        while pins.len() > self.count_max {
            let stalest = pins.iter().min_by_key(|(_, pin)| pin.used).map(|(id, _)| *id);
            evicted.extend(stalest.and_then(|id| pins.remove(&id)));
        }
        // The last holder of a large table takes a while to free it: not under the lock.
        drop(pins);
        drop(evicted);
        SnapshotId(id ^ self.process)
    }

    /// Returns a pinned state, which is kept for its full time again.
    ///
    /// # Errors
    ///
    /// `NotFound` where it has expired.
    pub fn get(&self, id: SnapshotId) -> Result<Arc<Snapshot>> {
        let mut pins = self.lock_unexpired();
        let pin = pins.get_mut(&(id.0 ^ self.process)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("snapshot {} has expired; ask for a new one", id.0))
        })?;
        pin.used = Instant::now();
        Ok(pin.snapshot.clone())
    }

    /// Gives up the pin that was not used for longest, but for the one of `present`; false where there is none.
    pub fn evict_one(&self, present: u64) -> bool {
        let evicted = {
            let mut pins = self.lock_unexpired();
            let past = pins.iter().filter(|(id, _)| **id != present);
            let stalest = past.min_by_key(|(_, pin)| pin.used).map(|(id, _)| *id);
            stalest.and_then(|id| pins.remove(&id))
        };
        evicted.is_some()
    }

    /// Drops the pins whose time is over, so that their memory does not wait for the next use.
    pub fn expire(&self) {
        let age_max = self.ttl.saturating_mul(AGE_TTLS_MAX);
        let is_over = |pin: &Pin| pin.used.elapsed() >= self.ttl || pin.pinned.elapsed() >= age_max;
        let expired: Vec<_> = self.lock().extract_if(.., |_, pin| is_over(pin)).collect();
        // The last holder of a large table takes a while to free it: not under the lock.
        drop(expired);
    }

    /// Locks the pins, from which those whose time is over were taken.
    fn lock_unexpired(&self) -> MutexGuard<'_, BTreeMap<u64, Pin>> {
        self.expire();
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Pin>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
