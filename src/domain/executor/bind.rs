//! Puts the segments of one snapshot into a prepared plan, and plans how to read them.
//!
//! The schema that a plan promises is the physical one, and the only one: describing a statement and running it both
//! go through here.

use crate::domain::catalog::Snapshot;
use crate::domain::executor::Executor;
use crate::domain::executor::error::{from_datafusion, to_datafusion};
use crate::domain::executor::lane::Lane;
use crate::domain::executor::plan::Prepared;
use crate::domain::executor::planner_context::NamedTable;
use crate::domain::executor::scan::{Nans, SegmentTable};
use crate::domain::executor::sequential_gather::gather_sequentially;
use crate::domain::storage::Table;
use crate::ports::{Part, Result};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use std::sync::Arc;

/// The data that a plan reads.
#[derive(Debug)]
pub struct PlanInput {
    /// The state to read.
    pub snapshot: Arc<Snapshot>,
    /// The table that a change is about.
    pub target: Option<Arc<Table>>,
    /// The part of the answer that is wanted.
    pub part: Option<Part>,
}

/// A plan that is ready to run, once.
#[derive(Debug)]
pub struct BoundPlan {
    /// The operators.
    pub physical: Arc<dyn ExecutionPlan>,
    /// The context that they run in.
    pub task: Arc<TaskContext>,
    /// Whether it hands out columns of tables unchanged.
    pub passthrough: bool,
    /// The threads that it runs on.
    pub lane: Lane,
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// Rows, where they are known exactly without running.
    pub rows: Option<u64>,
}

impl Executor {
    /// Makes `prepared` ready to run over `input`.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` or `NotFound` where it does not plan.
    pub async fn bind(&self, prepared: &Prepared, input: PlanInput) -> Result<BoundPlan> {
        // A plan that cannot be partitioned answers everything in its first part.
        let is_empty = !prepared.partitionable && input.part.is_some_and(|part| part.index() > 0);
        let (logical, rows, tables) = with_data(prepared, &input).map_err(from_datafusion)?;
        prepared.constants.check(rows)?;
        let is_serial = prepared.passthrough || prepared.by_arrival || rows < self.parallel_rows_min;
        let session = match prepared.preserves_order {
            _ if is_serial => &self.serial,
            true => &self.ordered,
            false => &self.parallel,
        };
        let physical = if prepared.cacheable {
            session.physical_plan(&logical, &session.state).await?
        } else {
            // What depends on the moment needs a moment of its own.
            let mut state = session.state.clone();
            state.mark_start_execution();
            session.physical_plan(&logical, &state).await?
        };
        self.encode_in_background(tables);
        let schema = Arc::new(Schema::new(physical.schema().fields().clone()));
        let physical: Arc<dyn ExecutionPlan> =
            if is_empty { Arc::new(EmptyExec::new(physical.schema())) } else { physical };
        let rows = exact_rows(physical.as_ref());
        let physical = match prepared.preserves_order || prepared.by_arrival {
            true => gather_sequentially(physical, !prepared.passthrough).map_err(from_datafusion)?,
            false => physical,
        };
        let lane = if prepared.passthrough { Lane::Quick } else { Lane::of(physical.as_ref()) };
        Ok(BoundPlan { physical, task: session.task.clone(), passthrough: prepared.passthrough, lane, schema, rows })
    }
}

impl Executor {
    /// Makes the codes that planning has asked for and not found: the next plan finds them.
    fn encode_in_background(&self, tables: Vec<Arc<Table>>) {
        for table in tables.into_iter().filter(|table| table.wants_codes()) {
            self.lanes.heavy.spawn(async move { table.encode_wanted() });
        }
    }
}

/// Returns the plan with the tables of `input` in place of their names, the rows of those tables, and the tables.
fn with_data(prepared: &Prepared, input: &PlanInput) -> Result<(LogicalPlan, u64, Vec<Arc<Table>>), DataFusionError> {
    let part = input.part.filter(|_| prepared.partitionable);
    let (mut rows, mut tables) = (0, Vec::new());
    let nans = if prepared.passthrough { Nans::AsStored } else { Nans::Unsigned };
    let plan = prepared.logical.clone().transform_down_with_subqueries(|plan| match plan {
        LogicalPlan::TableScan(mut scan) => {
            let Some(named) = scan.source.downcast_ref::<NamedTable>() else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let table = named.find(&input.snapshot, input.target.as_ref()).map_err(to_datafusion)?;
            rows += table.rows();
            tables.push(table.clone());
            scan.source = provider_as_source(Arc::new(SegmentTable::new(table, named.is_numbered(), part, nans)));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((plan.data, rows, tables))
}

/// Returns the rows of a plan's answer where statistics are exact.
fn exact_rows(physical: &dyn ExecutionPlan) -> Option<u64> {
    let statistics = StatisticsContext::new().compute(physical, &StatisticsArgs::new()).ok()?;
    match statistics.num_rows {
        Precision::Exact(rows) => Some(rows as u64),
        _ => None,
    }
}
