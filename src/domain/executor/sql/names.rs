//! Names: which table, column or alias an unquoted identifier means.
//!
//! An identifier matches exactly, else by its only match without regard to case. The planner compares names exactly, so
//! the statement is rewritten to the spelling that was found. The names to choose from are those of all tables that the
//! statement reads and all aliases that it makes: finer scopes are the planner's business.

use crate::domain::catalog::{Snapshot, resolve_name};
use crate::domain::storage::Table;
use crate::ports::{Error, ErrorKind, Result};
use sqlparser::ast::{
    Cte, Expr, Ident, JoinConstraint, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, Statement, TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
    visit_expressions_mut,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What the table of a DELETE or UPDATE is called in the query that finds its rows.
pub const TARGET: &str = "__zepto_target";

/// The tables that a statement reads, under the names that it now calls them by.
#[derive(Debug, Default)]
pub struct Names {
    /// Name and state.
    pub tables: BTreeMap<String, Arc<Table>>,
}

impl Names {
    /// Finds every table of `statement` in `snapshot` and rewrites its identifiers to exact spelling. [`TARGET`] is
    /// `target`.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown table, `InvalidQuery` for an ambiguous name.
    pub fn resolve(statement: &mut Statement, snapshot: &Snapshot, target: Option<&Arc<Table>>) -> Result<Self> {
        let mut aliases = Aliases::default();
        let _: ControlFlow<()> = Visit::visit(&*statement, &mut aliases);
        let mut relations = Relations { snapshot, target, aliases: &aliases, found: BTreeMap::new() };
        if let ControlFlow::Break(error) = Visit::visit(&*statement, &mut relations) {
            return Err(*error);
        }
        let tables = relations.found;
        let columns = tables.values().flat_map(|table| table.schema().fields());
        let columns: BTreeSet<_> = columns.map(|field| field.name().clone()).collect();
        let mut known = aliases.names;
        known.extend(tables.keys().chain(&columns).cloned());
        let mut rewrite = Rewrite { snapshot, ctes: &aliases.ctes, columns: &columns, known: &known };
        match VisitMut::visit(statement, &mut rewrite) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(Self { tables }),
        }
    }
}

/// Collects the names that the statement itself makes.
#[derive(Default)]
struct Aliases {
    names: BTreeSet<String>,
    ctes: BTreeSet<String>,
}

impl Aliases {
    fn table_alias(&mut self, alias: Option<&TableAlias>) {
        if let Some(alias) = alias {
            self.names.insert(alias.name.value.clone());
            self.names.extend(alias.columns.iter().map(|column| column.name.value.clone()));
        }
    }
}

impl Visitor for Aliases {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for Cte { alias, .. } in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.ctes.insert(alias.name.value.clone());
            self.table_alias(Some(alias));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => {
                    self.names.insert(alias.value.clone());
                }
                SelectItem::ExprWithAliases { aliases, .. } => {
                    self.names.extend(aliases.iter().map(|alias| alias.value.clone()));
                }
                _ => {}
            }
        }
        self.names.extend(select.named_window.iter().map(|window| window.0.value.clone()));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. }
            | TableFactor::Pivot { alias, .. }
            | TableFactor::Unpivot { alias, .. } => self.table_alias(alias.as_ref()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Finds the tables.
struct Relations<'a> {
    snapshot: &'a Snapshot,
    target: Option<&'a Arc<Table>>,
    aliases: &'a Aliases,
    found: BTreeMap<String, Arc<Table>>,
}

