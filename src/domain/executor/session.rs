//! The DataFusion session: functions, rules and options that every statement is planned and run with.
//!
//! A session is made once for each number of partitions and shared by all statements: making one registers every
//! function there is, which takes longer than a small query.

use crate::domain::executor::compare_constants::CompareConstants;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::functions::{GuardFunctions, replacements, spatial};
use crate::domain::executor::memory::{AccountPool, QueryMemory};
use crate::domain::executor::planner_context::SqlTypes;
use crate::domain::executor::scan::NarrowScans;
use crate::domain::executor::semantics::{
    CompareSpans, CompareTimes, ExactOperators, GuardFilters, SEAL_BEFORE, SealLimits, WideSums, extremes,
};
use crate::domain::executor::semi_joins::SemiJoinsFirst;
use crate::domain::executor::timeseries;
use crate::domain::executor::top_rows::SkipBehindLimit;
use crate::ports::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder, SessionStateDefaults, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use std::sync::Arc;

/// The state that statements are planned with, and the context that their plans run in.
pub struct Session {
    /// Functions, rules and options of the planner.
    pub state: SessionState,
    /// The context that plans run in.
    pub task: Arc<TaskContext>,
}

impl Session {
    /// Makes the session of plans with `partitions` partitions, which keep runs of rows together if `ordered`.
    ///
    /// # Errors
    ///
    /// `Internal` where DataFusion refuses a function.
    pub fn new(partitions: usize, ordered: bool, runtime: Arc<RuntimeEnv>, memory: &QueryMemory) -> Result<Self> {
        let mut state = SessionStateBuilder::new_with_default_features()
            .with_config(session_config(partitions, ordered))
            .with_runtime_env(runtime)
            .with_type_planner(Arc::new(SqlTypes))
            .with_expr_planners(expr_planners())
            .with_relation_planners(vec![Arc::new(timeseries::TimeRelations)])
            .with_query_planner(Arc::new(timeseries::TimeSeriesPlanner))
            .with_analyzer_rule(Arc::new(timeseries::FillGaps))
            .with_analyzer_rule(Arc::new(ExactOperators { memory: memory.clone() }))
            .with_analyzer_rule(Arc::new(WideSums))
            .with_optimizer_rule(Arc::new(SemiJoinsFirst))
            .with_physical_optimizer_rules(physical_rules())
            .build();
        for function in replacements(state.scalar_functions().clone().values(), memory) {
            state.register_udf(function).map_err(from_datafusion)?;
        }
        let aggregates: Vec<_> = state.aggregate_functions().values().cloned().collect();
        for function in extremes(&aggregates) {
            state.register_udaf(function).map_err(from_datafusion)?;
        }
        for function in timeseries::scalars()
            .into_iter()
            .chain(timeseries::fill_functions())
            .chain([timeseries::first_buckets()])
            .chain(spatial())
        {
            state.register_udf(function).map_err(from_datafusion)?;
        }
        for function in timeseries::aggregates() {
            state.register_udaf(function).map_err(from_datafusion)?;
        }
        for function in timeseries::windows() {
            state.register_udwf(function).map_err(from_datafusion)?;
        }
        state.register_function_rewrite(Arc::new(timeseries::TimeNumbers)).map_err(from_datafusion)?;
        // Whole numbers beside times are times by now.
        state.register_function_rewrite(Arc::new(CompareTimes)).map_err(from_datafusion)?;
        state.register_function_rewrite(Arc::new(timeseries::Calls)).map_err(from_datafusion)?;
        state.register_function_rewrite(Arc::new(timeseries::TimeColumns)).map_err(from_datafusion)?;
        // Functions that the planner makes without the registry are guarded first, then spans are compared.
        state
            .register_function_rewrite(Arc::new(GuardFunctions { memory: memory.clone() }))
            .map_err(from_datafusion)?;
        state.register_function_rewrite(Arc::new(CompareSpans)).map_err(from_datafusion)?;
        Ok(Self { task: state.task_ctx(), state })
    }

    /// Plans how to run `logical`, under the options of `state`.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where it does not plan.
    pub async fn physical_plan(&self, logical: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
        self.state.query_planner().create_physical_plan(logical, state).await.map_err(from_datafusion)
    }
}

/// Makes the environment that all queries share, whose operators take from `memory`; nothing is spilled to disk.
///
/// # Errors
///
/// `Internal` where DataFusion does not start.
pub fn shared_runtime(memory: &QueryMemory) -> Result<Arc<RuntimeEnv>> {
    let no_spilling = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(AccountPool::new(memory.clone())))
        .with_disk_manager_builder(no_spilling)
        .build_arc()
        .map_err(from_datafusion)
}

/// Returns what plans expressions: ours first, then DataFusion's.
fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
    let ours: Arc<dyn ExprPlanner> = Arc::new(timeseries::TimeNumbers);
    std::iter::once(ours).chain(SessionStateDefaults::default_expr_planners()).collect()
}

/// Returns DataFusion's physical rules with ours among them.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // If DataFusion drops the named rule, the first place is early enough.
    let at = rules.iter().position(|rule| rule.name() == SEAL_BEFORE).unwrap_or(0);
    rules.insert(at, Arc::new(SealLimits));
    // First, as long as both halves of an aggregate stand above each other.
    rules.insert(0, Arc::new(timeseries::AggregateByCodes));
    rules.insert(0, Arc::new(timeseries::WindowByCodes));
    rules.insert(0, Arc::new(timeseries::LatestByHand));
    rules.insert(0, Arc::new(NarrowScans));
    rules.push(Arc::new(SkipBehindLimit));
    // Behind all that reads conditions, and checks what follows from them.
    rules.push(Arc::new(CompareConstants));
    // Last, so that no rule puts together again what it has split.
    rules.push(Arc::new(GuardFilters));
    rules
}

fn session_config(partitions: usize, ordered: bool) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(false);
    let options = config.options_mut();
    options.optimizer.enable_round_robin_repartition = !ordered;
    // Names keep their case: DataFrames have columns like `Px`. `sql::ResolvedTables` finds what unquoted ones mean.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    // A computation vanishes where a struct's field is read beside it (apache/datafusion issue 25414).
    options.optimizer.enable_leaf_expression_pushdown = false;
    // Scans take no filters that are found while they run, which also avoids several bugs of those filters.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}
