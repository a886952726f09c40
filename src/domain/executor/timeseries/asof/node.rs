//! The join by time as a node of a logical plan.

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchemaRef, JoinType, Result, internal_err};
use datafusion::logical_expr::logical_plan::builder::build_join_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Which row of the right side is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The last one that is not later.
    Backward,
    /// The first one that is not earlier.
    Forward,
    /// The one that is nearest; of two as near the earlier.
    Nearest,
}

/// How a join by time matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AsOfSpec {
    /// Which row is in force.
    pub direction: Direction,
    /// Whether a row of the same time is not.
    pub strict: bool,
    /// How far away it may be, in the unit in which times are compared.
    pub tolerance: Option<i64>,
    /// Whether rows without a match stay.
    pub outer: bool,
}

/// One key: equal on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JoinKey {
    /// Of the left side.
    pub left: Expr,
    /// Of the right side.
    pub right: Expr,
    /// Whether NULL is equal to NULL.
    pub null_safe: bool,
}

/// A join by time. Its columns are those of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOfNode {
    left: LogicalPlan,
    right: LogicalPlan,
    /// The keys.
    pub keys: Vec<JoinKey>,
    /// The times of both sides.
    pub times: [Expr; 2],
    /// Rows of the left side for which this is not true have no match.
    pub left_condition: Option<Expr>,
    /// How it matches.
    pub spec: AsOfSpec,
    schema: DFSchemaRef,
}

impl AsOfNode {
    /// Makes the node.
    ///
    /// # Errors
    ///
    /// DataFusion's where both sides have a column of the same qualified name.
    pub fn new(
        [left, right]: [LogicalPlan; 2],
        keys: Vec<JoinKey>,
        times: [Expr; 2],
        left_condition: Option<Expr>,
        spec: AsOfSpec,
    ) -> Result<Self> {
        let kind = if spec.outer { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(Self { left, right, keys, times, left_condition, spec, schema })
    }
}

impl AsOfNode {
    /// Returns the columns of both inputs.
    pub fn input_schemas(&self) -> [&DFSchemaRef; 2] {
        [self.left.schema(), self.right.schema()]
    }

    /// Returns its columns without their qualifiers.
    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema.inner().clone()
    }
}

impl Hash for AsOfNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
        self.keys.hash(state);
        self.times.hash(state);
        self.spec.hash(state);
    }
}

impl PartialOrd for AsOfNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AsOfNode {
    fn name(&self) -> &str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().flat_map(|key| [key.left.clone(), key.right.clone()]);
        keys.chain(self.times.clone()).chain(self.left_condition.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let AsOfSpec { direction, strict, tolerance, outer } = self.spec;
        let operator = match (direction, strict) {
            (Direction::Backward, false) => ">=",
            (Direction::Backward, true) => ">",
            (Direction::Forward, false) => "<=",
            (Direction::Forward, true) => "<",
            (Direction::Nearest, _) => "nearest",
        };
        write!(f, "AsOfJoin: {}", if outer { "left" } else { "inner" })?;
        for key in &self.keys {
            write!(f, ", {} = {}", key.left, key.right)?;
        }
        write!(f, ", {} {operator} {}", self.times[0], self.times[1])?;
        tolerance.map_or(Ok(()), |tolerance| write!(f, ", tolerance {tolerance}"))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let (Some(left), Some(right)) = (exprs.next(), exprs.next()) else { return internal_err!("keys are lost") };
            keys.push(JoinKey { left, right, null_safe: key.null_safe });
        }
        let (Some(left), Some(right)) = (exprs.next(), exprs.next()) else { return internal_err!("times are lost") };
        let Ok(inputs) = <[LogicalPlan; 2]>::try_from(inputs) else { return internal_err!("a join has two inputs") };
        Self::new(inputs, keys, [left, right], exprs.next(), self.spec)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let mut wanted: [HashSet<usize>; 2] = Default::default();
        for column in output_columns {
            match column.checked_sub(width) {
                None => wanted[0].insert(*column),
                Some(column) => wanted[1].insert(column),
            };
        }
        for expr in self.expressions() {
            for column in expr.column_refs() {
                for (schema, wanted) in [self.left.schema(), self.right.schema()].into_iter().zip(&mut wanted) {
                    wanted.extend(schema.maybe_index_of_column(column));
                }
            }
        }
        let ordered = |columns: HashSet<usize>| {
            let mut columns: Vec<_> = columns.into_iter().collect();
            columns.sort_unstable();
            columns
        };
        Some(wanted.map(ordered).into())
    }
}