impl Relations<'_> {
    fn find(&mut self, name: &ObjectName) -> Result<()> {
        let ident = table_ident(name)?;
        if let (TARGET, Some(table)) = (ident.value.as_str(), self.target) {
            self.found.insert(TARGET.to_owned(), table.clone());
            return Ok(());
        }
        let quoted = ident.quote_style.is_some();
        let is_cte = name.0.len() == 1
            && resolve_name(&ident.value, quoted, self.aliases.ctes.iter().map(String::as_str))?.is_some();
        match self.snapshot.resolve(&ident.value, quoted) {
            Ok(table) => {
                self.found.insert(table.to_owned(), self.snapshot.table(table)?.clone());
                Ok(())
            }
            Err(_) if is_cte => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Visitor for Relations<'_> {
    type Break = Box<Error>;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Box<Error>> {
        match factor {
            TableFactor::Table { name, args: None, .. } => or_break(self.find(name)),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The last part of a table's name; the one catalogue and schema there is, `zepto.public`, may stand before it.
fn table_ident(name: &ObjectName) -> Result<&Ident> {
    let parts: Vec<_> = name.0.iter().filter_map(ObjectNamePart::as_ident).collect();
    match parts.as_slice() {
        [table] => Ok(table),
        [schema, table] if schema.value.eq_ignore_ascii_case("public") => Ok(table),
        [catalog, schema, table]
            if catalog.value.eq_ignore_ascii_case("zepto") && schema.value.eq_ignore_ascii_case("public") =>
        {
            Ok(table)
        }
        _ => Err(Error::new(ErrorKind::NotFound, format!("table {name} not found"))),
    }
}

fn or_break(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

/// Rewrites identifiers to the spelling of what they mean.
struct Rewrite<'a> {
    snapshot: &'a Snapshot,
    ctes: &'a BTreeSet<String>,
    columns: &'a BTreeSet<String>,
    known: &'a BTreeSet<String>,
}

impl Rewrite<'_> {
    /// Where an alias cannot be meant – among what SELECT computes, and in WHERE – columns come first: in
    /// `SELECT max(px) AS px` the first `px` may be the column `Px`.
    fn columns_first(&self, expr: &mut Expr) {
        let visited = visit_expressions_mut(expr, |expr| match expr {
            Expr::Identifier(ident) if ident.quote_style.is_none() => {
                let found = resolve_name(&ident.value, false, self.columns.iter().map(String::as_str));
                if let Ok(Some(column)) = found {
                    column.clone_into(&mut ident.value);
                }
                ControlFlow::<()>::Continue(())
            }
            _ => ControlFlow::Continue(()),
        });
        debug_assert!(visited.is_continue(), "nothing breaks off");
    }

    fn ident(&self, ident: &mut Ident) -> Result<()> {
        let quoted = ident.quote_style.is_some();
        if let Some(found) = resolve_name(&ident.value, quoted, self.known.iter().map(String::as_str))? {
            found.clone_into(&mut ident.value);
        }
        Ok(())
    }

    fn object(&self, name: &mut ObjectName) -> Result<()> {
        for part in &mut name.0 {
            if let ObjectNamePart::Identifier(ident) = part {
                self.ident(ident)?;
            }
        }
        Ok(())
    }

    fn table(&self, name: &mut ObjectName) -> Result<()> {
        let single = name.0.len() == 1;
        let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() else { return Ok(()) };
        let quoted = ident.quote_style.is_some();
        // Exactly before by case, and of two that are alike the statement's own.
        let exact = self.ctes.contains(&ident.value) || self.snapshot.tables().contains_key(&ident.value);
        let cte = resolve_name(&ident.value, quoted, self.ctes.iter().map(String::as_str))?;
        let found = match cte {
            _ if exact => None,
            Some(cte) if single => Some(cte),
            _ => self.snapshot.resolve(&ident.value, quoted).ok(),
        };
        if let Some(found) = found {
            found.clone_into(&mut ident.value);
        }
        if let (false, Some(ObjectNamePart::Identifier(schema))) = (single, name.0.first_mut()) {
            schema.value.make_ascii_lowercase();
        }
        Ok(())
    }

    fn joins(&self, select: &mut Select) -> Result<()> {
        use sqlparser::ast::JoinOperator::*;
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if let Join(JoinConstraint::Using(columns))
            | Inner(JoinConstraint::Using(columns))
            | Left(JoinConstraint::Using(columns))
            | LeftOuter(JoinConstraint::Using(columns))
            | Right(JoinConstraint::Using(columns))
            | RightOuter(JoinConstraint::Using(columns))
            | FullOuter(JoinConstraint::Using(columns)) = &mut join.join_operator
            {
                columns.iter_mut().try_for_each(|column| self.object(column))?;
            }
        }
        Ok(())
    }
}

impl VisitorMut for Rewrite<'_> {
    type Break = Box<Error>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Error>> {
        for item in &mut select.projection {
            match item {
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    or_break(self.object(name))?;
                }
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.columns_first(expr),
                _ => {}
            }
        }
        if let Some(predicate) = &mut select.selection {
            self.columns_first(predicate);
        }
        or_break(self.joins(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<Error>> {
        match factor {
            TableFactor::Table { name, args: None, .. } => or_break(self.table(name)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        match expr {
            Expr::Identifier(ident) => or_break(self.ident(ident)),
            Expr::CompoundIdentifier(idents) => or_break(idents.iter_mut().try_for_each(|ident| self.ident(ident))),
            _ => ControlFlow::Continue(()),
        }
    }
}
