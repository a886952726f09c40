//! Reads the partitions of a plan one after the other.
//!
//! DataFusion coalesces partitions as their batches come. Where rows are to leave in the order in which tables hold
//! them, that would mix the inputs of a UNION ALL, and a LIMIT above it would pick any of them; so there every
//! `CoalescePartitionsExec` is replaced by this operator, which hands a partition out only when the one before it has
//! ended. Partitions that compute something begin at once, each a few batches ahead of its reader, so that all cores
//! look for the few rows that a filter lets through.

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::stream::{self, StreamExt};
use std::fmt;
use std::sync::Arc;

/// Batches that a partition computes ahead of its reader.
const BATCHES_AHEAD: usize = 4;

/// Returns the same plan with one partition, whose rows come partition by partition, here and wherever it coalesced
/// them; partitions begin early if `ahead`.
///
/// # Errors
///
/// Those of DataFusion where a plan does not take its new children.
pub fn gather_sequentially(plan: Arc<dyn ExecutionPlan>, ahead: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| Ok(replace_coalesce(node, ahead))).data()?;
    Ok(if plan.output_partitioning().partition_count() > 1 { gather(plan, ahead) } else { plan })
}

fn replace_coalesce(node: Arc<dyn ExecutionPlan>, ahead: bool) -> Transformed<Arc<dyn ExecutionPlan>> {
    let Some(coalesce) = node.downcast_ref::<CoalescePartitionsExec>() else { return Transformed::no(node) };
    let gathered = gather(coalesce.input().clone(), ahead);
    Transformed::yes(match coalesce.fetch() {
        Some(rows) => Arc::new(GlobalLimitExec::new(gathered, 0, Some(rows))),
        None => gathered,
    })
}

fn gather(input: Arc<dyn ExecutionPlan>, ahead: bool) -> Arc<dyn ExecutionPlan> {
    let properties = PlanProperties::new(
        input.equivalence_properties().clone(),
        Partitioning::UnknownPartitioning(1),
        input.pipeline_behavior(),
        input.boundedness(),
    );
    Arc::new(SequentialGatherExec { input, ahead, properties: Arc::new(properties) })
}

/// Reads the partitions of its input one after the other.
#[derive(Debug)]
struct SequentialGatherExec {
    input: Arc<dyn ExecutionPlan>,
    /// Whether partitions begin before their turn.
    ahead: bool,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for SequentialGatherExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequentialGatherExec: partitions={}", self.input.output_partitioning().partition_count())
    }
}

impl ExecutionPlan for SequentialGatherExec {
    fn name(&self) -> &str {
        "SequentialGatherExec"
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
            Some(input) if children.is_empty() => Ok(gather(input, self.ahead)),
            _ => internal_err!("a sequential gather has one input"),
        }
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema: SchemaRef = self.schema();
        let input = self.input.clone();
        let partitions = input.output_partitioning().partition_count();
        if self.ahead {
            let mut streams = vec![input.execute(0, task.clone())?];
            for partition in 1..partitions {
                let mut receiver = RecordBatchReceiverStream::builder(schema.clone(), BATCHES_AHEAD);
                let (sender, mut batches) = (receiver.tx(), input.execute(partition, task.clone())?);
                receiver.spawn(async move {
                    while let Some(batch) = batches.next().await {
                        // This fails only if the reader has gone.
                        if sender.send(batch).await.is_err() {
                            break;
                        }
                    }
                    Ok(())
                });
                streams.push(receiver.build());
            }
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(streams).flatten())));
        }
        let batches =
            stream::iter(0..partitions).flat_map(move |partition| match input.execute(partition, task.clone()) {
                Ok(batches) => batches.left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}
