//! Checks the operators after `|>`.

use crate::domain::sql::guard::select::{no_named_window, select_item};
use crate::domain::sql::guard::tables::join;
use crate::domain::sql::guard::{Refused, absent};
use sqlparser::ast::{ExprWithAlias, ExprWithAliasAndOrderBy, OrderByOptions, PipeOperator};

pub(super) fn pipe_operator(operator: &PipeOperator) -> Result<(), Refused> {
    no_named_window(operator)?;
    match operator {
        PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => exprs.iter().try_for_each(select_item),
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
            full_table_exprs.iter().chain(group_by_expr).try_for_each(aggregated)
        }
        PipeOperator::Join(joined) => join(joined),
        PipeOperator::Limit { expr: _, offset: _ }
        | PipeOperator::Where { expr: _ }
        | PipeOperator::OrderBy { exprs: _ }
        | PipeOperator::As { alias: _ }
        | PipeOperator::Union { set_quantifier: _, queries: _ }
        | PipeOperator::Intersect { set_quantifier: _, queries: _ }
        | PipeOperator::Except { set_quantifier: _, queries: _ } => Ok(()),
        // Refused as a whole.
        PipeOperator::Set { .. }
        | PipeOperator::Drop { .. }
        | PipeOperator::TableSample { .. }
        | PipeOperator::Rename { .. }
        | PipeOperator::Call { .. }
        | PipeOperator::Pivot { .. }
        | PipeOperator::Unpivot { .. } => Ok(()),
    }
}

fn aggregated(expr: &ExprWithAliasAndOrderBy) -> Result<(), Refused> {
    let ExprWithAliasAndOrderBy { expr: ExprWithAlias { expr: _, alias: _ }, order_by } = expr;
    let OrderByOptions { asc, nulls_first } = order_by;
    absent(asc.is_some() || nulls_first.is_some(), "ASC, DESC and NULLS in |> AGGREGATE (use |> ORDER BY)")
}
