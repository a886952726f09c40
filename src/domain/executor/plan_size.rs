//! Bounds how large a plan becomes when everything that it shares is expanded.
//!
//! The optimiser puts a common table expression in wherever it is named, and the expression of a column wherever that
//! is used: a few hundred bytes of SQL may grow by a factor with each level, and planning cannot be stopped by a time
//! limit. So both growths are computed beforehand, in one pass that visits each shared node once, and refused past a
//! bound.

use crate::ports::{Error, Limits, Result};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, LogicalPlan};
use std::collections::HashMap;

/// Bounds on the expanded size of a statement.
#[derive(Debug, Clone, Copy)]
pub struct PlanLimits {
    /// Nodes of the plan.
    pub nodes_max: u64,
    /// Nodes of all of its expressions.
    pub expressions_max: u64,
}

impl From<&Limits> for PlanLimits {
    fn from(limits: &Limits) -> Self {
        Self { nodes_max: limits.plan_nodes_max, expressions_max: limits.plan_expressions_max }
    }
}

/// Refuses a plan that grows past its bounds.
///
/// # Errors
///
/// `InvalidQuery` naming the limit.
pub fn check_plan_size(plan: &LogicalPlan, limits: PlanLimits) -> Result<()> {
    let mut sizes = Sizes { limits, known: HashMap::new() };
    sizes.of(plan).map(drop)
}

/// The expanded size of a node with all nodes below it.
#[derive(Debug, Clone)]
struct Size {
    nodes: u64,
    /// Nodes of all expressions, each column replaced by what it is computed from.
    expressions: u64,
    /// Nodes of the expanded expression of each output column.
    columns: Vec<u64>,
}

struct Sizes {
    limits: PlanLimits,
    /// By address: a shared node is one node in memory.
    known: HashMap<*const LogicalPlan, Size>,
}

impl Sizes {
    fn of(&mut self, plan: &LogicalPlan) -> Result<Size> {
        let address = std::ptr::from_ref(plan);
        if let Some(size) = self.known.get(&address) {
            return Ok(size.clone());
        }
        let inputs = plan.inputs().into_iter().map(|input| self.of(input)).collect::<Result<Vec<_>>>()?;
        let mut nodes = inputs.iter().fold(1_u64, |sum, input| sum.saturating_add(input.nodes));
        let mut expressions = inputs.iter().fold(0_u64, |sum, input| sum.saturating_add(input.expressions));
        let schemas: Vec<_> = plan.inputs().into_iter().map(LogicalPlan::schema).collect();
        let below = Below { inputs: &inputs, schemas: &schemas };
        let mut own = Vec::new();
        for expr in plan.expressions() {
            let size = self.expression(&expr, &below)?;
            expressions = expressions.saturating_add(size.expressions);
            nodes = nodes.saturating_add(size.nodes);
            own.push(size.expressions);
        }
        self.check(nodes, expressions)?;
        let size = Size { nodes, expressions, columns: columns(plan, &inputs, &own) };
        self.known.insert(address, size.clone());
        Ok(size)
    }

    fn check(&self, nodes: u64, expressions: u64) -> Result<()> {
        let PlanLimits { nodes_max, expressions_max } = self.limits;
        if nodes > nodes_max {
            return Err(Error::invalid(format!(
                "the statement expands to {nodes} relations, more than {nodes_max} (plan_nodes_max)"
            )));
        }
        if expressions > expressions_max {
            return Err(Error::invalid(format!(
                "the statement expands to {expressions} terms, more than {expressions_max} (plan_expressions_max)"
            )));
        }
        Ok(())
    }

