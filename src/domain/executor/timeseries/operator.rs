//! What all operators of time-series SQL are to DataFusion: one partition made of one or two inputs, by what [`Operator`] says.

use crate::domain::executor::scan::ScanExec;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use std::fmt;
use std::sync::Arc;

/// What an operator computes.
pub trait Operator: fmt::Debug + Send + Sync + Sized + 'static {
    /// Its name in plans.
    const NAME: &'static str;

    /// Whether it reads each partition of its input by itself.
    const READS_PARTITIONS: bool = false;

    /// Writes what is special about it, behind its name.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Returns the order in which it needs its input, and answers; none where any will do.
    fn ordering(&self) -> Option<LexOrdering> {
        None
    }

    /// Returns the operator that answers only these of its columns; none where a projection does that.
    fn answering(&self, _columns: &[usize]) -> Option<Self> {
        None
    }

    /// Answers what its inputs bring.
    ///
    /// # Errors
    ///
    /// Its own, as it starts.
    fn run(&self, run: Run) -> Result<SendableRecordBatchStream>;
}

/// What an operator runs with.
pub struct Run {
    /// Its inputs, or the partitions of its one input.
    pub inputs: Vec<SendableRecordBatchStream>,
    /// Whether the last input hands out a table's own columns, which are counted there.
    pub is_table: bool,
    /// The columns of its answer.
    pub schema: SchemaRef,
    /// What its memory is taken from.
    pub memory: MemoryReservation,
}

impl Run {
    /// Takes the inputs of an operator that has so many.
    ///
    /// # Errors
    ///
    /// `Internal` where it was given another number of them.
    pub fn inputs<const N: usize>(&mut self) -> Result<[SendableRecordBatchStream; N]> {
        match std::mem::take(&mut self.inputs).try_into() {
            Ok(inputs) => Ok(inputs),
            Err(_) => internal_err!("an operator has another number of inputs"),
        }
    }
}

/// An operator in a plan.
#[derive(Debug)]
pub struct OperatorExec<O> {
    operator: Arc<O>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
}

impl<O: Operator> OperatorExec<O> {
    /// Puts an operator over its inputs; its batches have `schema`.
    pub fn new(operator: O, inputs: Vec<Arc<dyn ExecutionPlan>>, schema: SchemaRef) -> Self {
        Self::over(Arc::new(operator), inputs, schema)
    }

    fn over(operator: Arc<O>, inputs: Vec<Arc<dyn ExecutionPlan>>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, operator.ordering()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { operator, inputs, properties: Arc::new(properties) }
    }
}

impl<O: Operator> DisplayAs for OperatorExec<O> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", O::NAME)?;
        self.operator.describe(f)
    }
}

impl<O: Operator> ExecutionPlan for OperatorExec<O> {
    fn name(&self) -> &str {
        O::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let wanted =
            if O::READS_PARTITIONS { Distribution::UnspecifiedDistribution } else { Distribution::SinglePartition };
        vec![wanted; self.inputs.len()]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.operator.ordering().map(OrderingRequirements::from); self.inputs.len()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::over(self.operator.clone(), inputs, self.schema())))
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
        let columns = projection.expr().iter().map(|expr| column(&expr.expr)).collect::<Option<Vec<_>>>();
        let made = columns.and_then(|columns| self.operator.answering(&columns));
        Ok(made.map(|operator| Arc::new(Self::new(operator, self.inputs.clone(), projection.schema())) as _))
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new(O::NAME).register(task.memory_pool());
        let mut inputs = Vec::new();
        for input in &self.inputs {
            let partitions = if O::READS_PARTITIONS { input.output_partitioning().partition_count() } else { 1 };
            for partition in 0..partitions {
                inputs.push(input.execute(partition, task.clone())?);
            }
        }
        let is_table = self.inputs.last().is_some_and(|input| input.is::<ScanExec>());
        self.operator.run(Run { inputs, is_table, schema: self.schema(), memory })
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}
