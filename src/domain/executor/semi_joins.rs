//! Moves `x IN (SELECT …)` below the joins of the rows that it chooses from.
//!
//! DataFusion 55.2 makes of IN a semi join above all joins of FROM, which then run over rows that it drops (TPC-H's query 18). The rows that
//! it keeps depend on one side of an inner join alone, so it can stand on that side. It is moved where its own rows are chosen by a
//! condition: one that keeps nearly all is better asked last.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, Result};
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// The rule.
#[derive(Debug)]
pub struct SemiJoinsFirst;

impl OptimizerRule for SemiJoinsFirst {
    fn name(&self) -> &str {
        "semi_joins_first"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(semi) = plan else { return Ok(Transformed::no(plan)) };
        let can_move = semi.join_type == JoinType::LeftSemi && semi.filter.is_none() && !semi.null_aware;
        if !can_move || !chooses(&semi.right)? {
            return Ok(Transformed::no(LogicalPlan::Join(semi)));
        }
        Ok(match moved(&semi)? {
            Some(moved) => Transformed::yes(moved),
            None => Transformed::no(LogicalPlan::Join(semi)),
        })
    }
}

/// Returns whether a plan has a condition.
fn chooses(plan: &LogicalPlan) -> Result<bool> {
    let mut chooses = false;
    plan.apply(|node| {
        chooses |= match node {
            LogicalPlan::Filter(_) => true,
            LogicalPlan::TableScan(scan) => !scan.filters.is_empty(),
            _ => false,
        };
        Ok(if chooses { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(chooses)
}

/// Returns a semi join on the side of the join below it that its keys are of; none where there is no such side.
fn moved(semi: &Join) -> Result<Option<LogicalPlan>> {
    match semi.left.as_ref() {
        LogicalPlan::Projection(projection) => {
            let input_key = |(key, other): &(Expr, Expr)| {
                let Expr::Column(column) = key else { return None };
                let at = projection.schema.maybe_index_of_column(column)?;
                match projection.expr[at].clone().unalias() {
                    Expr::Column(column) => Some((Expr::Column(column), other.clone())),
                    _ => None,
                }
            };
            let Some(on) = semi.on.iter().map(input_key).collect::<Option<Vec<_>>>() else { return Ok(None) };
            let below = on_top_of(semi, projection.input.clone(), on)?;
            let Some(below) = moved(&below)? else { return Ok(None) };
            let projected = semi.left.with_new_exprs(projection.expr.clone(), vec![below])?;
            Ok(Some(projected))
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let are_of = |schema: &DFSchema| {
                semi.on.iter().all(|(key, _)| matches!(key, Expr::Column(column) if schema.has_column(column)))
            };
            let mut join = join.clone();
            let side = match (are_of(join.left.schema()), are_of(join.right.schema())) {
                (true, false) => &mut join.left,
                (false, true) => &mut join.right,
                _ => return Ok(None),
            };
            *side = Arc::new(LogicalPlan::Join(on_top_of(semi, side.clone(), semi.on.clone())?));
            Ok(Some(LogicalPlan::Join(join)))
        }
        _ => Ok(None),
    }
}

fn on_top_of(semi: &Join, left: Arc<LogicalPlan>, on: Vec<(Expr, Expr)>) -> Result<Join> {
    let Join { right, join_type, join_constraint, null_equality, .. } = semi;
    Join::try_new(left, right.clone(), on, None, *join_type, *join_constraint, *null_equality, false)
}
