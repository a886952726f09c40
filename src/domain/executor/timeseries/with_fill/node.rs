//! WITH FILL as a node of a logical plan.

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The rows of an input, and those that are missing between them. Its columns are those of the input; all may be NULL but the
/// ones that order it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WithFillNode {
    input: LogicalPlan,
    /// The filled column, and behind it those that make its group.
    pub orders: Vec<Expr>,
    /// For each of them whether it descends, and whether NULLs come first.
    pub directions: Vec<(bool, bool)>,
    /// FROM, TO and STEP; NULL where they are not given.
    pub bounds: [ScalarValue; 3],
    schema: DFSchemaRef,
}

impl WithFillNode {
    /// Makes the node.
    ///
    /// # Errors
    ///
    /// Those of making its schema.
    pub fn new(
        input: LogicalPlan,
        orders: Vec<Expr>,
        directions: Vec<(bool, bool)>,
        bounds: [ScalarValue; 3],
    ) -> Result<Self> {
        let ordering: Vec<_> = orders.iter().flat_map(Expr::column_refs).cloned().collect();
        let fields = input.schema().iter().map(|(relation, field)| {
            let is_order = ordering.iter().any(|column| column.name == *field.name());
            let nullable = field.is_nullable() || !is_order;
            (relation.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), input.schema().metadata().clone())?;
        Ok(Self { orders, directions, bounds, schema: Arc::new(schema), input })
    }

    /// Returns its columns without their tables.
    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema.inner().clone()
    }

    /// Returns the columns of its input.
    pub fn input_schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }
}

impl PartialOrd for WithFillNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WithFillNode {
    fn name(&self) -> &str {
        "WithFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.orders.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [from, to, step] = &self.bounds;
        write!(f, "WithFill: {} from {from} to {to} step {step}", self.orders[0])
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => Self::new(input, exprs, self.directions.clone(), self.bounds.clone()),
            None => internal_err!("WITH FILL has an input"),
        }
    }
}