    /// Returns the size of an expression with what its columns are computed from, and the plans of its subqueries.
    fn expression(&mut self, expr: &Expr, below: &Below) -> Result<Size> {
        let mut size = Size { nodes: 0, expressions: 0, columns: Vec::new() };
        let mut failed = None;
        let visited = expr.apply(|part| {
            size.expressions = size.expressions.saturating_add(match part {
                Expr::Column(column) => below.column(column),
                _ => 1,
            });
            let subquery = match part {
                Expr::ScalarSubquery(subquery) => Some(subquery),
                Expr::InSubquery(within) => Some(&within.subquery),
                Expr::Exists(exists) => Some(&exists.subquery),
                Expr::SetComparison(comparison) => Some(&comparison.subquery),
                _ => None,
            };
            if let Some(subquery) = subquery {
                match self.of(&subquery.subquery) {
                    Ok(inner) => {
                        size.nodes = size.nodes.saturating_add(inner.nodes);
                        size.expressions = size.expressions.saturating_add(inner.expressions);
                    }
                    Err(error) => {
                        failed = Some(error);
                        return Ok(TreeNodeRecursion::Stop);
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "nothing fails but by `failed`");
        // Some expressions are copied when they are simplified, each level twice.
        size.expressions = size.expressions.saturating_mul(copies(expr));
        failed.map_or(Ok(size), Err)
    }
}

/// Returns how many copies simplifying makes of the innermost part of an expression: BETWEEN, coalesce and their kind
/// become CASE and AND, which name the tested expression twice.
fn copies(expr: &Expr) -> u64 {
    fn depth(expr: &Expr) -> u32 {
        let mut deepest = 0;
        let visited = expr.apply_children(|child| {
            deepest = deepest.max(depth(child));
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "nothing fails");
        let doubles = match expr {
            Expr::Between(_) => true,
            Expr::ScalarFunction(call) => matches!(call.func.name(), "coalesce" | "nvl" | "nvl2" | "nullif"),
            _ => false,
        };
        deepest + u32::from(doubles)
    }
    2_u64.saturating_pow(depth(expr).saturating_sub(1))
}

/// The inputs of a node, to look up the sizes of their columns.
struct Below<'a> {
    inputs: &'a [Size],
    schemas: &'a [&'a std::sync::Arc<DFSchema>],
}

impl Below<'_> {
    fn column(&self, column: &Column) -> u64 {
        self.schemas
            .iter()
            .zip(self.inputs)
            .find_map(|(schema, input)| input.columns.get(schema.maybe_index_of_column(column)?).copied())
            .unwrap_or(1)
    }
}

/// Returns the sizes of the columns of `plan`, those of its inputs included where the optimiser puts them in.
fn columns(plan: &LogicalPlan, inputs: &[Size], own: &[u64]) -> Vec<u64> {
    let width = plan.schema().fields().len();
    let mut columns = match plan {
        LogicalPlan::Projection(_) => own.to_vec(),
        // Filters on its columns are pushed into each of its inputs.
        LogicalPlan::Union(_) => (0..width)
            .map(|at| inputs.iter().filter_map(|input| input.columns.get(at)).copied().max().unwrap_or(1))
            .collect(),
        // Groups are put in for the columns that name them; what is aggregated is not.
        LogicalPlan::Aggregate(aggregate) => own.iter().take(aggregate.group_expr.len()).copied().collect(),
        _ => inputs.iter().flat_map(|input| input.columns.iter().copied()).collect(),
    };
    columns.resize(width, 1);
    columns
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::plan_size::{PlanLimits, check_plan_size};
    use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};

    const LIMITS: PlanLimits = PlanLimits { nodes_max: 1_000, expressions_max: 10_000 };

    fn one() -> LogicalPlan {
        LogicalPlanBuilder::empty(true).project([lit(1).alias("x")]).unwrap().build().unwrap()
    }

    /// Makes `levels` projections that each use the column below twice.
    fn nested(levels: usize) -> LogicalPlan {
        (0..levels).fold(one(), |plan, _| {
            LogicalPlanBuilder::from(plan).project([(col("x") + col("x")).alias("x")]).unwrap().build().unwrap()
        })
    }

    /// Makes `levels` unions that each read the plan below twice.
    fn shared(levels: usize) -> LogicalPlan {
        (0..levels).fold(one(), |plan, _| LogicalPlanBuilder::from(plan.clone()).union(plan).unwrap().build().unwrap())
    }

    #[test]
    fn what_grows_with_each_level_is_refused_at_once() {
        check_plan_size(&nested(8), LIMITS).unwrap();
        check_plan_size(&shared(5), LIMITS).unwrap();
        assert!(check_plan_size(&nested(50), LIMITS).unwrap_err().message().contains("plan_expressions_max"));
        assert!(check_plan_size(&shared(20), LIMITS).unwrap_err().message().contains("plan_nodes_max"));
    }
}
