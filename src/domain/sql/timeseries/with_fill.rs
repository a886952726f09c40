//! `ORDER BY … WITH FILL` (ClickHouse): the rows of the query become a relation that is filled, and the query orders that.

use crate::domain::sql::timeseries::relations::{nothing, query_of};
use crate::domain::sql::timeseries::sample_by::function;
use crate::ports::{Error, Result};
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    Expr, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, OrderByExpr, OrderByKind, Query, Select,
    SelectFlavor, SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
    WildcardAdditionalOptions, WithFill,
};
use std::ops::ControlFlow;

/// Rewrites WITH FILL wherever it stands.
///
/// # Errors
///
/// `Unsupported` for INTERPOLATE, for several filled columns, and for ordering by what is not selected by a name.
pub fn rewrite_fills(statement: &mut Statement) -> Result<()> {
    match statement.visit(&mut Fills) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Fills;

impl VisitorMut for Fills {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Error>> {
        match fill(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

fn fill(query: &mut Query) -> Result<()> {
    let Some(order_by) = &mut query.order_by else { return Ok(()) };
    let OrderByKind::Expressions(orders) = &mut order_by.kind else { return Ok(()) };
    if orders.iter().all(|order| order.with_fill.is_none()) {
        return Ok(());
    }
    if order_by.interpolate.is_some() {
        return Err(Error::unsupported("INTERPOLATE of WITH FILL is not supported"));
    }
    let names = names(&query.body);
    for order in orders.iter_mut() {
        order.expr = selected(&order.expr, &names)?;
    }
    let Some((last, before)) = orders.split_last_mut() else { return Ok(()) };
    if before.iter().any(|order| order.with_fill.is_some()) {
        return Err(Error::unsupported("WITH FILL fills one column, the last of ORDER BY"));
    }
    let Some(WithFill { from, to, step }) = last.with_fill.take() else { return Ok(()) };
    let given = |bound: Option<Expr>| bound.unwrap_or_else(|| Expr::value(Value::Null));
    let mut args = vec![given(from), given(to), given(step)];
    // The filled column first, then those that its rows are grouped by; each with its direction and the place of nulls.
    for order in std::iter::once(&*last).chain(before.iter()) {
        args.extend([order.expr.clone(), flag(is_descending(order)), flag(nulls_first(order))]);
    }
    let condition = function("__zepto_with_fill", args);
    let body = std::mem::replace(query.body.as_mut(), empty_body());
    *query.body = SetExpr::Select(Box::new(select_filled(body, condition)));
    Ok(())
}

fn empty_body() -> SetExpr {
    SetExpr::Values(sqlparser::ast::Values { explicit_row: false, value_keyword: false, rows: Vec::new() })
}

fn flag(is: bool) -> Expr {
    Expr::value(Value::Boolean(is))
}

fn is_descending(order: &OrderByExpr) -> bool {
    order.options.asc == Some(false)
}

/// Returns where NULLs go; where it is not said, as the engine has it: they are the largest values.
fn nulls_first(order: &OrderByExpr) -> bool {
    order.options.nulls_first.unwrap_or(is_descending(order))
}

/// Returns the names under which a body selects, each with what it stands for; nothing where there is a star or a set operation.
fn names(body: &SetExpr) -> Vec<(Expr, Option<Ident>)> {
    let SetExpr::Select(select) = body else { return Vec::new() };
    let item = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr @ Expr::Identifier(name)) => (expr.clone(), Some(name.clone())),
        SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(parts)) => (expr.clone(), parts.last().cloned()),
        SelectItem::UnnamedExpr(expr) => (expr.clone(), None),
        SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(alias.clone())),
        _ => (Expr::value(Value::Null), None),
    };
    select.projection.iter().map(item).collect()
}

/// Returns an expression of ORDER BY by the name under which it is selected.
fn selected(expr: &Expr, names: &[(Expr, Option<Ident>)]) -> Result<Expr> {
    let unnamed = || {
        let text = format!("WITH FILL orders by selected columns; give {expr} a name in SELECT, as in {expr} AS x");
        Error::unsupported(text)
    };
    let position = match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse::<usize>().ok(),
            _ => None,
        },
        _ => None,
    };
    if let Some(position) = position {
        let found = position.checked_sub(1).and_then(|at| names.get(at)?.1.clone());
        return found.map(Expr::Identifier).ok_or_else(unnamed);
    }
    if let Some((_, Some(name))) = names.iter().find(|(selected, _)| selected == expr) {
        return Ok(Expr::Identifier(name.clone()));
    }
    match expr {
        Expr::Identifier(_) => Ok(expr.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().cloned().map(Expr::Identifier).ok_or_else(unnamed),
        _ => Err(unnamed()),
    }
}

/// Selects everything of a filled relation.
fn select_filled(body: SetExpr, condition: Expr) -> Select {
    let name = Ident::with_quote('"', "__zepto_rows");
    let alias = TableAlias { explicit: true, name, columns: Vec::new(), at: None };
    let relation =
        TableFactor::Derived { lateral: false, subquery: Box::new(query_of(body)), alias: Some(alias), sample: None };
    let join_operator = JoinOperator::AsOf { match_condition: condition, constraint: JoinConstraint::None };
    let join = Join { relation: nothing(), global: false, join_operator };
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())],
        exclude: None,
        into: None,
        from: vec![TableWithJoins { relation, joins: vec![join] }],
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}
