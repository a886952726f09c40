//! Resolves names: finds the table, column or alias that an identifier means.
//!
//! An identifier matches exactly, else by its only match without regard to case, in the innermost scope that has it.
//! The planner compares names exactly, so the statement is rewritten to the spelling that was found. A name that is not
//! found stays as it is: the planner reports it.
//!
//! Invariant: a query is resolved once, after the relations of the query around it that it may see, and before the
//! expressions that may see its columns.

use crate::domain::catalog::Snapshot;
use crate::domain::sql::cast_names::name_casts;
use crate::domain::sql::scope::{Columns, Prefer, Relation, Scope, aliases, name_of};
use crate::domain::sql::timeseries::{group_by_sample, has_sample_by, has_window_join, lift_window_aggregates};
use crate::domain::storage::Table;
use crate::ports::{Error, Result};
use sqlparser::ast::{
    Distinct, Expr, Ident, ObjectName, ObjectNamePart, PipeOperator, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The tables that a statement reads, under the exact names that it was rewritten to.
#[derive(Debug, Default)]
pub struct ResolvedTables {
    /// Their states by name.
    pub by_name: BTreeMap<String, Arc<Table>>,
}

/// Output columns of a query; none where not all of them are known.
pub type Output = Option<Vec<String>>;

impl ResolvedTables {
    /// Finds every table of `statement` in `snapshot` and rewrites its identifiers to exact spelling.
    /// [`TARGET`](crate::domain::sql::TARGET) is `target`.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown table, `InvalidQuery` for an ambiguous name, or where common table expressions,
    /// expanded wherever they are named, come to more than `relations_max` relations: the planner walks them expanded.
    pub fn resolve(
        statement: &mut Statement,
        snapshot: &Snapshot,
        target: Option<&Arc<Table>>,
        relations_max: u64,
        is_aggregate: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut resolver = Resolver {
            snapshot,
            target,
            tables: BTreeMap::new(),
            ctes: Vec::new(),
            scopes: Vec::new(),
            relations: 0,
            relations_max,
            is_aggregate,
        };
        match statement {
            Statement::Query(query) => resolver.query(query).map(drop)?,
            Statement::Explain { statement, .. } => {
                if let Statement::Query(query) = statement.as_mut() {
                    resolver.query(query)?;
                }
            }
            _ => {}
        }
        Ok(Self { by_name: resolver.tables })
    }
}

/// A common table expression.
#[derive(Debug, Clone)]
pub struct Cte {
    pub(super) name: String,
    pub(super) columns: Output,
    /// Its relations, with all common table expressions in it expanded.
    pub(super) relations: u64,
}

/// Resolves one statement.
pub struct Resolver<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) target: Option<&'a Arc<Table>>,
    /// The tables that were found.
    pub(super) tables: BTreeMap<String, Arc<Table>>,
    /// Common table expressions that may be named, the innermost last.
    pub(super) ctes: Vec<Cte>,
    /// The queries around what is being resolved, the innermost last.
    pub(super) scopes: Vec<Scope>,
    /// Relations so far, each common table expression counted wherever it is named.
    pub(super) relations: u64,
    relations_max: u64,
    /// Whether the planner takes a name for an aggregate.
    is_aggregate: &'a dyn Fn(&str) -> bool,
}

