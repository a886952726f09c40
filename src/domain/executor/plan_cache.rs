//! A cache of the plans of earlier statements.
//!
//! A plan is cached without data: its tables are names and schemas, and take the segments of the snapshot it runs on
//! (`bind.rs`). So new data leaves it valid; a definition makes it worthless, which is why each entry remembers the
//! definitions that its plan was made under. What depends on the moment – `now()`, `random()` – is never cached.

use crate::domain::executor::plan::Prepared;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest statement whose plan is cached, in bytes.
const SQL_BYTES_MAX: usize = 16 << 10;

/// Plans by the text of their statements. The least recently used one is evicted.
#[derive(Debug)]
pub struct PlanCache {
    plans: Mutex<HashMap<String, CachedPlan>>,
    plans_max: usize,
    clock: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct CachedPlan {
    plan: Arc<Prepared>,
    definitions: u64,
    used: u64,
}

/// Hits and misses of the plan cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanCounts {
    /// Statements whose plan was cached.
    pub hits: u64,
    /// Statements whose plan had to be made.
    pub misses: u64,
}

impl PlanCache {
    /// Makes a cache of up to `plans_max` plans.
    pub fn new(plans_max: u64) -> Self {
        Self {
            plans: Mutex::default(),
            plans_max: usize::try_from(plans_max).unwrap_or(usize::MAX),
            clock: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Returns the plan of `sql`, if it was made under these definitions.
    pub fn get(&self, sql: &str, definitions: u64) -> Option<Arc<Prepared>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let found = plans.get_mut(sql).filter(|entry| entry.definitions == definitions).map(|entry| {
            entry.used = self.clock.fetch_add(1, Ordering::Relaxed);
            entry.plan.clone()
        });
        self.hits.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }

    /// Counts a statement whose plan had to be made. Not counted by `get`: changes look there too and are never cached.
    pub fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Caches the plan of `sql`, unless its text is too long.
    pub fn put(&self, sql: &str, definitions: u64, plan: Arc<Prepared>) {
        if sql.len() > SQL_BYTES_MAX || self.plans_max == 0 {
            return;
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= self.plans_max && !plans.contains_key(sql) {
            // A scan is fine: it happens on a miss, which costs a planning anyway.
            let oldest = plans.iter().min_by_key(|(_, entry)| entry.used).map(|(sql, _)| sql.clone());
            oldest.and_then(|oldest| plans.remove(&oldest));
        }
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        plans.insert(sql.to_owned(), CachedPlan { plan, definitions, used });
    }

    /// Returns the counts since the start.
    pub fn counts(&self) -> PlanCounts {
        PlanCounts { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }
}
