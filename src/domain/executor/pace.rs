//! Makes a plan yield its thread, and check its interrupt.
//!
//! In DataFusion 55 a nested loop join goes over all rows of its left side for one batch of its right one within a
//! single poll, a hash join whose filter rejects what it finds does the same, and whatever gathers the output of a
//! cross join reads it in one go. So, before it runs, a plan is rewritten: join filters check the query's interrupt,
//! the right sides of such joins come in small slices, and operators that may be read in a loop yield every few
//! milliseconds. What a plan computes, its schemas and its orders stay the same.
//!
//! Operators that may still hold a thread for longer between two checks – building a hash table, handing out all groups
//! of an aggregate, a function on one huge value – are named in docs/design.md.

use crate::domain::executor::interrupt::Interrupt;
use crate::domain::executor::slices::{Pace, Slicer};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result, Statistics, internal_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::ExprProperties;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Time that a plan computes before it lets others run.
const TIME_SLICE: Duration = Duration::from_millis(10);

/// Rewrites `plan` so that it yields, and ends soon after it is interrupted.
///
/// # Errors
///
/// Those of DataFusion where a join does not take its new sides.
pub fn with_pacing(plan: Arc<dyn ExecutionPlan>, interrupt: &Arc<Interrupt>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let node = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            nested_loop(join, interrupt)?
        } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            hash_join(join, interrupt)?.unwrap_or(node)
        } else {
            node
        };
        // The others may be read in a loop by their parents, without a pause.
        Ok(match passes_through(&node) {
            true => Transformed::no(node),
            false => Transformed::yes(wrap(node, interrupt, Pace::Plain)),
        })
    })
    .data()
}

/// Returns whether a node hands its input on batch by batch, so that its input yields for it.
fn passes_through(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<FilterExec>()
        || node.is::<ProjectionExec>()
        || node.is::<CooperativeExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<RepartitionExec>()
}

fn wrap(input: Arc<dyn ExecutionPlan>, interrupt: &Arc<Interrupt>, pace: Pace) -> Arc<dyn ExecutionPlan> {
    Arc::new(PacedExec { input, interrupt: interrupt.clone(), pace })
}

fn nested_loop(join: &NestedLoopJoinExec, interrupt: &Arc<Interrupt>) -> Result<Arc<dyn ExecutionPlan>> {
    let collected = Arc::new(AtomicU64::new(0));
    let left = wrap(join.left().clone(), interrupt, Pace::Counted(collected.clone()));
    let right = wrap(join.right().clone(), interrupt, Pace::Product(collected));
    let made = NestedLoopJoinExecBuilder::new(left, right, *join.join_type())
        .with_filter(Some(interruptible(join.filter(), interrupt)))
        .with_projection_ref(join.projection().clone())
        .build()?;
    Ok(Arc::new(made))
}

/// Rewrites a hash join that may go on for long without output; none where every few thousand pairs leave as a batch.
fn hash_join(join: &HashJoinExec, interrupt: &Arc<Interrupt>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let emits_pairs = matches!(join.join_type(), JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
    if emits_pairs && join.filter().is_none() {
        return Ok(None);
    }
    let right = wrap(join.right().clone(), interrupt, Pace::Growing);
    let filter = join.filter().map(|filter| interruptible(Some(filter), interrupt));
    let builder = join.builder().with_new_children(vec![join.left().clone(), right])?;
    builder.with_filter(filter).build_exec().map(Some)
}

/// Makes `filter` check the interrupt; a join without a filter gets one that is always true.
fn interruptible(filter: Option<&JoinFilter>, interrupt: &Arc<Interrupt>) -> JoinFilter {
    let check = |inner| Arc::new(InterruptibleExpr { inner, interrupt: interrupt.clone() }) as Arc<dyn PhysicalExpr>;
    match filter {
        Some(filter) => JoinFilter::new(
            check(filter.expression().clone()),
            filter.column_indices().to_vec(),
            filter.schema().clone(),
        ),
        None => JoinFilter::new(check(lit(true)), Vec::new(), Arc::new(Schema::empty())),
    }
}

/// An expression that checks the interrupt before it is evaluated.
#[derive(Debug, Clone)]
struct InterruptibleExpr {
    inner: Arc<dyn PhysicalExpr>,
    interrupt: Arc<Interrupt>,
}

impl PartialEq for InterruptibleExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && Arc::ptr_eq(&self.interrupt, &other.interrupt)
    }
}

impl Eq for InterruptibleExpr {}

