//! What is known of a plan before it runs: whether it may be kept, cut into parts, run in order, or handed out as it is.
//!
//! Each is decided from an allow-list of nodes: what is not on it is taken for the dearer case.

use crate::domain::executor::planner_context::NamedTable;
use crate::domain::executor::scan::BATCH_ROWS;
use crate::ports::{Error, Result};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

/// Whether a plan means the same at any moment, and reads nothing but tables.
pub fn is_lasting(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut lasting = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            lasting &= scan.source.downcast_ref::<NamedTable>().is_some();
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr {
                    lasting &= function.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(lasting)
}

/// Most bytes of the values that stand in a kept plan: the optimiser computes what it can, `repeat('x', 1000000)` as well.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Most bytes that constants come to where they are repeated for all rows of a batch.
const REPEATED_BYTES_MAX: u64 = 256 << 20;

/// Rows of a batch that a plan makes itself.
const MADE_ROWS: u64 = 8_192;

/// The values that stand in a plan.
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    /// Of all of them.
    bytes: usize,
    /// Of text, bytes and lists among those that stand where rows are computed from them.
    repeated_bytes: u64,
    /// Whether they may be repeated: the plan reads more than a single row.
    repeat: bool,
}

/// Collects the constants of an optimised plan.
pub fn constants(plan: &LogicalPlan) -> Constants {
    let mut found = Constants { bytes: 0, repeated_bytes: 0, repeat: false };
    let visited = plan.apply_with_subqueries(|node| {
        // The rows of VALUES are computed one by one, each once.
        let is_values = matches!(node, LogicalPlan::Values(_));
        let makes_rows =
            matches!(node, LogicalPlan::TableScan(_) | LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_));
        found.repeat |= is_values || makes_rows;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Literal(value, _) => {
                        found.bytes += value.size();
                        if !is_values {
                            found.repeated_bytes += (value.size() - size_of_val(value)) as u64;
                        }
                    }
                    // What a column is looked up in is kept once.
                    Expr::InList(list) => {
                        let kept: usize = list
                            .list
                            .iter()
                            .map(|item| if let Expr::Literal(value, _) = item { value.size() } else { 0 })
                            .sum();
                        found.bytes += kept;
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
    /// Returns whether they may be kept.
    pub fn are_few(self) -> bool {
        self.bytes <= VALUE_BYTES_MAX
    }

    /// Refuses constants that would be too much for each row of a batch over tables of `rows` rows: whatever takes them
    /// repeats them, past every budget.
    pub fn check(self, rows: u64) -> Result<()> {
        let batch_rows = if self.repeat { rows.clamp(MADE_ROWS, BATCH_ROWS as u64) } else { 1 };
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

/// Whether every row of the answer comes from one row of the one table that it reads.
pub fn is_divisible(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<NamedTable>().is_some(),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(is_divisible) && !has_subqueries(plan)
        }
        _ => false,
    }
}

/// Whether a plan computes nothing.
pub fn is_light(plan: &LogicalPlan) -> bool {
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
    takes_columns && plan.inputs().into_iter().all(is_light)
}

/// Whether an expression of this node reads a table of its own.
fn has_subqueries(plan: &LogicalPlan) -> bool {
    plan.expressions().iter().any(|expr| {
        expr.exists(|expr| {
            Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
        })
        .unwrap_or(true)
    })
}

/// Whether rows leave in the order in which the tables hold them, unless several cores shuffle them.
pub fn keeps_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => plan.inputs().into_iter().all(keeps_order),
        _ => false,
    }
}
