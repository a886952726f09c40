//! Reads the partitions of a plan one after the other.
//!
//! DataFusion gathers partitions as their batches come. Where rows are to leave in the order in which tables hold them,
//! that would mix the inputs of a UNION ALL, and a LIMIT above it would pick any of them; so there every gathering is
//! replaced by this one, which starts a partition only when the one before it has ended.

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::stream::{self, StreamExt};
use std::fmt;
use std::sync::Arc;

/// The same plan with one partition, whose rows come partition by partition, here and wherever it gathered them.
///
/// # Errors
///
/// Those of DataFusion where a plan does not take its new children.
pub fn in_sequence(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| Ok(replaced(node))).data()?;
    Ok(if plan.output_partitioning().partition_count() > 1 { chained(plan) } else { plan })
}

fn replaced(node: Arc<dyn ExecutionPlan>) -> Transformed<Arc<dyn ExecutionPlan>> {
    let Some(gathering) = node.downcast_ref::<CoalescePartitionsExec>() else { return Transformed::no(node) };
    let chain = chained(gathering.input().clone());
    Transformed::yes(match gathering.fetch() {
        Some(rows) => Arc::new(GlobalLimitExec::new(chain, 0, Some(rows))),
        None => chain,
    })
}

fn chained(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let properties = PlanProperties::new(
        input.equivalence_properties().clone(),
        Partitioning::UnknownPartitioning(1),
        input.pipeline_behavior(),
        input.boundedness(),
    );
    Arc::new(ChainExec { input, properties: Arc::new(properties) })
}

/// The gathering.
#[derive(Debug)]
struct ChainExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for ChainExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainExec: partitions={}", self.input.output_partitioning().partition_count())
    }
}

impl ExecutionPlan for ChainExec {
    fn name(&self) -> &str {
        "ChainExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(chained(input)),
            _ => internal_err!("a chain has one input"),
        }
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema: SchemaRef = self.schema();
        let input = self.input.clone();
        let partitions = input.output_partitioning().partition_count();
        let batches =
            stream::iter(0..partitions).flat_map(move |partition| match input.execute(partition, task.clone()) {
                Ok(batches) => batches.left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}
