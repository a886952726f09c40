//! Lifts the aggregates of a WINDOW JOIN out of the SELECT into the join, which computes them.

use crate::domain::sql::timeseries::expressions::{name_of, rename};
use crate::ports::{Error, Result};
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, JoinOperator,
    Select, SelectItem, TableFactor, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Returns whether FROM has a WINDOW JOIN.
pub fn has_window_join(select: &Select) -> bool {
    select.from.iter().any(|from| marker_in(&from.relation).is_some())
}

fn marker_in(relation: &TableFactor) -> Option<&Function> {
    let TableFactor::NestedJoin { table_with_joins, .. } = relation else { return None };
    match &table_with_joins.joins.last()?.join_operator {
        JoinOperator::AsOf { match_condition: Expr::Function(call), .. }
            if name_of(call).as_deref() == Some("__zepto_window") =>
        {
            Some(call)
        }
        _ => marker_in(&table_with_joins.relation),
    }
}

fn marker_in_mut(relation: &mut TableFactor) -> Option<&mut Function> {
    let TableFactor::NestedJoin { table_with_joins, .. } = relation else { return None };
    match &mut table_with_joins.joins.last_mut()?.join_operator {
        JoinOperator::AsOf { match_condition: Expr::Function(call), .. }
            if name_of(call).as_deref() == Some("__zepto_window") =>
        {
            Some(call)
        }
        _ => marker_in_mut(&mut table_with_joins.relation),
    }
}

/// Lifts the aggregates of the selected expressions, whose names are resolved already.
///
/// # Errors
///
/// `Unsupported` for a WINDOW JOIN beside other tables, GROUP BY or HAVING.
pub fn lift_window_aggregates(select: &mut Select, is_aggregate: &dyn Fn(&str) -> bool) -> Result<()> {
    let has_groups = select.having.is_some()
        || !matches!(&select.group_by, sqlparser::ast::GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let [from] = select.from.as_mut_slice() else {
        return Err(Error::unsupported("a WINDOW JOIN beside other tables is not supported; use a subquery"));
    };
    if has_groups || !from.joins.is_empty() {
        return Err(Error::unsupported(
            "GROUP BY, HAVING or another join after a WINDOW JOIN is not supported; use a subquery",
        ));
    }
    let mut lifter = Lifter { is_aggregate, lifted: Vec::new() };
    for item in &mut select.projection {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), Some(expr.to_string())),
            SelectItem::ExprWithAlias { expr, .. } => (expr.clone(), None),
            _ => continue,
        };
        let before = lifter.lifted.len();
        let mut made = expr;
        if let ControlFlow::Break(name) = made.visit(&mut lifter) {
            return Err(Error::unsupported(format!("ORDER BY within {name} of a WINDOW JOIN is not supported")));
        }
        if lifter.lifted.len() == before {
            continue;
        }
        match (item, name) {
            (item, Some(name)) => *item = SelectItem::ExprWithAlias { expr: made, alias: Ident::with_quote('"', name) },
            (SelectItem::ExprWithAlias { expr, .. }, None) => *expr = made,
            _ => {}
        }
    }
    let lifted = lifter.lifted;
    if let Some(Function { args: FunctionArguments::List(list), .. }) = marker_in_mut(&mut from.relation) {
        list.args.extend(lifted.into_iter().map(|call| FunctionArg::Unnamed(FunctionArgExpr::Expr(call))));
    }
    Ok(())
}

struct Lifter<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    lifted: Vec<Expr>,
}

impl VisitorMut for Lifter<'_> {
    /// The name of an aggregate that has an order.
    type Break = String;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Some(name) = name_of(call) else { return ControlFlow::Continue(()) };
        let plain = name.strip_prefix("wj_");
        if call.over.is_none() && (plain.is_some() || (self.is_aggregate)(&name)) {
            let is_order = |clause: &FunctionArgumentClause| matches!(clause, FunctionArgumentClause::OrderBy(_));
            if matches!(&call.args, FunctionArguments::List(list) if list.clauses.iter().any(is_order)) {
                return ControlFlow::Break(name);
            }
            if let Some(plain) = plain {
                rename(call, plain);
            }
            let column = Expr::Identifier(Ident::new(format!("__zepto_window_{}", self.lifted.len())));
            self.lifted.push(std::mem::replace(expr, column));
        }
        ControlFlow::Continue(())
    }
}