impl Hash for InterruptibleExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for InterruptibleExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl PhysicalExpr for InterruptibleExpr {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.interrupt.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(inner) if children.is_empty() => Ok(Arc::new(Self { inner, interrupt: self.interrupt.clone() })),
            _ => internal_err!("an interruptible expression has one child"),
        }
    }

    fn evaluate_bounds(&self, children: &[&Interval]) -> Result<Interval> {
        Ok(children[0].clone())
    }

    fn get_properties(&self, children: &[ExprProperties]) -> Result<ExprProperties> {
        Ok(children[0].clone())
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

/// Hands on the batches of its input, yields after each time slice, and ends when it is interrupted.
#[derive(Debug)]
struct PacedExec {
    input: Arc<dyn ExecutionPlan>,
    interrupt: Arc<Interrupt>,
    pace: Pace,
}

impl DisplayAs for PacedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacedExec")
    }
}

impl ExecutionPlan for PacedExec {
    fn name(&self) -> &str {
        "PacedExec"
    }

    /// Returns the input's own: parents that find the very same properties keep theirs.
    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
            Some(input) if children.is_empty() => Ok(wrap(input, &self.interrupt, self.pace.clone())),
            _ => internal_err!("a paced plan has one input"),
        }
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(inputs[0].clone())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if let Pace::Counted(rows) = &self.pace {
            // Within a recursion the same side is collected anew each round.
            rows.store(0, Ordering::Relaxed);
        }
        Ok(Box::pin(PacedStream {
            schema: self.input.schema(),
            input: Some(self.input.execute(partition, task)?),
            interrupt: self.interrupt.clone(),
            slice_began: None,
            slicer: Slicer::new(self.pace.clone()),
        }))
    }
}

struct PacedStream {
    schema: SchemaRef,
    /// None once it has ended.
    input: Option<SendableRecordBatchStream>,
    interrupt: Arc<Interrupt>,
    /// When its time slice began.
    slice_began: Option<Instant>,
    slicer: Slicer,
}

impl Stream for PacedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(input) = &mut this.input else { return Poll::Ready(None) };
        let now = Instant::now();
        if let Err(error) = this.interrupt.check_at(now) {
            // Drops all operators below, with their memory.
            this.input = None;
            return Poll::Ready(Some(Err(error)));
        }
        if now - *this.slice_began.get_or_insert(now) >= TIME_SLICE {
            // To the back of the queue: a task that wakes itself waits behind all others.
            this.slice_began = None;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(slice) = this.slicer.next(now) {
            return Poll::Ready(Some(Ok(slice)));
        }
        match input.poll_next_unpin(cx) {
            Poll::Pending => {
                this.slice_began = None;
                this.slicer.pause();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(batch))) => Poll::Ready(Some(Ok(this.slicer.push(batch, now)))),
            other => other,
        }
    }
}

impl RecordBatchStream for PacedStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::interrupt::Interrupt;
    use crate::domain::executor::pace::PacedExec;
    use crate::domain::executor::slices::Pace;
    use arrow::array::{Int64Array, RecordBatch};
    use datafusion::execution::TaskContext;
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::physical_plan::test::TestMemoryExec;
    use futures::StreamExt;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    fn exec(pace: Pace, interrupt: &Arc<Interrupt>) -> PacedExec {
        let batch =
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..10_000)) as _)]).unwrap();
        let schema = batch.schema();
        let input = TestMemoryExec::try_new_exec(&[vec![batch; 3]], schema, None).unwrap();
        PacedExec { input, interrupt: interrupt.clone(), pace }
    }

    #[tokio::test]
    async fn slices_are_small_and_together_the_input() {
        let interrupt = Interrupt::new(None, None);
        for (pace, most) in
            [(Pace::Plain, 10_000), (Pace::Growing, 8_192), (Pace::Product(Arc::new(AtomicU64::new(1 << 24))), 2)]
        {
            let stream = exec(pace, &interrupt).execute(0, Arc::new(TaskContext::default())).unwrap();
            let rows: Vec<_> = stream.map(|batch| batch.unwrap().num_rows()).collect().await;
            assert!(rows.iter().all(|rows| *rows <= most), "{most}");
            assert_eq!(rows.iter().sum::<usize>(), 30_000);
        }
    }

    #[tokio::test]
    async fn a_cancelled_plan_ends_with_the_next_batch() {
        let interrupt = Interrupt::new(None, None);
        let mut stream = exec(Pace::Plain, &interrupt).execute(0, Arc::new(TaskContext::default())).unwrap();
        stream.next().await.unwrap().unwrap();
        interrupt.cancel();
        assert!(stream.next().await.unwrap().unwrap_err().to_string().contains("cancelled"));
        assert!(stream.next().await.is_none());
    }
}
