//! Plans and runs SQL over a snapshot. DataFusion is named here and nowhere else.
//!
//! A statement is planned against one snapshot: the planner asks for tables and gets those, so nothing that happens
//! meanwhile can show. Plans run on the engine's own runtime, whose threads have a stack to match the limits on
//! statements; their batches reach the caller over a short channel, which is what bounds the memory of a stream.

mod cache;
mod chain;
mod context;
mod error;
mod lent;
mod plan;
mod prune;
mod run;
mod scan;
mod sized;
pub mod sql;
mod views;

pub use cache::PlanCounts;
pub use plan::{Prepared, Question, Source, Values};
pub use run::Allowance;
pub use scan::ROW_NUMBER;

use crate::domain::catalog::Snapshot;
use crate::domain::executor::cache::PlanCache;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::plan::Types;
use crate::domain::executor::sized::sized;
use crate::ports::{Error, Limits, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Stack of each engine thread, in bytes: what the deepest statement within the limits needs, in any build profile.
/// Only pages that are touched cost memory.
pub const STACK_BYTES: usize = 64 << 20;

/// Plans and runs statements.
pub struct Executor {
    engine: Handle,
    /// One partition: for statements whose rows come out in the order of the table, and for small tables.
    serial: Session,
    /// A partition for each core.
    parallel: Session,
    plans: PlanCache,
}

/// What statements are planned with, and what their plans run in: the same for all of them, because making it anew – it
/// has every function there is – takes longer than a small query.
struct Session {
    state: SessionState,
    task: Arc<TaskContext>,
}

impl Session {
    async fn physical(&self, logical: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
        self.state.query_planner().create_physical_plan(logical, state).await.map_err(from_datafusion)
    }
}

impl Executor {
    /// An executor that works on `engine`, a runtime whose threads have a stack of [`STACK_BYTES`].
    ///
    /// # Errors
    ///
    /// `Internal` where DataFusion does not start.
    pub fn new(engine: Handle, limits: &Limits) -> Result<Self> {
        let bytes_max = usize::try_from(limits.query_memory_bytes_max).unwrap_or(usize::MAX);
        let no_spilling = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes_max)))
            .with_disk_manager_builder(no_spilling)
            .build_arc()
            .map_err(from_datafusion)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let state = |partitions| {
            let mut state = SessionStateBuilder::new_with_default_features()
                .with_config(session_config(partitions))
                .with_runtime_env(runtime.clone())
                .with_type_planner(Arc::new(Types))
                .build();
            for function in sized(state.scalar_functions().clone().values()) {
                state.register_udf(function).map_err(from_datafusion)?;
            }
            Ok::<_, Error>(Session { task: state.task_ctx(), state })
        };
        Ok(Self { engine, serial: state(1)?, parallel: state(cores)?, plans: PlanCache::new(limits.plans_max) })
    }

    /// The kept plan of a read without parameters, if it was made under the definitions of `snapshot`.
    pub fn kept(&self, sql: &str, snapshot: &Snapshot) -> Option<Arc<Prepared>> {
        self.plans.get(sql, snapshot.definitions())
    }

    /// As [`Executor::prepare`], and keeps the plan for `sql` if it may serve again.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn prepare_to_keep(&self, sql: &str, question: Question, snapshot: &Snapshot) -> Result<Arc<Prepared>> {
        let prepared = Arc::new(self.prepare(question, snapshot)?);
        self.plans.missed();
        if prepared.lasting {
            self.plans.put(sql, snapshot.definitions(), prepared.clone());
        }
        Ok(prepared)
    }

    /// How often a plan was kept already, and how often not.
    pub fn plan_counts(&self) -> PlanCounts {
        self.plans.counts()
    }

    /// Runs `work` on the engine's runtime; dropping the future stops it.
    pub async fn on_engine<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = run::AbortOnDrop(self.engine.spawn(work));
        task.await
    }
}

fn session_config(partitions: usize) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(false);
    let options = config.options_mut();
    // Names keep their case: DataFrames have columns like `Px`. `sql::Names` finds what unquoted ones mean.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

/// A task that ends with the future that waits for it.
impl<T> Future for run::AbortOnDrop<Result<T>> {
    type Output = Result<T>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|joined| match joined {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => Err(Error::stopping()),
            Err(error) => Err(Error::internal("internal error").with_source(error)),
        })
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}
