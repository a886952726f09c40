//! Plans and runs SQL over a snapshot. DataFusion is named here and nowhere else.
//!
//! A statement is planned against one snapshot: the planner asks for tables and gets those, so nothing that happens
//! meanwhile can show. Plans run on the engine's own runtime, whose threads have a stack to match the limits on
//! statements; their batches reach the caller over a short channel, which is what bounds the memory of a stream.

mod error;
mod functions;
mod interrupt;
mod lane;
mod pace;
mod plan;
mod plan_cache;
mod plan_facts;
mod plan_size;
mod planner_context;
mod prune;
mod pulled_stream;
mod run;
mod scan;
mod semantics;
mod sequential_gather;
mod slices;
mod view_types;

pub use plan::{Prepared, Question, Source, Values};
pub use plan_cache::PlanCounts;
pub use run::Allowance;
pub use scan::ROW_NUMBER;

use crate::domain::catalog::Snapshot;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::functions::{Rewrite, replacements};
use crate::domain::executor::plan::Types;
use crate::domain::executor::plan_cache::PlanCache;
use crate::domain::executor::plan_size::PlanLimits;
use crate::domain::executor::semantics::{CompareSpans, ExactOperators, SEAL_BEFORE, SealLimits, WideSums};
use crate::ports::{Error, ErrorKind, Limits, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// Stack of each engine thread, in bytes: what the deepest statement within the limits needs, in any build profile.
/// Only pages that are touched cost memory.
pub const STACK_BYTES: usize = 64 << 20;

/// Where statements are worked on: two sets of threads, so that what takes long keeps nothing short waiting.
#[derive(Debug, Clone)]
pub struct Lanes {
    /// For calls, and plans that are sure to be short. Its threads have a stack of [`STACK_BYTES`].
    pub quick: Handle,
    /// For all other plans. More threads than cores: the system shares the cores out where one of them is held for long.
    pub heavy: Handle,
}

impl From<Handle> for Lanes {
    /// Both lanes on one runtime, where nobody has to be kept from waiting.
    fn from(runtime: Handle) -> Self {
        Self { quick: runtime.clone(), heavy: runtime }
    }
}

/// Plans and runs statements.
pub struct Executor {
    lanes: Lanes,
    /// One partition: for statements whose rows come out in the order of the table, and for small tables.
    serial: Session,
    /// A partition for each core.
    parallel: Session,
    plans: PlanCache,
    plan_limits: PlanLimits,
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
    /// Makes an executor that works on `lanes`.
    ///
    /// # Errors
    ///
    /// `Internal` where DataFusion does not start.
    pub fn new(lanes: Lanes, limits: &Limits) -> Result<Self> {
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
                .with_analyzer_rule(Arc::new(ExactOperators))
                .with_analyzer_rule(Arc::new(WideSums))
                .with_physical_optimizer_rules(physical_rules())
                .build();
            for function in replacements(state.scalar_functions().clone().values()) {
                state.register_udf(function).map_err(from_datafusion)?;
            }
            state.register_function_rewrite(Arc::new(Rewrite)).map_err(from_datafusion)?;
            state.register_function_rewrite(Arc::new(CompareSpans)).map_err(from_datafusion)?;
            Ok::<_, Error>(Session { task: state.task_ctx(), state })
        };
        Ok(Self {
            lanes,
            serial: state(1)?,
            parallel: state(cores)?,
            plans: PlanCache::new(limits.plans_max),
            plan_limits: limits.into(),
        })
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

    /// Runs `work` on the quick lane; dropping the future stops it.
    ///
    /// # Errors
    ///
    /// Its own, `Unavailable` where the engine stops, `Internal` where it panics.
    pub async fn on_quick_lane<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        run::AbortOnDrop(self.lanes.quick.spawn(work)).await
    }

    /// Runs `work`, which may compute for long, on the heavy lane; dropping the future stops it where it next waits.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn on_heavy_lane<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        run::AbortOnDrop(self.lanes.heavy.spawn(work)).await
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
        let task = run::AbortOnDrop(self.lanes.quick.spawn_blocking(work));
        match deadline {
            None => task.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), task).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, "the statement was not planned in the time that it had"))
            }),
        }
    }
}

/// DataFusion's physical rules, and ours among them.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // Where the rule has gone, the first place is early enough.
    let at = rules.iter().position(|rule| rule.name() == SEAL_BEFORE).unwrap_or(0);
    rules.insert(at, Arc::new(SealLimits));
    rules
}

fn session_config(partitions: usize) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(false);
    let options = config.options_mut();
    // Names keep their case: DataFrames have columns like `Px`. `sql::Names` finds what unquoted ones mean.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    // A computation vanishes where a struct's field is read beside it (apache/datafusion issue 25414).
    options.optimizer.enable_leaf_expression_pushdown = false;
    // Scans take no filters that are found while they run, and several of their bugs go with them.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
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
