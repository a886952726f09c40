//! Which column is the time of what FROM brings: the one that a table's definition names, else one of a customary name, else the
//! first TIMESTAMP of the only table.
//!
//! A part of name resolution (`resolve`), which alone knows the tables behind the names of a query.

use crate::domain::sql::resolve::Resolver;
use crate::domain::sql::scope::Relation;
use crate::domain::storage::TIME_NAMES;
use crate::ports::{Error, Result};
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart, Visit, Visitor,
};
use std::ops::ControlFlow;

/// A column that is the time of rows.
#[derive(Debug)]
pub struct TimeColumn {
    /// The relation that it is of, where there are several.
    pub qualifier: Option<String>,
    /// Its name.
    pub column: String,
}

impl TimeColumn {
    /// Returns the column as an expression.
    pub fn expr(&self) -> Expr {
        let column = Ident::with_quote('"', self.column.clone());
        match &self.qualifier {
            Some(qualifier) => Expr::CompoundIdentifier(vec![Ident::with_quote('"', qualifier.clone()), column]),
            None => Expr::Identifier(column),
        }
    }

    /// Returns whether an expression is the column.
    pub fn is(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Identifier(name) => name.value == self.column,
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., qualifier, name] => {
                    name.value == self.column
                        && self.qualifier.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(&qualifier.value))
                }
                _ => false,
            },
            _ => false,
        }
    }
}

impl Resolver<'_> {
    /// Returns the time column of FROM, for SAMPLE BY.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where there is none, or where a name is ambiguous.
    pub(super) fn time_column(&self) -> Result<TimeColumn> {
        let relations = self.scopes.last().map(|scope| scope.relations.as_slice()).unwrap_or_default();
        // Of several relations it is named; the first one decides.
        let of = |relation: &Relation, column: &str| {
            let qualifier = relation.name.clone().filter(|_| relations.len() > 1);
            TimeColumn { qualifier, column: column.to_owned() }
        };
        if let Some(time) = relations.iter().find_map(|relation| Some(of(relation, relation.declared_time.as_ref()?))) {
            return Ok(time);
        }
        for name in TIME_NAMES {
            for relation in relations {
                if let Some(columns) = &relation.columns
                    && let Some(found) = columns.find(name, false)?
                {
                    return Ok(of(relation, found));
                }
            }
        }
        let first = relations.iter().find_map(|relation| Some(of(relation, relation.first_time.as_ref()?)));
        let missing = "SAMPLE BY finds no time column in FROM; say it in CREATE TABLE … TIMESTAMP(ts)";
        first.ok_or_else(|| Error::invalid(missing))
    }

    /// Gives `first(x)` and `last(x)` the time that decides, where the definition of the table of `x` names it. The planner, which
    /// does not know definitions, does so for the others.
    pub(super) fn time_of_call(&self, call: &mut Function) {
        let is_ours = match call.name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => {
                ["first", "last"].iter().any(|ours| name.value.eq_ignore_ascii_case(ours))
            }
            _ => false,
        };
        let FunctionArguments::List(list) = &mut call.args else { return };
        if !is_ours || call.over.is_some() || list.args.len() != 1 {
            return;
        }
        let Some((relation, qualified)) = self.relation_of(&list.args) else { return };
        let Some(time) = &relation.declared_time else { return };
        let time = Ident::with_quote('"', time.clone());
        let expr = match qualified {
            Some(qualifier) => Expr::CompoundIdentifier(vec![qualifier, time]),
            None => match &relation.name {
                Some(name) => Expr::CompoundIdentifier(vec![Ident::with_quote('"', name.clone()), time]),
                None => Expr::Identifier(time),
            },
        };
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)));
    }

    /// Returns the relation of the first column that is named in `args`, and its qualifier if it has one.
    fn relation_of(&self, args: &Vec<FunctionArg>) -> Option<(&Relation, Option<Ident>)> {
        let ControlFlow::Break((qualifier, column)) = args.visit(&mut FirstColumn) else { return None };
        let relations = &self.scopes.last()?.relations;
        let found = relations.iter().find(|relation| match &qualifier {
            Some(qualifier) => relation.name.as_ref() == Some(&qualifier.value),
            None => relation.columns.as_ref().is_some_and(|columns| columns.has(&column.value)),
        })?;
        Some((found, qualifier))
    }
}

/// Finds the first column of an expression.
struct FirstColumn;

impl Visitor for FirstColumn {
    type Break = (Option<Ident>, Ident);

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Identifier(column) => ControlFlow::Break((None, column.clone())),
            Expr::CompoundIdentifier(names) => match names.as_slice() {
                [qualifier, column, ..] => ControlFlow::Break((Some(qualifier.clone()), column.clone())),
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}
