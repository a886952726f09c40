//! Chooses the threads that a plan runs on.
//!
//! Some plans compute for as long as they may, and enough of them would occupy any number of threads. So the engine has
//! two lanes, each with threads of its own: what is sure to be short takes the quick one, the rest the heavy one, and
//! the system shares the cores out between their threads. The lane is chosen by a bound on the rows that a
//! plan visits, once, before it runs: nothing is moved later, because what a plan has spawned stays where it began.

use crate::domain::executor::scan::ScanExec;
use datafusion::common::stats::Precision;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Rows that a quick plan visits at most: some tens of milliseconds.
const QUICK_ROWS_MAX: f64 = 4e6;

/// The threads that a plan runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Threads for short plans, which are soon free again.
    Quick,
    /// Threads that may be busy for long.
    Heavy,
}

impl Lane {
    /// Returns the lane of a plan.
    pub fn of(plan: &dyn ExecutionPlan) -> Self {
        if bound(plan).visited <= QUICK_ROWS_MAX { Self::Quick } else { Self::Heavy }
    }
}

/// Upper bounds on the work of a node, infinite where nothing is known.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Rows that leave a node.
    rows: f64,
    /// Rows that it and all nodes below it read.
    visited: f64,
}

/// Bounds a plan by its shape and the exact sizes of its tables.
fn bound(node: &dyn ExecutionPlan) -> Bound {
    let inputs: Vec<Bound> = node.children().into_iter().map(|child| bound(child.as_ref())).collect();
    let visited: f64 = inputs.iter().map(|input| input.visited).sum();
    let unbounded = Bound { rows: f64::INFINITY, visited: f64::INFINITY };
    match inputs.as_slice() {
        [] if node.is::<ExplainExec>() => Bound { rows: 1.0, visited: 1.0 },
        [] => {
            let rows = leaf_rows(node);
            Bound { rows, visited: rows }
        }
        _ if node.is::<RecursiveQueryExec>() || node.is::<UnnestExec>() => unbounded,
        [input] if node.is::<WindowAggExec>() || node.is::<BoundedWindowAggExec>() => {
            // A frame may be walked again for each row.
            Bound { rows: input.rows, visited: visited + input.rows * input.rows }
        }
        // The first rows are found in one pass.
        [input] if let Some(rows) = node.downcast_ref::<SortExec>().and_then(SortExec::fetch) => {
            let rows = rows.saturating_mul(node.output_partitioning().partition_count());
            Bound { rows: input.rows.min(rows as f64), visited: visited + input.rows }
        }
        [input] if node.is::<SortExec>() || node.is::<AggregateExec>() => {
            Bound { rows: input.rows, visited: visited + 4.0 * input.rows }
        }
        [input] => Bound { rows: input.rows, visited: visited + input.rows },
        several if node.is::<UnionExec>() || node.is::<InterleaveExec>() => {
            let rows = several.iter().map(|input| input.rows).sum();
            Bound { rows, visited: visited + rows }
        }
        // Joins of any kind, and what is unknown: every row of the one with every row of the other, and both alone.
        several => {
            let rows = several.iter().map(|input| input.rows + 1.0).product();
            Bound { rows, visited: visited + rows }
        }
    }
}

fn leaf_rows(node: &dyn ExecutionPlan) -> f64 {
    if let Some(scan) = node.downcast_ref::<ScanExec>() {
        return scan.rows_max() as f64;
    }
    let statistics = StatisticsContext::new().compute(node, &StatisticsArgs::new());
    match statistics.map(|statistics| statistics.num_rows) {
        Ok(Precision::Exact(rows)) => rows as f64,
        _ => f64::INFINITY,
    }
}
