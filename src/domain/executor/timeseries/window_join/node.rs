//! The window join as a node of a logical plan.

use crate::domain::executor::timeseries::asof::JoinKey;
use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef, Result, internal_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A window join. Its columns are those of the left side, and one for each aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowJoinNode {
    left: LogicalPlan,
    right: LogicalPlan,
    /// The keys.
    pub keys: Vec<JoinKey>,
    /// The first and the last time of a window, over the left side.
    pub window: [Expr; 2],
    /// The time of the right side.
    pub time: Expr,
    /// Rows of the left side for which this is not true have an empty window.
    pub left_condition: Option<Expr>,
    /// Aggregates over the right side.
    pub aggregates: Vec<Expr>,
    /// Whether the row in force when the window opens belongs to it.
    pub prevailing: bool,
    schema: DFSchemaRef,
}

/// What a window join is made of, beside its inputs.
#[derive(Debug, Clone)]
pub struct WindowParts {
    /// See [`WindowJoinNode::keys`].
    pub keys: Vec<JoinKey>,
    /// See [`WindowJoinNode::window`].
    pub window: [Expr; 2],
    /// See [`WindowJoinNode::time`].
    pub time: Expr,
    /// See [`WindowJoinNode::left_condition`].
    pub left_condition: Option<Expr>,
    /// See [`WindowJoinNode::aggregates`].
    pub aggregates: Vec<Expr>,
    /// See [`WindowJoinNode::prevailing`].
    pub prevailing: bool,
}

impl WindowJoinNode {
    /// Makes the node.
    ///
    /// # Errors
    ///
    /// DataFusion's where an aggregate has no type.
    pub fn new([left, right]: [LogicalPlan; 2], parts: WindowParts) -> Result<Self> {
        let WindowParts { keys, window, time, left_condition, aggregates, prevailing } = parts;
        let mut fields: Vec<_> =
            left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        for (number, aggregate) in aggregates.iter().enumerate() {
            let data_type = aggregate.get_type(right.schema().as_ref())?;
            fields.push((None, Arc::new(Field::new(Self::aggregate_name(number), data_type, true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, left.schema().metadata().clone())?);
        Ok(Self { left, right, keys, window, time, left_condition, aggregates, prevailing, schema })
    }

    /// Returns the name of the column of an aggregate, as `sql/timeseries` has put it into the statement.
    pub fn aggregate_name(number: usize) -> String {
        format!("__zepto_window_{number}")
    }

    /// Returns the columns of both inputs.
    pub fn input_schemas(&self) -> [&DFSchemaRef; 2] {
        [self.left.schema(), self.right.schema()]
    }

    /// Returns its columns without their qualifiers.
    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema.inner().clone()
    }
}

impl Hash for WindowJoinNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
        self.keys.hash(state);
        self.window.hash(state);
        self.aggregates.hash(state);
    }
}

impl PartialOrd for WindowJoinNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowJoinNode {
    fn name(&self) -> &str {
        "WindowJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().flat_map(|key| [key.left.clone(), key.right.clone()]);
        let times = self.window.iter().chain([&self.time]).cloned();
        keys.chain(times).chain(self.aggregates.clone()).chain(self.left_condition.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowJoin: {} between {} and {}", self.time, self.window[0], self.window[1])?;
        self.keys.iter().try_for_each(|key| write!(f, ", {} = {}", key.left, key.right))?;
        self.aggregates.iter().try_for_each(|aggregate| write!(f, ", {aggregate}"))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let mut next = || match exprs.next() {
            Some(expr) => Ok(expr),
            None => internal_err!("a window join has lost an expression"),
        };
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            keys.push(JoinKey { left: next()?, right: next()?, null_safe: key.null_safe });
        }
        let (window, time) = ([next()?, next()?], next()?);
        let aggregates = self.aggregates.iter().map(|_| next()).collect::<Result<Vec<_>>>()?;
        let left_condition = self.left_condition.as_ref().map(|_| next()).transpose()?;
        let Ok(inputs) = <[LogicalPlan; 2]>::try_from(inputs) else { return internal_err!("a join has two inputs") };
        let prevailing = self.prevailing;
        Self::new(inputs, WindowParts { keys, window, time, left_condition, aggregates, prevailing })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let mut wanted: [BTreeSet<usize>; 2] = Default::default();
        wanted[0].extend(output_columns.iter().copied().filter(|column| *column < width));
        for expr in self.expressions() {
            for column in expr.column_refs() {
                for (schema, wanted) in [self.left.schema(), self.right.schema()].into_iter().zip(&mut wanted) {
                    wanted.extend(schema.maybe_index_of_column(column));
                }
            }
        }
        Some(wanted.map(|columns| columns.into_iter().collect()).into())
    }
}
