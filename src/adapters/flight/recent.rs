//! What the server remembers between two calls, and forgets some time after its last use.
//!
//! Clients go away without saying so, so nothing is remembered for ever, and never more than so many things.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Values by their ids.
#[derive(Debug)]
pub struct Recent<V> {
    values: Mutex<HashMap<u128, Entry<V>>>,
    ttl: Duration,
    count_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: Instant,
}

impl<V> Recent<V> {
    /// Nothing yet. Values are good for `ttl` from their last use, and `count_max` of them at the same time.
    pub fn new(ttl: Duration, count_max: usize) -> Self {
        Self { values: Mutex::default(), ttl, count_max }
    }

    /// Remembers `value`, unless there are as many as may be: whether it did.
    pub fn keep(&self, id: u128, value: V) -> bool {
        let mut values = self.roomy();
        let room = values.len() < self.count_max || values.contains_key(&id);
        if room {
            values.insert(id, Entry { value, used: Instant::now() });
        }
        room
    }

    /// Remembers `value`; the one that was used longest ago gives way for it where it must.
    pub fn keep_over_oldest(&self, id: u128, value: V) {
        let mut values = self.roomy();
        if values.len() >= self.count_max && !values.contains_key(&id) {
            let oldest = values.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id);
            oldest.and_then(|oldest| values.remove(&oldest));
        }
        values.insert(id, Entry { value, used: Instant::now() });
    }

    /// What `look` finds in a value that is remembered, which is a use of it.
    pub fn with<T>(&self, id: u128, look: impl FnOnce(&mut V) -> T) -> Option<T> {
        let mut values = self.lock();
        let entry = values.get_mut(&id).filter(|entry| entry.used.elapsed() < self.ttl)?;
        entry.used = Instant::now();
        Some(look(&mut entry.value))
    }

    /// Forgets a value at once.
    pub fn forget(&self, id: u128) {
        let gone = self.lock().remove(&id);
        drop(gone);
    }

    /// Forgets what was not used in time, for ever.
    pub async fn expire(&self) {
        loop {
            tokio::time::sleep(self.ttl.clamp(Duration::from_millis(50), Duration::from_secs(10))).await;
            self.sweep();
        }
    }

    /// The values, without those that are good no more where they take others' room.
    fn roomy(&self) -> MutexGuard<'_, HashMap<u128, Entry<V>>> {
        let is_full = self.lock().len() >= self.count_max;
        if is_full {
            self.sweep();
        }
        self.lock()
    }

    /// Forgets what was not used in time. It is let go outside of the lock: that may delete files.
    fn sweep(&self) {
        let gone: Vec<_> = self.lock().extract_if(|_, entry| entry.used.elapsed() >= self.ttl).collect();
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Entry<V>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::recent::Recent;
    use std::time::Duration;

    #[test]
    fn what_is_remembered_is_bounded_by_age_and_by_number() {
        let recent = Recent::new(Duration::from_secs(3_600), 2);
        assert!(recent.keep(1, "a") && recent.keep(2, "b"));
        assert!(!recent.keep(3, "c"), "there is no room");
        assert!(recent.keep(2, "b again"), "which takes no more room than it had");
        assert_eq!(recent.with(1, |value| *value), Some("a"));
        recent.keep_over_oldest(3, "c");
        assert_eq!([1, 2, 3].map(|id| recent.with(id, |value| *value)), [Some("a"), None, Some("c")]);
        recent.forget(1);
        assert_eq!(recent.with(1, |value| *value), None);
        let brief = Recent::new(Duration::ZERO, 2);
        assert!(brief.keep(1, "a"));
        assert_eq!(brief.with(1, |value| *value), None);
    }
}
