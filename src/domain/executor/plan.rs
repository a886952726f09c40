//! From a statement to an optimised plan without data.
//!
//! Planning has two halves. `prepare` knows names and schemas alone, and its plan may serve again; `bind` puts in the
//! segments of one snapshot.

use crate::domain::catalog::Snapshot;
use crate::domain::executor::Executor;
use crate::domain::executor::error::{from_datafusion, to_datafusion};
use crate::domain::executor::functions::{PlanningConstants, check_calls};
use crate::domain::executor::plan_facts::{
    Constants, constants, is_partitionable, is_passthrough, is_repeatable, preserves_order,
};
use crate::domain::executor::plan_size::{PlanLimits, check_plan_size};
use crate::domain::executor::planner_context::{SnapshotContext, SqlTypes};
use crate::domain::executor::timeseries::depends_on_arrival;
use crate::domain::executor::view_types::replace_computed_views;
use crate::domain::sql::{Callee, Refused, ResolvedTables, inspect};
use crate::domain::storage::Table;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;
use std::sync::Arc;

/// A statement to plan.
#[derive(Debug)]
pub struct PlanRequest {
    /// The statement, its names as they were written.
    pub statement: ast::Statement,
    /// The table that a change is about, read under [`crate::domain::sql::TARGET`] with row numbers.
    pub target: Option<Arc<Table>>,
    /// Values of `$1…$n`.
    pub parameters: Parameters,
}

/// Values of a statement's parameters.
#[derive(Debug)]
pub enum Parameters {
    /// These, in one row.
    Bound(Option<RecordBatch>),
    /// Not known: the statement is only described. The type of each, where its place in the statement tells.
    Unbound(Vec<Option<DataType>>),
}

/// An optimised plan without data. It runs on any snapshot with the definitions that it was made under.
#[derive(Debug)]
pub struct Prepared {
    /// The plan; its tables are names and schemas.
    pub(super) logical: LogicalPlan,
    /// Whether rows leave in the order in which the tables hold them.
    pub(super) preserves_order: bool,
    /// Whether a part of the tables' rows gives that part of the answer, in order.
    pub(super) partitionable: bool,
    /// Whether it hands out columns of tables unchanged, and computes nothing.
    pub(super) passthrough: bool,
    /// Whether it is the same plan at any other moment, and small enough to keep.
    pub(super) cacheable: bool,
    /// Whether rows have to be read in the order in which they arrived.
    pub(super) by_arrival: bool,
    /// Values that the optimiser has computed.
    pub(super) constants: Constants,
    /// The types of unbound parameters.
    params: Vec<DataType>,
}

impl Prepared {
    /// Returns whether it hands out columns of tables unchanged, and computes nothing.
    pub fn is_passthrough(&self) -> bool {
        self.passthrough
    }

    /// Returns the type that each unbound parameter is best given in.
    pub fn params(&self) -> &[DataType] {
        &self.params
    }
}

impl Executor {
    /// Plans `request` for the tables of `snapshot`. Takes a thread of the engine and its stack.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` or `NotFound` where it does not plan.
    pub fn prepare(&self, mut request: PlanRequest, snapshot: &Snapshot) -> Result<Prepared> {
        let planning = PlanningConstants::begin();
        let mut state = self.serial.state.clone();
        state.mark_start_execution();
        let callee = |name: &str, windowed: bool| callee(&state, name, windowed);
        if let Err(Refused::Change(what) | Refused::Clause(what)) = inspect(&request.statement, &callee) {
            return Err(Error::unsupported(format!("{what} is not supported")));
        }
        let nodes_max = self.plan_limits.nodes_max;
        let is_aggregate = |name: &str| callee(name, false) == Callee::Aggregate;
        let target = request.target.as_ref();
        let tables = ResolvedTables::resolve(&mut request.statement, snapshot, target, nodes_max, &is_aggregate)?;
        let is_plain = matches!(request.parameters, Parameters::Bound(None)) && request.target.is_none();
        let (logical, params) = logical_plan(request.statement, &request.parameters, &tables, &state, self.plan_limits)
            .map_err(from_datafusion)?;
        // Judged before optimising, which folds `now()` into a constant.
        let repeatable = is_repeatable(&logical).map_err(from_datafusion)?;
        // Parts are planned each at its own moment, so what depends on the moment has no parts.
        let (is_in_order, partitionable) = (preserves_order(&logical), repeatable && is_partitionable(&logical));
        let logical = state.optimize(&logical).map_err(from_datafusion)?;
        planning.check().map_err(from_datafusion)?;
        check_calls(&logical).map_err(from_datafusion)?;
        let constants = constants(&logical);
        let passthrough = is_passthrough(&logical);
        // A subquery has become a join, which several cores would shuffle.
        let is_joined = is_in_order && !preserves_order(&logical);
        let by_arrival = is_joined || depends_on_arrival(&logical).map_err(from_datafusion)?;
        let cacheable = repeatable && is_plain && constants.are_few();
        let preserves_order = is_in_order;
        Ok(Prepared { logical, preserves_order, partitionable, passthrough, cacheable, by_arrival, constants, params })
    }
}

