//! Takes apart the statements that change rows: INSERT, DELETE, UPDATE, TRUNCATE.

use crate::domain::sql::guard::{Refused, inspect_changes};
use crate::domain::sql::statement::{
    Delete, Insert, Name, Statement, Truncate, Update, check_understood, refusal, table_name_of, unsupported,
};
use crate::ports::{Error, Result};
use sqlparser::ast::{
    self, AssignmentTarget, Expr, FromTable, Ident, ObjectName, TableFactor, TableObject, TableWithJoins,
};

pub(super) fn insert(insert: ast::Insert, whole: &str) -> Result<Statement> {
    let (TableObject::TableName(table), Some(source)) = (&insert.table, insert.source) else {
        return Err(unsupported(whole));
    };
    let columns = list(&insert.columns);
    let into = if insert.into { "INTO " } else { "" };
    check_understood(whole, &[format!("INSERT {into}{table} {columns}{source}")])?;
    if let Some(refused) = refusal(&source) {
        return Ok(refused);
    }
    Ok(Statement::Insert(Insert {
        table: table_name_of(table)?,
        columns: insert.columns.iter().map(column_name_of).collect::<Result<_>>()?,
        source: Box::new(ast::Statement::Query(source)),
    }))
}

/// Returns `(a, b) `, or nothing.
fn list(names: &[ObjectName]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!("({}) ", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

pub(super) fn delete(delete: ast::Delete, whole: &str) -> Result<Statement> {
    let FromTable::WithFromKeyword(from) = &delete.from else { return Err(unsupported(whole)) };
    let [from] = from.as_slice() else { return Err(unsupported(whole)) };
    let (table, alias) = plain_table(from, whole)?;
    check_understood(whole, &[format!("DELETE FROM {from}{}", condition(delete.selection.as_ref()))])?;
    refuse_changes_in(delete.selection.iter())?;
    Ok(Statement::Delete(Delete { table, alias, predicate: delete.selection }))
}

pub(super) fn update(update: ast::Update, whole: &str) -> Result<Statement> {
    let (table, alias) = plain_table(&update.table, whole)?;
    let set: Vec<_> = update.assignments.iter().map(ToString::to_string).collect();
    let condition = condition(update.selection.as_ref());
    check_understood(whole, &[format!("UPDATE {} SET {}{condition}", update.table, set.join(", "))])?;
    refuse_changes_in(update.assignments.iter().map(|assignment| &assignment.value).chain(&update.selection))?;
    let assignments = update
        .assignments
        .into_iter()
        .map(|assignment| match &assignment.target {
            AssignmentTarget::ColumnName(name) => Ok((column_name_of(name)?, assignment.value)),
            AssignmentTarget::Tuple(_) => Err(unsupported(whole)),
        })
        .collect::<Result<_>>()?;
    Ok(Statement::Update(Update { table, alias, assignments, predicate: update.selection }))
}

fn condition(predicate: Option<&Expr>) -> String {
    predicate.map(|predicate| format!(" WHERE {predicate}")).unwrap_or_default()
}

/// Refuses changes in the subqueries of a predicate or value.
fn refuse_changes_in<'a>(expressions: impl Iterator<Item = &'a Expr>) -> Result<()> {
    for expression in expressions {
        if let Err(Refused::Change(what) | Refused::Clause(what)) = inspect_changes(expression) {
            return Err(Error::unsupported(format!("{what} is not supported")));
        }
    }
    Ok(())
}

/// Returns the one table of a DELETE or UPDATE, and its name in the expressions of the statement.
fn plain_table(from: &TableWithJoins, whole: &str) -> Result<(Name, Ident)> {
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else { return Err(unsupported(whole)) };
    let plain = alias.as_ref().map_or_else(|| name.to_string(), |alias| format!("{name} {alias}"));
    if from.to_string() != plain || alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return Err(unsupported(whole));
    }
    let table = table_name_of(name)?;
    let own_name = Ident { quote_style: table.quoted.then_some('"'), ..Ident::new(&table.text) };
    Ok((table, alias.as_ref().map_or(own_name, |alias| alias.name.clone())))
}

pub(super) fn truncate(truncate: &ast::Truncate, whole: &str) -> Result<Statement> {
    let [target] = truncate.table_names.as_slice() else { return Err(unsupported(whole)) };
    let table = if truncate.table { "TABLE " } else { "" };
    let exists = if truncate.if_exists { "IF EXISTS " } else { "" };
    check_understood(whole, &[format!("TRUNCATE {table}{exists}{}", target.name)])?;
    Ok(Statement::Truncate(Truncate { table: table_name_of(&target.name)?, if_exists: truncate.if_exists }))
}

fn column_name_of(name: &ObjectName) -> Result<Name> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(Name::of),
        _ => None,
    }
    .ok_or_else(|| Error::invalid(format!("{name} is not a column name")))
}
