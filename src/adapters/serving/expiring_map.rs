//! A map whose entries expire some time after their last use, with a bounded number of them.
//!
//! A server keeps in it what it remembers between two calls: clients go away without notice, so nothing may stay for
//! ever.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bounded map from ids to values that expire.
#[derive(Debug)]
pub struct ExpiringMap<V> {
    values: Mutex<HashMap<u128, Entry<V>>>,
    ttl: Duration,
    count_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: Instant,
}

impl<V> ExpiringMap<V> {
    /// Creates an empty map, whose values expire `ttl` after their last use, and which holds `count_max` of them at
    /// most.
    pub fn new(ttl: Duration, count_max: usize) -> Self {
        Self { values: Mutex::default(), ttl, count_max }
    }

    /// Inserts `value` unless the map is full, and returns whether it did.
    pub fn insert(&self, id: u128, value: V) -> bool {
        let mut values = self.lock_with_room();
        let room = values.len() < self.count_max || values.contains_key(&id);
        if room {
            values.insert(id, Entry { value, used: Instant::now() });
        }
        room
    }

    /// Inserts `value`. If the map is full, the value that was used longest ago is removed for it.
    pub fn insert_evicting_oldest(&self, id: u128, value: V) {
        let mut values = self.lock_with_room();
        if values.len() >= self.count_max && !values.contains_key(&id) {
            let oldest = values.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id);
            oldest.and_then(|oldest| values.remove(&oldest));
        }
        values.insert(id, Entry { value, used: Instant::now() });
    }

    /// Applies `read` to a value and returns its result; none if the value is not there. It counts as a use.
    pub fn with<T>(&self, id: u128, read: impl FnOnce(&mut V) -> T) -> Option<T> {
        let mut values = self.lock();
        let entry = values.get_mut(&id).filter(|entry| entry.used.elapsed() < self.ttl)?;
        entry.used = Instant::now();
        Some(read(&mut entry.value))
    }

    /// Removes a value.
    pub fn remove(&self, id: u128) {
        // Dropped outside of the lock: that may delete a file.
        let removed = self.lock().remove(&id);
        drop(removed);
    }

    /// Removes expired values again and again; never returns.
    pub async fn expire(&self) {
        loop {
            tokio::time::sleep(self.ttl.clamp(Duration::from_millis(50), Duration::from_secs(10))).await;
            self.sweep();
        }
    }

    /// Locks the values. If the map is full, the expired ones are removed before.
    fn lock_with_room(&self) -> MutexGuard<'_, HashMap<u128, Entry<V>>> {
        let is_full = self.lock().len() >= self.count_max;
        if is_full {
            self.sweep();
        }
        self.lock()
    }

    /// Removes expired values. They are dropped outside of the lock: that may delete files.
    fn sweep(&self) {
        let expired: Vec<_> = self.lock().extract_if(|_, entry| entry.used.elapsed() >= self.ttl).collect();
        drop(expired);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Entry<V>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::serving::expiring_map::ExpiringMap;
    use std::time::Duration;

    #[test]
    fn values_are_bounded_by_age_and_by_number() {
        let map = ExpiringMap::new(Duration::from_secs(3_600), 2);
        assert!(map.insert(1, "a") && map.insert(2, "b"));
        assert!(!map.insert(3, "c"), "there is no room");
        assert!(map.insert(2, "b again"), "replacing takes no more room");
        assert_eq!(map.with(1, |value| *value), Some("a"));
        map.insert_evicting_oldest(3, "c");
        assert_eq!([1, 2, 3].map(|id| map.with(id, |value| *value)), [Some("a"), None, Some("c")]);
        map.remove(1);
        assert_eq!(map.with(1, |value| *value), None);
        let brief = ExpiringMap::new(Duration::ZERO, 2);
        assert!(brief.insert(1, "a"));
        assert_eq!(brief.with(1, |value| *value), None);
    }
}
