//! The names in scope of a query: the relations of its FROM with their columns, and the aliases of its SELECT.

use crate::domain::storage::Table;
use crate::ports::{Error, Result};
use sqlparser::ast::{Expr, SelectItem, TableAlias};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Column names, found in constant time: a table may have thousands.
#[derive(Debug, Default, Clone)]
pub struct Columns {
    exact: HashSet<String>,
    /// By lowercase name.
    folded: HashMap<String, Vec<String>>,
    /// In their order.
    names: Vec<String>,
}

impl Columns {
    /// Collects `names`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut columns = Self::default();
        for name in names {
            if columns.exact.insert(name.clone()) {
                columns.folded.entry(name.to_ascii_lowercase()).or_default().push(name.clone());
            }
            columns.names.push(name);
        }
        columns
    }

    /// Returns the names in their order.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Returns the name that `name` means: exactly, else by its only match without regard to case.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where several match.
    pub fn find(&self, name: &str, quoted: bool) -> Result<Option<&str>> {
        match self.exact.get(name) {
            Some(exact) => Ok(Some(exact)),
            None if quoted => Ok(None),
            None => only(name, self.alike(name).map(String::as_str).collect()),
        }
    }

    /// Returns whether there is a column of exactly this name.
    pub fn has(&self, name: &str) -> bool {
        self.exact.contains(name)
    }

    /// Returns the names that differ from `name` in case alone.
    fn alike(&self, name: &str) -> impl Iterator<Item = &String> {
        self.folded.get(&name.to_ascii_lowercase()).into_iter().flatten()
    }
}

fn only<'a>(name: &str, found: BTreeSet<&'a str>) -> Result<Option<&'a str>> {
    match found.len() {
        0 | 1 => Ok(found.into_iter().next()),
        _ => Err(Error::invalid(format!("{name:?} is ambiguous: it could be any of {found:?}; quote it"))),
    }
}

/// A relation in FROM.
#[derive(Debug)]
pub struct Relation {
    /// The qualifier of its columns.
    pub name: Option<String>,
    /// Its columns; none where only the planner knows them.
    pub columns: Option<Columns>,
    /// The time column that the definition of its table names.
    pub declared_time: Option<String>,
    /// The time column that its table has by custom.
    pub first_time: Option<String>,
}

impl Relation {
    /// Makes a relation that is called `name`, unless `alias` says otherwise.
    pub fn new(name: Option<String>, columns: Option<Vec<String>>, alias: Option<&TableAlias>) -> Self {
        let listed = alias.into_iter().flat_map(|alias| &alias.columns).map(|column| column.name.value.clone());
        let listed: Vec<_> = listed.collect();
        let columns = match columns {
            // An alias may rename the first columns only.
            Some(columns) => Some(listed.iter().cloned().chain(columns.into_iter().skip(listed.len())).collect()),
            None => (!listed.is_empty()).then_some(listed),
        };
        Self {
            name: alias.map(|alias| alias.name.value.clone()).or(name),
            columns: columns.map(|columns: Vec<_>| Columns::new(columns)),
            declared_time: None,
            first_time: None,
        }
    }

    /// Makes the relation of a table.
    pub fn of_table(
        name: String,
        table: Option<&Table>,
        columns: Option<Vec<String>>,
        alias: Option<&TableAlias>,
    ) -> Self {
        let relation = Self::new(Some(name), columns, alias);
        // An alias may have given it another name.
        let shown = |name: Option<&str>| {
            let at = table?.schema().index_of(name?).ok()?;
            relation.columns.as_ref()?.names.get(at).cloned()
        };
        let (declared, first) = (table.and_then(Table::declared_time), table.and_then(Table::time_column));
        Self { declared_time: shown(declared), first_time: shown(first), ..relation }
    }
}

/// Precedence where both a column and an alias match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// Aliases do not count: in the expressions of SELECT, in WHERE and ON.
    ColumnsOnly,
    /// A column, else an alias: GROUP BY, HAVING.
    Columns,
    /// An alias, else a column: ORDER BY.
    Aliases,
}

/// The names in scope of one query.
#[derive(Debug, Default)]
pub struct Scope {
    /// The relations of its FROM.
    pub relations: Vec<Relation>,
    /// The aliases of its SELECT.
    pub aliases: Columns,
}

impl Scope {
    /// Returns every column of every relation; none where some are not known.
    pub fn all_columns(&self) -> Option<Vec<String>> {
        let columns = self.relations.iter().map(|relation| relation.columns.as_ref().map(Columns::names));
        Some(columns.collect::<Option<Vec<_>>>()?.concat())
    }

    /// Returns whether it has relations whose columns are not known: a name may mean any of them.
    pub fn is_open(&self) -> bool {
        self.relations.iter().any(|relation| relation.columns.is_none())
    }

    /// Returns the relation that `name` means.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where several match.
    pub fn relation(&self, name: &str, quoted: bool) -> Result<Option<&Relation>> {
        let named = |name: &str| self.relations.iter().find(|relation| relation.name.as_deref() == Some(name));
        if let Some(exact) = named(name) {
            return Ok(Some(exact));
        }
        let names = self.relations.iter().filter_map(|relation| relation.name.as_deref());
        let alike = names.filter(|known| !quoted && known.eq_ignore_ascii_case(name)).collect();
        Ok(only(name, alike)?.and_then(named))
    }

    /// Returns the column or alias that `name` means: exact ones come before those that differ in case.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where several match.
    pub fn column<'s>(&'s self, name: &str, quoted: bool, prefer: Prefer) -> Result<Option<&'s str>> {
        let columns = || self.relations.iter().filter_map(|relation| relation.columns.as_ref());
        let exact_column = columns().find_map(|columns| columns.exact.get(name));
        let exact_alias = self.aliases.exact.get(name).filter(|_| prefer != Prefer::ColumnsOnly);
        let exact = match prefer {
            Prefer::Aliases => exact_alias.or(exact_column),
            _ => exact_column.or(exact_alias),
        };
        if exact.is_some() || quoted {
            return Ok(exact.map(String::as_str));
        }
        let alike_columns =
            || only(name, columns().flat_map(|columns| columns.alike(name)).map(String::as_str).collect());
        let alike_aliases = || only(name, self.aliases.alike(name).map(String::as_str).collect());
        match prefer {
            Prefer::ColumnsOnly => alike_columns(),
            Prefer::Columns => Ok(alike_columns()?.or(alike_aliases()?)),
            Prefer::Aliases => Ok(alike_aliases()?.or(alike_columns()?)),
        }
    }
}

/// Returns the name of a bare column in the output.
pub fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.clone()),
        _ => None,
    }
}

/// Returns the aliases of what a query selects.
pub fn aliases(items: &[SelectItem]) -> impl Iterator<Item = String> {
    items.iter().flat_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => vec![alias.value.clone()],
        SelectItem::ExprWithAliases { aliases, .. } => aliases.iter().map(|alias| alias.value.clone()).collect(),
        _ => Vec::new(),
    })
}
