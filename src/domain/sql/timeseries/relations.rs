//! Gives joins by time and LATEST ON the form in which the executor finds them: a nested join whose last join is the one.
//!
//! The planner asks for each relation of FROM, but not for each join; so what stands left of a join by time, and the join, go
//! into parentheses. Names stay what they were: a nested join without an alias keeps the qualifiers of its tables.

use crate::domain::sql::timeseries::expressions::name_of;
use crate::ports::{Error, Result};
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint, JoinOperator, Parens, Query,
    Select, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value, Values, VisitMut,
    VisitorMut,
};
use std::ops::ControlFlow;

/// Nests the joins by time of `statement`, and makes LATEST ON one.
///
/// # Errors
///
/// `Unsupported` for LATEST ON over several relations without a join.
pub fn nest_joins(statement: &mut Statement) -> Result<()> {
    match statement.visit(&mut Nester) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Nester;

impl VisitorMut for Nester {
    type Break = Box<Error>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Error>> {
        if let Err(error) = latest(select) {
            return ControlFlow::Break(Box::new(error));
        }
        select.from.iter_mut().for_each(nest);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<Error>> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            // One that was made here, or that is one join by time already, stays.
            let is_nested = table_with_joins.joins.iter().rev().skip(1).all(|join| !is_by_time(join));
            if !is_nested || table_with_joins.joins.last().is_none_or(|join| !is_by_time(join)) {
                nest(table_with_joins);
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_by_time(join: &Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

fn nest(from: &mut TableWithJoins) {
    while let Some(at) = from.joins.iter().position(is_by_time) {
        let rest = from.joins.split_off(at + 1);
        let inner = TableWithJoins { relation: from.relation.clone(), joins: std::mem::take(&mut from.joins) };
        from.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
        from.joins = rest;
    }
}

/// Moves LATEST ON, with WHERE before it, into FROM.
fn latest(select: &mut Select) -> Result<()> {
    let Some(Expr::Function(marker)) = &mut select.qualify else { return Ok(()) };
    if name_of(marker).as_deref() != Some("__zepto_latest") {
        return Ok(());
    }
    let [from] = select.from.as_mut_slice() else {
        return Err(Error::unsupported("LATEST ON over several tables is not supported; join them in a subquery"));
    };
    let FunctionArguments::List(list) = &mut marker.args else { return Ok(()) };
    // WHERE comes first among the arguments: it chooses the rows of which the latest are taken.
    let condition = select.selection.take().unwrap_or_else(|| Expr::value(Value::Boolean(true)));
    list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(condition)));
    if let Some(qualify) = select.qualify.take() {
        from.joins.push(Join {
            relation: nothing(),
            global: false,
            join_operator: JoinOperator::AsOf { match_condition: qualify, constraint: JoinConstraint::None },
        });
    }
    Ok(())
}

/// Makes the right side of a join that has none.
pub fn nothing() -> TableFactor {
    let ident = || Ident::new("__zepto_nothing");
    let row = Parens::with_empty_span(vec![Expr::value(Value::Boolean(true))]);
    let body = SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![row] });
    let query = query_of(body);
    let alias = TableAlias {
        explicit: true,
        name: ident(),
        columns: vec![TableAliasColumnDef::from_name("__zepto_nothing")],
        at: None,
    };
    TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None }
}

/// Makes a query of nothing but its body.
pub fn query_of(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}
