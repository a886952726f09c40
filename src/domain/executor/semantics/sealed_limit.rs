//! Limits that no sort passes through.
//!
//! DataFusion 55.2 moves a sort below a limit that stands beneath it, and loses the limit's OFFSET on the way
//! (apache/datafusion issues 24958, 25378): `SELECT * FROM (SELECT a FROM t LIMIT 4 OFFSET 3) ORDER BY a` lost rows,
//! and without OFFSET it took other ones. So every limit below another operator is sealed: nothing passes through it.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use std::fmt;
use std::sync::Arc;

/// The rule of DataFusion before which limits are sealed.
pub const BEFORE: &str = "EnsureRequirements";

/// Seals every limit below another operator.
#[derive(Debug)]
pub struct SealLimits;

impl PhysicalOptimizerRule for SealLimits {
    fn name(&self) -> &str {
        "SealLimits"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        // Nothing stands above the outermost one, so nothing can pass through it.
        if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
            let input = seal(limit.input().clone())?;
            return Ok(Arc::new(GlobalLimitExec::new(input, limit.skip(), limit.fetch())));
        }
        seal(plan)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn seal(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match node.downcast_ref::<GlobalLimitExec>() {
            None => Transformed::no(node),
            Some(limit) => {
                let limit = GlobalLimitExec::new(limit.input().clone(), limit.skip(), limit.fetch());
                Transformed::yes(Arc::new(SealedLimitExec { limit }) as Arc<dyn ExecutionPlan>)
            }
        })
    })
    .data()
}

/// A limit operator that DataFusion's rules do not know, so that they leave it in its place.
#[derive(Debug)]
struct SealedLimitExec {
    limit: GlobalLimitExec,
}

impl DisplayAs for SealedLimitExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt_as(kind, f)
    }
}

impl ExecutionPlan for SealedLimitExec {
    fn name(&self) -> &str {
        "SealedLimitExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.limit.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.limit.input()]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    /// Requires the order that its input has by now: the rows that are taken depend on it.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.limit.input().output_ordering().cloned().map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => {
                let limit = GlobalLimitExec::new(input, self.limit.skip(), self.limit.fetch());
                Ok(Arc::new(Self { limit }))
            }
            _ => internal_err!("a limit has one input"),
        }
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.limit.execute(partition, task)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.limit.child_stats_requests(partition)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.limit.statistics_from_inputs(inputs, args)
    }
}
