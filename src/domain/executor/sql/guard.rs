//! What may not hide in a query: changes, and clauses that the planner would pass over in silence.

use sqlparser::ast::{Query, Select, Statement, Visit, Visitor};
use std::ops::ControlFlow;

/// Why a query is not the plain read that it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catch {
    /// It would change something.
    Change(&'static str),
    /// It asks for something that nobody would do.
    Clause(&'static str),
}

/// Looks through all of a query, subqueries included.
pub fn inspect(query: &Query) -> Option<Catch> {
    match query.visit(&mut Guard) {
        ControlFlow::Break(catch) => Some(catch),
        ControlFlow::Continue(()) => None,
    }
}

/// Longest list of tables in one FROM, its joins included: they nest in the plan.
const FROM_MAX: usize = 200;

struct Guard;

impl Visitor for Guard {
    type Break = Catch;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Catch> {
        let clauses = [
            (!query.locks.is_empty(), "FOR UPDATE and FOR SHARE"),
            (query.for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT in the statement (ask for a format in the request instead)"),
        ];
        match clauses.iter().find(|(there, _)| *there) {
            Some((_, clause)) => ControlFlow::Break(Catch::Clause(clause)),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Catch> {
        if select.into.is_some() {
            return ControlFlow::Break(Catch::Change("SELECT INTO (CREATE TABLE … AS SELECT does it)"));
        }
        let tables: usize = select.from.iter().map(|from| 1 + from.joins.len()).sum();
        if tables > FROM_MAX {
            return ControlFlow::Break(Catch::Clause("a FROM of more than 200 tables"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Catch> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(Catch::Change("a change inside a query")),
        }
    }
}
