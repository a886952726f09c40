//! The filling of gaps as a node of a logical plan.

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// What stands in a bucket without rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fill {
    /// NULL.
    Null,
    /// What the aggregate answers for no rows: the 0 of `count`.
    Zero,
    /// The last value before that is not NULL; NULL is filled in buckets with rows as well.
    Previous,
    /// A value on the line between the ones around it.
    Linear,
    /// A constant.
    Constant(ScalarValue),
}

/// A column that is answered: which one of the input, and how it is filled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filled {
    /// Position of the column in the input.
    pub column: usize,
    /// How it is filled.
    pub fill: Fill,
}

/// Gaps that are filled. Its columns are those of its input, and the filled ones that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GapFillNode {
    input: LogicalPlan,
    /// The call that makes the buckets.
    pub call: ScalarFunction,
    /// Position of the bucket's start.
    pub time: usize,
    /// Number of the group's columns; the aggregates follow them.
    pub groups: usize,
    /// How each aggregate is filled that is asked for as it is, and the columns that are asked for beside it.
    pub filled: Vec<Filled>,
    /// The first instant, and the one behind the last, in nanoseconds; those of the rows where none.
    pub bounds: [Option<i64>; 2],
    schema: DFSchemaRef,
}

impl GapFillNode {
    /// Makes the node; `filled` are the columns beside those of the input.
    ///
    /// # Errors
    ///
    /// DataFusion's where two columns have one name.
    pub fn new(
        input: LogicalPlan,
        call: ScalarFunction,
        time: usize,
        groups: usize,
        filled: Vec<Filled>,
        bounds: [Option<i64>; 2],
    ) -> Result<Self> {
        let mut fields: Vec<_> = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))))
            .collect();
        for (number, filled) in filled.iter().enumerate().skip(fields.len() - groups) {
            let field = input.schema().field(filled.column);
            let is_line = filled.fill == Fill::Linear && !field.data_type().is_floating();
            let data_type = if is_line { DataType::Float64 } else { field.data_type().clone() };
            fields.push((None, Arc::new(Field::new(Self::filled_name(number), data_type, true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, call, time, groups, filled, bounds, schema })
    }

    /// Returns the name of a column that is filled in another way than as it is.
    pub fn filled_name(number: usize) -> String {
        format!("__zepto_filled_{number}")
    }

    /// Returns its input.
    pub fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// Returns its columns without their qualifiers.
    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema.inner().clone()
    }
}

impl PartialOrd for GapFillNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for GapFillNode {
    fn name(&self) -> &str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GapFill: {}, from {:?} to {:?}", self.call.name(), self.bounds[0], self.bounds[1])
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => {
                Self::new(input, self.call.clone(), self.time, self.groups, self.filled.clone(), self.bounds)
            }
            None => internal_err!("filling gaps has an input"),
        }
    }
}
