//! Resolves FROM: the tables, queries and functions that a query reads, and the columns that each brings into its
//! scope.
//!
//! A part of name resolution (`resolve`): a table or common table expression is found exactly, else by its only match
//! without regard to case, and a common table
//! expression comes before a table of the same name.

use crate::domain::sql::resolve::{Output, Resolver};
use crate::domain::sql::rows_query::TARGET;
use crate::domain::sql::scope::{Prefer, Relation, Scope};
use crate::domain::sql::statement::table_ident;
use crate::domain::sql::system_tables::join_system_name;
use crate::domain::storage::Table;
use crate::ports::{Error, ErrorKind, Result};
use sqlparser::ast::{Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, TableFactor, TableWithJoins};
use std::sync::Arc;

impl Resolver<'_> {
    pub(super) fn table_with_joins(&mut self, from: &mut TableWithJoins) -> Result<()> {
        let relation = self.table_factor(&mut from.relation)?;
        self.add(relation);
        for join in &mut from.joins {
            let relation = self.table_factor(&mut join.relation)?;
            self.add(relation);
            self.join(join)?;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, relations: Vec<Relation>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.relations.extend(relations);
        }
    }

    pub(super) fn join(&mut self, join: &mut Join) -> Result<()> {
        use JoinOperator::{Anti, FullOuter, Inner, Left, LeftAnti, LeftOuter, LeftSemi, Right, RightAnti, RightOuter};
        use JoinOperator::{AsOf, CrossJoin, RightSemi, Semi, StraightJoin};
        let constraint = match &mut join.join_operator {
            JoinOperator::Join(constraint)
            | Inner(constraint)
            | Left(constraint)
            | LeftOuter(constraint)
            | Right(constraint)
            | RightOuter(constraint)
            | FullOuter(constraint)
            | CrossJoin(constraint)
            | Semi(constraint)
            | LeftSemi(constraint)
            | RightSemi(constraint)
            | Anti(constraint)
            | LeftAnti(constraint)
            | RightAnti(constraint)
            | StraightJoin(constraint) => constraint,
            AsOf { match_condition, constraint } => {
                self.expressions(match_condition, Prefer::ColumnsOnly)?;
                constraint
            }
            _ => return Ok(()),
        };
        match constraint {
            JoinConstraint::On(condition) => self.expressions(condition, Prefer::ColumnsOnly),
            JoinConstraint::Using(names) => names.iter_mut().try_for_each(|name| match name.0.as_mut_slice() {
                [ObjectNamePart::Identifier(ident)] => self.identifier(ident, Prefer::ColumnsOnly),
                _ => Ok(()),
            }),
            JoinConstraint::Natural | JoinConstraint::None => Ok(()),
        }
    }

    /// Resolves one part of FROM and returns the relations that it brings into scope.
    pub(super) fn table_factor(&mut self, factor: &mut TableFactor) -> Result<Vec<Relation>> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let (found, columns, table) = self.table(name)?;
                Ok(vec![Relation::of_table(found, table.as_deref(), columns, alias.as_ref())])
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                // It may not name its neighbours in FROM, unless it is LATERAL.
                let neighbours = if *lateral { None } else { self.scopes.pop() };
                let output = self.query(subquery);
                self.scopes.extend(neighbours);
                Ok(vec![Relation::new(None, output?, alias.as_ref())])
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let outer = self.scopes.last_mut().map(|scope| std::mem::take(&mut scope.relations));
                let nested = self.table_with_joins(table_with_joins);
                let found = self
                    .scopes
                    .last_mut()
                    .map(|scope| std::mem::replace(&mut scope.relations, outer.unwrap_or_default()));
                nested?;
                let found = found.unwrap_or_default();
                Ok(match alias {
                    None => found,
                    Some(_) => {
                        let inner = Scope { relations: found, ..Scope::default() };
                        vec![Relation::new(None, inner.all_columns(), alias.as_ref())]
                    }
                })
            }
            TableFactor::Table { args: Some(args), alias, name, .. } => {
                self.expressions(&mut args.args, Prefer::ColumnsOnly)?;
                let is_series =
                    ["generate_series", "range"].iter().any(|known| name.to_string().eq_ignore_ascii_case(known));
                Ok(vec![Relation::new(None, is_series.then(|| vec!["value".to_owned()]), alias.as_ref())])
            }
            TableFactor::Function { args, alias, .. } => {
                self.expressions(args, Prefer::ColumnsOnly)?;
                Ok(vec![Relation::new(None, None, alias.as_ref())])
            }
            TableFactor::UNNEST { array_exprs, alias, .. } => {
                self.expressions(array_exprs, Prefer::ColumnsOnly)?;
                Ok(vec![Relation::new(None, None, alias.as_ref())])
            }
            TableFactor::TableFunction { expr, alias } => {
                self.expressions(expr, Prefer::ColumnsOnly)?;
                Ok(vec![Relation::new(None, None, alias.as_ref())])
            }
            TableFactor::Pivot { table, alias, .. } | TableFactor::Unpivot { table, alias, .. } => {
                self.table_factor(table)?;
                Ok(vec![Relation::new(None, None, alias.as_ref())])
            }
            _ => Ok(vec![Relation::new(None, None, None)]),
        }
    }

    /// Finds a table or common table expression, renames it to its exact name, and returns that with its columns and the table.
    fn table(&mut self, name: &mut ObjectName) -> Result<(String, Output, Option<Arc<Table>>)> {
        join_system_name(name);
        let single = name.0.len() == 1;
        let not_found = || Error::new(ErrorKind::NotFound, format!("table {name} not found"));
        let ident = table_ident(name).ok_or_else(not_found)?;
        if let (TARGET, Some(table)) = (ident.value.as_str(), self.target) {
            self.tables.insert(TARGET.to_owned(), table.clone());
            return Ok((TARGET.to_owned(), self.target_columns(table), Some(table.clone())));
        }
        let (text, quoted) = (ident.value.clone(), ident.quote_style.is_some());
        // An exact match comes before one without regard to case, and a common table expression before a table.
        let ctes = || self.ctes.iter().rev().filter(|_| single);
        let exact = ctes().find(|cte| cte.name == text);
        let has_exact_table = self.snapshot.get(&text).is_some();
        let by_case = || ctes().find(|cte| !quoted && cte.name.eq_ignore_ascii_case(&text));
        let cte = exact.or_else(|| if has_exact_table { None } else { by_case() }).cloned();
        let (found, columns, table) = match cte {
            Some(cte) => {
                self.count(cte.relations)?;
                (cte.name, cte.columns, None)
            }
            None => {
                self.count(1)?;
                let found = self.snapshot.resolve(&text, quoted)?.to_owned();
                let table = self.snapshot.table(&found)?.clone();
                let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
                self.tables.insert(found.clone(), table.clone());
                (found, Some(columns), Some(table))
            }
        };
        if let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() {
            found.clone_into(&mut ident.value);
        }
        if let (false, Some(ObjectNamePart::Identifier(schema))) = (single, name.0.first_mut()) {
            schema.value.make_ascii_lowercase();
        }
        Ok((found, columns, table))
    }

    fn target_columns(&self, table: &Table) -> Output {
        Some(table.schema().fields().iter().map(|field| field.name().clone()).collect())
    }
}