impl Resolver<'_> {
    pub(super) fn query(&mut self, query: &mut Query) -> Result<Output> {
        let ctes = self.ctes.len();
        let outer = self.scopes.len();
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                let (name, columns) = (cte.alias.name.value.clone(), listed(&cte.alias));
                // A recursive one may name itself; its columns are known by then only where they are listed.
                if with.recursive {
                    self.ctes.push(Cte { name: name.clone(), columns: columns.clone(), relations: 1 });
                }
                let before = self.relations;
                let output = self.query(&mut cte.query)?;
                if with.recursive {
                    self.ctes.pop();
                }
                let relations = self.relations - before;
                self.ctes.push(Cte { name, columns: columns.or(output), relations });
            }
        }
        if let SetExpr::Select(select) = query.body.as_mut() {
            name_casts(&mut select.projection, query.order_by.as_ref());
        }
        let (output, scope) = self.set_expr(&mut query.body)?;
        self.scopes.push(scope);
        self.expressions(&mut query.order_by, Prefer::Aliases)?;
        self.expressions(&mut query.limit_clause, Prefer::Columns)?;
        self.expressions(&mut query.fetch, Prefer::Columns)?;
        query.pipe_operators.iter_mut().try_for_each(|operator| self.pipe_operator(operator))?;
        self.scopes.truncate(outer);
        self.ctes.truncate(ctes);
        Ok(output)
    }

    /// Counts relations that a name stands for.
    pub(super) fn count(&mut self, relations: u64) -> Result<()> {
        self.relations = self.relations.saturating_add(relations);
        let max = self.relations_max;
        if self.relations > max {
            return Err(Error::invalid(format!("the statement expands to more than {max} relations (plan_nodes_max)")));
        }
        Ok(())
    }

    /// Resolves a body and returns its output columns, and the scope of its ORDER BY.
    fn set_expr(&mut self, body: &mut SetExpr) -> Result<(Output, Scope)> {
        let output = match body {
            SetExpr::Select(select) => return self.select(select),
            SetExpr::Query(query) => self.query(query)?,
            SetExpr::SetOperation { left, right, .. } => {
                let (output, _) = self.set_expr(left)?;
                self.set_expr(right)?;
                output
            }
            SetExpr::Values(values) => {
                self.expressions(values, Prefer::Columns)?;
                let width = values.rows.first().map_or(0, |row| row.content.len());
                Some((1..=width).map(|at| format!("column{at}")).collect())
            }
            // Refused before names are resolved.
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => {
                None
            }
        };
        let aliases = Columns::new(output.iter().flatten().cloned());
        Ok((output, Scope { aliases, ..Scope::default() }))
    }

    fn select(&mut self, select: &mut Select) -> Result<(Output, Scope)> {
        self.count(1)?;
        name_casts(&mut select.projection, None);
        let depth = self.scopes.len();
        self.scopes.push(Scope::default());
        for from in &mut select.from {
            self.table_with_joins(from)?;
        }
        if has_sample_by(select) {
            let time = self.time_column()?;
            if let (true, Some(added)) = (group_by_sample(select, &time, self.is_aggregate)?, select.from.last_mut()) {
                self.table_with_joins(added)?;
            }
        }
        if has_window_join(select) {
            // Resolved here, as they stand beside the columns of both sides; the join answers those of the left one alone.
            self.projection(&mut select.projection)?;
            lift_window_aggregates(select, self.is_aggregate)?;
        }
        self.expressions(&mut select.selection, Prefer::ColumnsOnly)?;
        let output = self.projection(&mut select.projection)?;
        self.scopes[depth].aliases = Columns::new(aliases(&select.projection));
        if let Some(Distinct::On(expressions)) = &mut select.distinct {
            self.expressions(expressions, Prefer::Columns)?;
        }
        self.expressions(&mut select.group_by, Prefer::Columns)?;
        self.expressions(&mut select.having, Prefer::Columns)?;
        self.expressions(&mut select.named_window, Prefer::Columns)?;
        self.expressions(&mut select.qualify, Prefer::Columns)?;
        let scope = self.scopes.pop().unwrap_or_default();
        Ok((output, scope))
    }

    fn pipe_operator(&mut self, operator: &mut PipeOperator) -> Result<()> {
        match operator {
            PipeOperator::Join(join) => {
                let relation = self.table_factor(&mut join.relation)?;
                self.add(relation);
                self.join(join)
            }
            other => self.expressions(other, Prefer::Columns),
        }
    }

    fn projection(&mut self, items: &mut [SelectItem]) -> Result<Output> {
        let mut output = Some(Vec::new());
        for item in items {
            let columns = match item {
                SelectItem::UnnamedExpr(expr) => {
                    self.expressions(expr, Prefer::ColumnsOnly)?;
                    Some(name_of(expr).into_iter().collect())
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    self.expressions(expr, Prefer::ColumnsOnly)?;
                    Some(vec![alias.value.clone()])
                }
                SelectItem::ExprWithAliases { expr, aliases } => {
                    self.expressions(expr, Prefer::ColumnsOnly)?;
                    Some(aliases.iter().map(|alias| alias.value.clone()).collect())
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let columns = self.qualifier(name)?;
                    self.wildcard(options, columns)?
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    self.expressions(expr, Prefer::ColumnsOnly)?;
                    None
                }
                SelectItem::Wildcard(options) => {
                    let columns = self.scopes.last().and_then(Scope::all_columns);
                    self.wildcard(options, columns)?
                }
            };
            output = output.zip(columns).map(|(mut output, columns)| {
                output.extend(columns);
                output
            });
        }
        Ok(output)
    }

    /// Resolves the names in EXCEPT and EXCLUDE after `*` and returns the columns that remain of `columns`.
    fn wildcard(&mut self, options: &mut WildcardAdditionalOptions, columns: Output) -> Result<Output> {
        use sqlparser::ast::ExcludeSelectItem::{Multiple, Single};
        let mut left_out: Vec<&mut Ident> = Vec::new();
        if let Some(except) = &mut options.opt_except {
            left_out.push(&mut except.first_element);
            left_out.extend(&mut except.additional_elements);
        }
        let excluded = match &mut options.opt_exclude {
            Some(Single(name)) => std::slice::from_mut(name),
            Some(Multiple(names)) => names.as_mut_slice(),
            None => &mut [],
        };
        left_out.extend(excluded.iter_mut().filter_map(|name| match name.0.as_mut_slice() {
            [ObjectNamePart::Identifier(ident)] => Some(ident),
            _ => None,
        }));
        let mut names = Vec::new();
        for ident in left_out {
            self.identifier(ident, Prefer::ColumnsOnly)?;
            names.push(ident.value.clone());
        }
        if let Some(replace) = &mut options.opt_replace {
            for item in &mut replace.items {
                self.expressions(&mut item.expr, Prefer::ColumnsOnly)?;
                self.identifier(&mut item.column_name, Prefer::ColumnsOnly)?;
            }
        }
        let is_renamed = options.opt_rename.is_some() || options.opt_ilike.is_some() || options.opt_alias.is_some();
        Ok(columns.filter(|_| !is_renamed).map(|mut columns| {
            columns.retain(|column| !names.contains(column));
            columns
        }))
    }

    /// Resolves `relation.*` and returns its columns.
    fn qualifier(&self, name: &mut ObjectName) -> Result<Output> {
        let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() else { return Ok(None) };
        let Some(relation) = self.relation(ident)? else { return Ok(None) };
        let columns = relation.columns.as_ref().map(Columns::names);
        relation.name.iter().for_each(|name| name.clone_into(&mut ident.value));
        Ok(columns)
    }

    fn relation(&self, ident: &Ident) -> Result<Option<&Relation>> {
        for scope in self.scopes.iter().rev() {
            if let Some(found) = scope.relation(&ident.value, ident.quote_style.is_some())? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn identifier(&self, ident: &mut Ident, prefer: Prefer) -> Result<()> {
        let quoted = ident.quote_style.is_some();
        for scope in self.scopes.iter().rev() {
            if let Some(found) = scope.column(&ident.value, quoted, prefer)? {
                found.clone_into(&mut ident.value);
                return Ok(());
            }
            // A column that is not known yet may be meant, so outer scopes must not take the name.
            if scope.is_open() {
                break;
            }
        }
        Ok(())
    }

    fn compound(&self, idents: &mut [Ident], prefer: Prefer) -> Result<()> {
        let is = |at: usize, name: &str| idents.get(at).is_some_and(|ident| ident.value.eq_ignore_ascii_case(name));
        let at = match idents.len() {
            4.. if is(0, "zepto") && is(1, "public") => 2,
            3.. if is(0, "public") => 1,
            _ => 0,
        };
        let Some(relation) = self.relation(&idents[at])? else {
            // A column with fields.
            return self.identifier(&mut idents[0], prefer);
        };
        relation.name.iter().for_each(|name| name.clone_into(&mut idents[at].value));
        if let (Some(columns), Some(ident)) = (&relation.columns, idents.get_mut(at + 1)) {
            let found = columns.find(&ident.value, ident.quote_style.is_some())?;
            found.into_iter().for_each(|found| found.clone_into(&mut ident.value));
        }
        Ok(())
    }

    /// Resolves all names in `part`, queries within it included.
    pub(super) fn expressions(&mut self, part: &mut impl VisitMut, prefer: Prefer) -> Result<()> {
        match part.visit(&mut Expressions { resolver: self, prefer, queries: 0 }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(*error),
        }
    }
}

/// Walks expressions. A query within them is resolved on its own, and then skipped.
struct Expressions<'r, 'a> {
    resolver: &'r mut Resolver<'a>,
    prefer: Prefer,
    /// Depth of queries around the current node.
    queries: usize,
}

impl VisitorMut for Expressions<'_, '_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Error>> {
        if self.queries == 0 {
            or_break(self.resolver.query(query).map(drop))?;
        }
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<Error>> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        match expr {
            _ if self.queries > 0 => ControlFlow::Continue(()),
            Expr::Identifier(ident) => or_break(self.resolver.identifier(ident, self.prefer)),
            Expr::CompoundIdentifier(idents) => or_break(self.resolver.compound(idents, self.prefer)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        if let (0, Expr::Function(call)) = (self.queries, expr) {
            self.resolver.time_of_call(call);
        }
        ControlFlow::Continue(())
    }
}

fn or_break(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

/// Returns the columns that an alias lists.
pub fn listed(alias: &TableAlias) -> Output {
    let columns = alias.columns.iter().map(|column| column.name.value.clone());
    (!alias.columns.is_empty()).then(|| columns.collect())
}
