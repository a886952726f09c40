//! From a statement to a physical plan over one snapshot.
//!
//! Planning has two halves. `prepare` knows names and schemas alone, and what it makes may serve again; `bind` puts the
//! segments of one snapshot in and plans how to read them. The schema that a plan promises is the physical one, and the
//! only one: describing a statement and running it go through the same steps.

use crate::domain::catalog::Snapshot;
use crate::domain::executor::Executor;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::functions::check_calls;
use crate::domain::executor::lane::Lane;
use crate::domain::executor::plan_facts::{Constants, constants, is_divisible, is_lasting, is_light, keeps_order};
use crate::domain::executor::plan_size::{PlanLimits, check_plan_size};
use crate::domain::executor::planner_context::{NamedTable, SnapshotContext};
use crate::domain::executor::scan::SegmentTable;
use crate::domain::executor::sequential_gather::in_sequence;
use crate::domain::executor::view_types::plain_views;
use crate::domain::sql::{Callee, Names, Refused, arrow_type, inspect};
use crate::domain::storage::Table;
use crate::ports::{Error, Part, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;
use std::sync::Arc;

/// A statement to plan.
#[derive(Debug)]
pub struct Question {
    /// The statement, its names as they were written.
    pub statement: ast::Statement,
    /// The table that a change is about, read under [`crate::domain::sql::TARGET`] with row numbers.
    pub target: Option<Arc<Table>>,
    /// Values of `$1…$n`.
    pub values: Values,
}

/// Values of a statement's parameters.
#[derive(Debug)]
pub enum Values {
    /// These, in one row.
    Given(Option<RecordBatch>),
    /// Not known: the statement is only described. The type of each, where its place in the statement tells.
    Open(Vec<Option<DataType>>),
}

/// An optimised plan without data. It runs on any snapshot with the definitions that it was made under.
#[derive(Debug)]
pub struct Prepared {
    logical: LogicalPlan,
    /// Whether rows leave in the order in which the tables hold them.
    ordered: bool,
    /// Whether a part of the tables' rows gives that part of the answer, in order.
    divisible: bool,
    /// Whether it hands out columns of tables as they lie, and computes nothing.
    light: bool,
    /// Whether it is the same plan at any other moment.
    pub(super) lasting: bool,
    /// What the optimiser has computed.
    constants: Constants,
    /// The types of open parameters.
    params: Vec<DataType>,
}

impl Prepared {
    /// Whether it hands out columns of tables as they lie, and computes nothing.
    pub fn is_light(&self) -> bool {
        self.light
    }

    /// The type that each open parameter is best given in.
    pub fn params(&self) -> &[DataType] {
        &self.params
    }
}

/// What a plan reads.
#[derive(Debug)]
pub struct Source {
    /// The state to read.
    pub snapshot: Arc<Snapshot>,
    /// The table that a change is about.
    pub target: Option<Arc<Table>>,
    /// Which part of the answer is wanted.
    pub part: Option<Part>,
}

/// A plan that is ready to run, once.
#[derive(Debug)]
pub struct Plan {
    pub(super) physical: Arc<dyn ExecutionPlan>,
    pub(super) task: Arc<TaskContext>,
    /// Whether it computes nothing.
    pub(super) light: bool,
    /// The threads that it runs on.
    pub(super) lane: Lane,
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// Rows, where they are known exactly without running.
    pub rows: Option<u64>,
}

/// Tables up to this many rows are read by one core: starting more takes longer.
const SERIAL_ROWS_MAX: u64 = 65_536;

impl Executor {
    /// Plans `question` for the tables of `snapshot`. Takes a thread of the engine and its stack.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` or `NotFound` where it does not plan.
    pub fn prepare(&self, mut question: Question, snapshot: &Snapshot) -> Result<Prepared> {
        let mut state = self.serial.state.clone();
        state.mark_start_execution();
        let callee = |name: &str, windowed: bool| callee(&state, name, windowed);
        if let Err(Refused::Change(what) | Refused::Clause(what)) = inspect(&question.statement, &callee) {
            return Err(Error::unsupported(format!("{what} is not supported")));
        }
        let names =
            Names::resolve(&mut question.statement, snapshot, question.target.as_ref(), self.plan_limits.nodes_max)?;
        let kept = matches!(question.values, Values::Given(None)) && question.target.is_none();
        let (logical, params) =
            logical(question.statement, &question.values, &names, &state, self.plan_limits).map_err(from_datafusion)?;
        let lasting = is_lasting(&logical).map_err(from_datafusion)?;
        // Parts are planned each at its own moment, so what depends on the moment has no parts.
        let (ordered, divisible) = (keeps_order(&logical), lasting && is_divisible(&logical));
        let logical = state.optimize(&logical).map_err(from_datafusion)?;
        check_calls(&logical).map_err(from_datafusion)?;
        let constants = constants(&logical);
        let light = is_light(&logical);
        let lasting = lasting && kept && constants.are_few();
        Ok(Prepared { logical, ordered, divisible, light, lasting, constants, params })
    }

    /// Makes `prepared` ready to run over `source`.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` or `NotFound` where it does not plan.
    pub async fn bind(&self, prepared: &Prepared, source: Source) -> Result<Plan> {
        // What cannot be divided is all in the first part.
        let nothing = !prepared.divisible && source.part.is_some_and(|part| part.index() > 0);
        let (logical, rows) = with_data(prepared, &source).map_err(from_datafusion)?;
        prepared.constants.check(rows)?;
        let session = if prepared.ordered || rows <= SERIAL_ROWS_MAX { &self.serial } else { &self.parallel };
        let physical = if prepared.lasting {
            session.physical(&logical, &session.state).await?
        } else {
            let mut state = session.state.clone();
            state.mark_start_execution();
            session.physical(&logical, &state).await?
        };
        let schema = Arc::new(Schema::new(physical.schema().fields().clone()));
        let physical: Arc<dyn ExecutionPlan> =
            if nothing { Arc::new(EmptyExec::new(physical.schema())) } else { physical };
        let rows = exact_rows(physical.as_ref());
        let physical = if prepared.ordered { in_sequence(physical).map_err(from_datafusion)? } else { physical };
        let lane = if prepared.light { Lane::Quick } else { Lane::of(physical.as_ref()) };
        Ok(Plan { physical, task: session.task.clone(), light: prepared.light, lane, schema, rows })
    }
}

/// The plan with the tables of `source` in place of their names, and the rows of those.
fn with_data(prepared: &Prepared, source: &Source) -> Result<(LogicalPlan, u64), DataFusionError> {
    let part = source.part.filter(|_| prepared.divisible);
    let mut rows = 0;
    let plan = prepared.logical.clone().transform_down_with_subqueries(|plan| match plan {
        LogicalPlan::TableScan(mut scan) => {
            let Some(named) = scan.source.downcast_ref::<NamedTable>() else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let table = named.find(&source.snapshot, source.target.as_ref()).map_err(external)?;
            rows += table.rows();
            scan.source = provider_as_source(Arc::new(SegmentTable::new(table, named.is_numbered(), part)));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((plan.data, rows))
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn logical(
    statement: ast::Statement,
    values: &Values,
    names: &Names,
    state: &SessionState,
    limits: PlanLimits,
) -> Result<(LogicalPlan, Vec<DataType>), DataFusionError> {
    let context = SnapshotContext { state, names, types: Arc::new(Types) };
    let options = ParserOptions::from(&state.config_options().sql_parser);
    let planner = SqlToRel::new_with_options(&context, options);
    let typed = |known: &Option<DataType>| known.clone().map(|known| Arc::new(Field::new("", known, true)));
    let types = match values {
        Values::Given(None) => Vec::new(),
        Values::Given(Some(params)) => params.schema().fields().iter().cloned().map(Some).collect(),
        Values::Open(types) => types.iter().map(typed).collect(),
    };
    let mut planner_context = PlannerContext::new().with_prepare_param_data_types(types);
    let plan = planner.sql_statement_to_plan_with_context(statement, &mut planner_context)?;
    // Before anything else walks it: what it shares is written out by every walk.
    check_plan_size(&plan, limits).map_err(external)?;
    // The second lock, behind the allow-list of statements.
    let locked = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    locked.verify_plan(&plan)?;
    let (plan, params) = match values {
        Values::Given(params) => (bind(plan, params.as_ref())?, Vec::new()),
        Values::Open(types) => bind_nulls(plan, types)?,
    };
    Ok((plain_views(plan)?, params))
}

/// The plan with nulls for its parameters, and their types.
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

fn bind(plan: LogicalPlan, params: Option<&RecordBatch>) -> Result<LogicalPlan, DataFusionError> {
    let refuse = |text: String| Err(external(Error::invalid(text)));
    let wanted = plan.get_parameter_names()?;
    let given = params.map_or(0, RecordBatch::num_columns);
    let Some(params) = params.filter(|params| params.num_columns() > 0) else {
        return if wanted.is_empty() { Ok(plan) } else { refuse(format!("{} parameters have no value", wanted.len())) };
    };
    let highest = wanted.iter().filter_map(|name| name.trim_start_matches('$').parse::<usize>().ok()).max();
    if params.num_rows() != 1 || highest.unwrap_or(0) > given {
        return refuse(format!(
            "the statement has parameters up to ${}, and {given} values came in {} rows; one row is wanted",
            highest.unwrap_or(0),
            params.num_rows()
        ));
    }
    let values =
        params.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<Vec<_>, _>>()?;
    plan.with_param_values(values)
}

/// Rows of a plan's answer where statistics are exact.
fn exact_rows(physical: &dyn ExecutionPlan) -> Option<u64> {
    let statistics = StatisticsContext::new().compute(physical, &StatisticsArgs::new()).ok()?;
    match statistics.num_rows {
        Precision::Exact(rows) => Some(rows as u64),
        _ => None,
    }
}

/// Returns what the planner takes a call of `name` for, which has an OVER if `windowed`: it looks names up in this order.
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

/// Our type names in CAST and wherever else a type is named.
#[derive(Debug)]
pub struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>, DataFusionError> {
        let found = arrow_type(sql_type).map_err(external)?;
        Ok(found.map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}
