//! Facts about a plan before it runs: whether it may be cached, cut into parts, run in order, or passed through.
//!
//! Each is decided from an allow-list of nodes: what is not on it is taken for the dearer case.

use crate::domain::executor::planner_context::NamedTable;
use crate::domain::executor::scan::BATCH_ROWS;
use crate::ports::{Error, Result};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

/// Returns whether a plan means the same at any moment, and reads nothing but tables.
pub fn is_repeatable(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut repeatable = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            repeatable &= scan.source.downcast_ref::<NamedTable>().is_some();
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr {
                    repeatable &= function.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(repeatable)
}

/// Most bytes of the values that stand in a cached plan: the optimiser computes what it can, `repeat('x', 1000000)` as
/// well.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Most bytes that constants come to where they are repeated for all rows of a batch.
const REPEATED_BYTES_MAX: u64 = 256 << 20;

/// Rows of a batch that a plan computes itself.
const COMPUTED_ROWS: u64 = 8_192;

/// The values that stand in a plan.
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    /// Bytes of all of them.
    bytes: usize,
    /// Bytes of text, binaries and lists that stand where rows are computed from them.
    repeated_bytes: u64,
    /// Whether they may be repeated: the plan reads more than a single row.
    has_rows: bool,
}

/// Collects the constants of an optimised plan.
pub fn constants(plan: &LogicalPlan) -> Constants {
    let mut found = Constants { bytes: 0, repeated_bytes: 0, has_rows: false };
    let visited = plan.apply_with_subqueries(|node| {
        // The rows of VALUES are computed one by one, each once.
        let is_values = matches!(node, LogicalPlan::Values(_));
        let makes_rows =
            matches!(node, LogicalPlan::TableScan(_) | LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_));
        found.has_rows |= is_values || makes_rows;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Literal(value, _) => {
                        found.bytes += value.size();
                        if !is_values {
                            found.repeated_bytes += (value.size() - size_of_val(value)) as u64;
                        }
                    }
                    // The list of an IN is stored once, not for each row.
                    Expr::InList(list) => {
                        let listed: usize = list
                            .list
                            .iter()
                            .map(|item| if let Expr::Literal(value, _) = item { value.size() } else { 0 })
                            .sum();
                        found.bytes += listed;
                        return Ok(TreeNodeRecursion::Jump);
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(visited.is_ok(), "nothing fails");
    found
}

impl Constants {
    /// Returns whether they are small enough for a cached plan.
    pub fn are_few(self) -> bool {
        self.bytes <= VALUE_BYTES_MAX
    }

    /// Refuses constants that would be too large for each row of a batch over tables of `rows` rows: kernels repeat
    /// them, past every budget.
    ///
    /// # Errors
    ///
    /// `InvalidQuery`.
    pub fn check(self, rows: u64) -> Result<()> {
        let batch_rows = if self.has_rows { rows.clamp(COMPUTED_ROWS, BATCH_ROWS as u64) } else { 1 };
        let bytes = self.repeated_bytes.saturating_mul(batch_rows);
        if bytes > REPEATED_BYTES_MAX {
            return Err(Error::invalid(format!(
                "constants of {} bytes would be repeated for {batch_rows} rows at once; put them in a table",
                self.repeated_bytes
            )));
        }
        Ok(())
    }
}

/// Returns whether every row of the answer comes from one row of the one table that it reads.
pub fn is_partitionable(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<NamedTable>().is_some(),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(is_partitionable) && !has_subqueries(plan)
        }
        _ => false,
    }
}

/// Returns whether a plan computes nothing: it hands out columns of tables unchanged.
pub fn is_passthrough(plan: &LogicalPlan) -> bool {
    let takes_columns = match plan {
        LogicalPlan::TableScan(scan) => {
            return scan.filters.is_empty() && scan.source.downcast_ref::<NamedTable>().is_some();
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr.clone().unalias(), Expr::Column(_)))
        }
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Limit(_) => true,
        _ => false,
    };
    takes_columns && plan.inputs().into_iter().all(is_passthrough)
}

/// Returns whether an expression of this node reads a table of its own.
fn has_subqueries(plan: &LogicalPlan) -> bool {
    plan.expressions().iter().any(|expr| {
        expr.exists(|expr| {
            Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
        })
        .unwrap_or(true)
    })
}

/// Returns whether rows leave in the order in which the tables hold them, unless several cores shuffle them.
pub fn preserves_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => plan.inputs().into_iter().all(preserves_order),
        _ => false,
    }
}
