//! Plans and runs SQL over a snapshot. DataFusion is named here and nowhere else.
//!
//! A statement is planned against one snapshot: the planner asks for tables and gets those, so later changes cannot
//! show. Plans run on the engine's own runtime, whose threads have a stack to match the limits on statements; their
//! batches reach the caller over a short channel, which is what bounds the memory of a stream.

mod abort_on_drop;
mod bind;
mod compare_constants;
mod error;
mod functions;
mod interrupt;
mod lane;
mod memory;
mod messages;
mod pace;
mod plan;
mod plan_cache;
mod plan_facts;
mod plan_size;
mod planner_context;
mod prune;
mod pulled_stream;
mod run;
mod running;
mod scan;
mod semantics;
mod semi_joins;
mod sequential_gather;
mod session;
mod slices;
mod time_units;
mod timeseries;
mod top_rows;
mod view_types;

pub use bind::{BoundPlan, PlanInput};
pub use functions::FunctionHelp;
pub use plan::{Parameters, PlanRequest, Prepared};
pub use plan_cache::PlanCounts;
pub use running::QueryLimits;

use crate::domain::catalog::Snapshot;
use crate::domain::executor::abort_on_drop::AbortOnDrop;
use crate::domain::executor::functions::functions;
use crate::domain::executor::memory::QueryMemory;
use crate::domain::executor::plan_cache::PlanCache;
use crate::domain::executor::plan_size::PlanLimits;
use crate::domain::executor::session::{Session, shared_runtime};
use crate::ports::{Error, ErrorKind, Limits, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// Stack of each engine thread, in bytes: what the deepest statement within the limits needs, in any build profile.
/// Only pages that are touched cost memory.
pub const STACK_BYTES: usize = 64 << 20;

/// The runtimes of the engine: two sets of threads, so that long work does not delay short work.
#[derive(Debug, Clone)]
pub struct Lanes {
    /// For calls, and plans that are sure to be short. Its threads have a stack of [`STACK_BYTES`].
    pub quick: Handle,
    /// For all other plans. More threads than cores: the system shares the cores out where one of them is held for
    /// long.
    pub heavy: Handle,
}

impl From<Handle> for Lanes {
    /// Puts both lanes on one runtime, for uses where delays do not matter.
    fn from(runtime: Handle) -> Self {
        Self { quick: runtime.clone(), heavy: runtime }
    }
}

/// Plans and runs statements.
pub struct Executor {
    lanes: Lanes,
    /// One partition: for statements that depend on the order in which rows arrived, or compute nothing, and for small tables.
    serial: Session,
    /// For statements whose rows come out in the order of the table: each partition is a run of its rows.
    ordered: Session,
    /// As many partitions as its options say.
    parallel: Session,
    parallel_rows_min: u64,
    plans: PlanCache,
    plan_limits: PlanLimits,
}

/// Into how many parts a statement is divided, and from which size on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallelism {
    /// Parts of a plan.
    pub partitions: usize,
    /// Rows of the tables that a statement reads from which on it is divided.
    pub rows_min: u64,
}

impl Default for Parallelism {
    /// A part for each core, where that costs less than it saves.
    fn default() -> Self {
        let partitions = std::thread::available_parallelism().map_or(1, usize::from);
        Self { partitions, rows_min: 65_537 }
    }
}

impl Executor {
    /// Makes an executor that works on `lanes`.
    ///
    /// # Errors
    ///
    /// `Internal` where DataFusion does not start.
    pub fn new(lanes: Lanes, limits: &Limits, parallelism: Parallelism) -> Result<Self> {
        let memory = QueryMemory::new(limits.query_memory_bytes_max);
        let runtime = shared_runtime(&memory)?;
        Ok(Self {
            lanes,
            serial: Session::new(1, true, runtime.clone(), &memory)?,
            ordered: Session::new(parallelism.partitions, true, runtime.clone(), &memory)?,
            parallel: Session::new(parallelism.partitions, false, runtime, &memory)?,
            parallel_rows_min: parallelism.rows_min,
            plans: PlanCache::new(limits.plans_max),
            plan_limits: limits.into(),
        })
    }

    /// Returns the cached plan of a read without parameters, if it was made under the definitions of `snapshot`.
    pub fn cached(&self, sql: &str, snapshot: &Snapshot) -> Option<Arc<Prepared>> {
        self.plans.get(sql, snapshot.definitions())
    }

    /// Plans like [`Executor::prepare`], and caches the plan under `sql` if it may serve again.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::prepare`].
    pub fn prepare_and_cache(&self, sql: &str, request: PlanRequest, snapshot: &Snapshot) -> Result<Arc<Prepared>> {
        let prepared = Arc::new(self.prepare(request, snapshot)?);
        self.plans.missed();
        if prepared.cacheable {
            self.plans.put(sql, snapshot.definitions(), prepared.clone());
        }
        Ok(prepared)
    }

    /// Returns every function that statements may call.
    pub fn functions(&self) -> Vec<FunctionHelp> {
        functions(&self.serial.state)
    }

    /// Returns how often a plan was found in the cache, and how often not.
    pub fn plan_counts(&self) -> PlanCounts {
        self.plans.counts()
    }

    /// Runs `work` on the quick lane; dropping the future stops it.
    ///
    /// # Errors
    ///
    /// Its own, `Unavailable` where the engine stops, `Internal` where it panics.
    pub async fn on_quick_lane<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        AbortOnDrop(self.lanes.quick.spawn(work)).await
    }

    /// Runs `work`, which may compute for long, on the heavy lane; dropping the future stops it where it next waits.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::on_quick_lane`].
    pub async fn on_heavy_lane<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        AbortOnDrop(self.lanes.heavy.spawn(work)).await
    }

    /// Runs `work`, which never waits, on a thread of its own for as long as it takes, and answers by `deadline`.
    ///
    /// # Errors
    ///
    /// Those of `work`, `Timeout`, `Internal` where it panics.
    pub async fn on_own_thread<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // A blocking task that has begun cannot be aborted: past the deadline it runs on, and only its caller goes.
        let task = AbortOnDrop(self.lanes.quick.spawn_blocking(work));
        match deadline {
            None => task.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), task)
                .await
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the statement was not planned in time"))),
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}