fn logical_plan(
    statement: ast::Statement,
    parameters: &Parameters,
    tables: &ResolvedTables,
    state: &SessionState,
    limits: PlanLimits,
) -> Result<(LogicalPlan, Vec<DataType>), DataFusionError> {
    let context = SnapshotContext { state, tables, types: Arc::new(SqlTypes) };
    let options = ParserOptions::from(&state.config_options().sql_parser);
    let planner = SqlToRel::new_with_options(&context, options);
    let typed = |known: &Option<DataType>| known.clone().map(|known| Arc::new(Field::new("", known, true)));
    let types = match parameters {
        Parameters::Bound(None) => Vec::new(),
        Parameters::Bound(Some(params)) => params.schema().fields().iter().cloned().map(Some).collect(),
        Parameters::Unbound(types) => types.iter().map(typed).collect(),
    };
    let mut planner_context = PlannerContext::new().with_prepare_param_data_types(types);
    let plan = planner.sql_statement_to_plan_with_context(statement, &mut planner_context)?;
    // Before anything else walks it: every walk visits what is shared once for each use.
    check_plan_size(&plan, limits).map_err(to_datafusion)?;
    // The second lock, behind the allow-list of statements.
    let locked = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    locked.verify_plan(&plan)?;
    let (plan, params) = match parameters {
        Parameters::Bound(params) => (bind_values(plan, params.as_ref())?, Vec::new()),
        Parameters::Unbound(types) => bind_nulls(plan, types)?,
    };
    Ok((replace_computed_views(plan)?, params))
}

/// Returns the plan with nulls for its parameters, and their types.
fn bind_nulls(plan: LogicalPlan, hints: &[Option<DataType>]) -> Result<(LogicalPlan, Vec<DataType>), DataFusionError> {
    let found = plan.get_parameter_types()?;
    let known = |(at, hint): (usize, &Option<DataType>)| {
        found.get(&format!("${}", at + 1)).cloned().flatten().or_else(|| hint.clone())
    };
    let types: Vec<Option<DataType>> = hints.iter().enumerate().map(known).collect();
    let null = |known: &Option<DataType>| known.as_ref().map_or(Ok(ScalarValue::Null), ScalarValue::try_from);
    let nulls = types.iter().map(null).collect::<Result<Vec<_>, _>>()?;
    let plan = if nulls.is_empty() { plan } else { plan.with_param_values(nulls)? };
    Ok((plan, types.into_iter().map(|known| known.unwrap_or(DataType::Utf8)).collect()))
}

/// Returns the plan with the one row of `params` in the place of its parameters.
fn bind_values(plan: LogicalPlan, params: Option<&RecordBatch>) -> Result<LogicalPlan, DataFusionError> {
    let refuse = |text: String| Err(to_datafusion(Error::invalid(text)));
    let wanted = plan.get_parameter_names()?;
    let given = params.map_or(0, RecordBatch::num_columns);
    let Some(params) = params.filter(|params| params.num_columns() > 0) else {
        return if wanted.is_empty() {
            Ok(plan)
        } else {
            refuse(format!("{} parameters have no value; bind them, again if they were bound long ago", wanted.len()))
        };
    };
    let highest = wanted.iter().filter_map(|name| name.trim_start_matches('$').parse::<usize>().ok()).max();
    if params.num_rows() != 1 || highest.unwrap_or(0) != given {
        return refuse(format!(
            "the statement has parameters up to ${}, and {given} values were given in {} rows; a value for each in one row is wanted",
            highest.unwrap_or(0),
            params.num_rows()
        ));
    }
    let values =
        params.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<Vec<_>, _>>()?;
    plan.with_param_values(values)
}

/// Returns what the planner takes a call of `name` for, which has an OVER if `windowed`: it looks names up in this
/// order.
fn callee(state: &SessionState, name: &str, windowed: bool) -> Callee {
    let is_scalar = state.scalar_functions().contains_key(name);
    let takes_lambdas = !is_scalar && state.higher_order_functions().contains_key(name);
    let aggregate = state.aggregate_functions().get(name).map(|function| function.name());
    let is_either = |name| matches!(name, "first_value" | "last_value" | "nth_value");
    if takes_lambdas || matches!(name, "map" | "make_map" | "unnest" | "unnest_outer") {
        Callee::Nameless
    } else if is_scalar {
        Callee::Scalar
    } else if windowed && state.window_functions().contains_key(name) && aggregate.is_none_or(is_either) {
        Callee::Window
    } else {
        Callee::Aggregate
    }
}
