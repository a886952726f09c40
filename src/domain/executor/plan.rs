//! From a statement to a physical plan over one snapshot.
//!
//! The schema that a plan promises is the physical one, and the only one: describing a statement and running it go
//! through the same steps. A column of a view type (`Utf8View`, `BinaryView`) leaves as one only where it is a bare
//! column of a table that has that type; where an expression made it, it becomes the plain type.

use crate::domain::catalog::Snapshot;
use crate::domain::executor::Executor;
use crate::domain::executor::context::SnapshotContext;
use crate::domain::executor::error::from_datafusion;
use crate::domain::executor::sql::Names;
use crate::domain::storage::Table;
use crate::domain::types::arrow_type;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;
use std::sync::Arc;

/// A statement to plan.
#[derive(Debug)]
pub struct Question {
    /// The statement, its names as they were written.
    pub statement: ast::Statement,
    /// The state to read.
    pub snapshot: Arc<Snapshot>,
    /// The table that a change is about, read under [`crate::domain::executor::sql::TARGET`] with row numbers.
    pub target: Option<Arc<Table>>,
    /// Values of `$1…$n`.
    pub params: Option<RecordBatch>,
}

/// A plan that is ready to run, once.
#[derive(Debug)]
pub struct Plan {
    pub(super) physical: Arc<dyn ExecutionPlan>,
    pub(super) task: Arc<TaskContext>,
    /// Whether partitions are to be taken one after the other.
    pub(super) ordered: bool,
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// Rows, where they are known exactly without running.
    pub rows: Option<u64>,
}

/// Tables up to this many rows are read by one core: starting more takes longer.
const SERIAL_ROWS_MAX: u64 = 65_536;

impl Executor {
    /// Plans `question`.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` or `NotFound` where it does not plan.
    pub async fn plan(&self, question: Question) -> Result<Plan> {
        let (serial, parallel) = (self.serial.clone(), self.parallel.clone());
        self.on_engine(async move { plan(question, serial, parallel).await }).await
    }
}

async fn plan(mut question: Question, mut serial: SessionState, parallel: SessionState) -> Result<Plan> {
    serial.mark_start_execution();
    let names = Names::resolve(&mut question.statement, &question.snapshot, question.target.as_ref())?;
    let logical = logical(question.statement, question.params.as_ref(), &names, &serial).map_err(from_datafusion)?;
    let ordered = keeps_order(&logical);
    let state = if ordered || names.rows() <= SERIAL_ROWS_MAX {
        serial
    } else {
        let mut parallel = parallel;
        parallel.mark_start_execution();
        parallel
    };
    let optimized = state.optimize(&logical).map_err(from_datafusion)?;
    let physical = state.query_planner().create_physical_plan(&optimized, &state).await.map_err(from_datafusion)?;
    let schema = Arc::new(Schema::new(physical.schema().fields().clone()));
    let rows = exact_rows(physical.as_ref());
    Ok(Plan { physical, task: state.task_ctx(), ordered, schema, rows })
}

fn logical(
    statement: ast::Statement,
    params: Option<&RecordBatch>,
    names: &Names,
    state: &SessionState,
) -> Result<LogicalPlan, DataFusionError> {
    let context = SnapshotContext { state, names, types: Arc::new(Types) };
    let options = ParserOptions::from(&state.config_options().sql_parser);
    let planner = SqlToRel::new_with_options(&context, options);
    let types = params.map(|params| params.schema().fields().iter().cloned().map(Some).collect()).unwrap_or_default();
    let mut planner_context = PlannerContext::new().with_prepare_param_data_types(types);
    let plan = planner.sql_statement_to_plan_with_context(statement, &mut planner_context)?;
    // The second lock, behind the allow-list of statements.
    let locked = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    locked.verify_plan(&plan)?;
    let plan = bind(plan, params)?;
    plain_views(plan)
}

fn bind(plan: LogicalPlan, params: Option<&RecordBatch>) -> Result<LogicalPlan, DataFusionError> {
    let refuse = |text: String| Err(DataFusionError::External(Box::new(Error::invalid(text))));
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

/// Whether rows leave in the order in which the tables hold them, unless several cores shuffle them.
fn keeps_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => plan.inputs().into_iter().all(keeps_order),
        _ => false,
    }
}

/// The same plan, without view types that an expression made.
fn plain_views(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let schema = plan.schema().clone();
    let made = |index: usize, field: &Field| plain_type(field.data_type()) != *field.data_type() && !bare(&plan, index);
    if !schema.fields().iter().enumerate().any(|(index, field)| made(index, field)) {
        return Ok(plan);
    }
    let columns: Vec<Expr> = schema
        .iter()
        .enumerate()
        .map(|(index, (qualifier, field))| {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            if made(index, field) {
                cast(column, plain_type(field.data_type())).alias_qualified(qualifier.cloned(), field.name())
            } else {
                column
            }
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// A type with every view in it replaced.
fn plain_type(data_type: &DataType) -> DataType {
    let plain_field = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

/// Whether output column `index` is a table's own column, untouched.
fn bare(plan: &LogicalPlan, index: usize) -> bool {
    let column_of = |expr: &Expr, input: &LogicalPlan| match expr.clone().unalias_nested().data {
        Expr::Column(column) => input.schema().maybe_index_of_column(&column).is_some_and(|at| bare(input, at)),
        _ => false,
    };
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(projection) => column_of(&projection.expr[index], &projection.input),
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group_expr.get(index).is_some_and(|expr| column_of(expr, &aggregate.input))
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => bare(plan.inputs()[0], index),
        LogicalPlan::Window(window) => index < window.input.schema().fields().len() && bare(&window.input, index),
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| bare(input, index)),
        LogicalPlan::Join(join) => {
            let (qualifier, field) = plan.schema().qualified_field(index);
            let column = Column::new(qualifier.cloned(), field.name());
            [&join.left, &join.right]
                .into_iter()
                .any(|side| side.schema().maybe_index_of_column(&column).is_some_and(|at| bare(side, at)))
        }
        _ => false,
    }
}

/// Our type names in CAST and wherever else a type is named.
#[derive(Debug)]
pub struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>, DataFusionError> {
        let found = arrow_type(sql_type).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(found.map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}
