//! The query that finds the rows which a change is about, and placeholders.

use crate::domain::executor::ROW_NUMBER;
use crate::domain::executor::sql::TARGET;
use crate::ports::{Error, Result};
use sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr, TableAlias, Value, ValueWithSpan};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

/// Makes `SELECT row_number, values… FROM target AS alias WHERE predicate`.
///
/// # Errors
///
/// `Internal` where the template does not parse.
pub fn rows_query(alias: Ident, predicate: Option<Expr>, values: Vec<Expr>) -> Result<ast::Statement> {
    let template = format!("SELECT \"{ROW_NUMBER}\" FROM \"{TARGET}\" AS x");
    let mut statement = Parser::parse_sql(&GenericDialect {}, &template)
        .ok()
        .and_then(|mut statements| statements.pop())
        .ok_or_else(|| Error::internal("the template of a change does not parse"))?;
    if let ast::Statement::Query(query) = &mut statement
        && let SetExpr::Select(select) = query.body.as_mut()
        && let [from] = select.from.as_mut_slice()
        && let ast::TableFactor::Table { alias: Some(TableAlias { name, .. }), .. } = &mut from.relation
    {
        *name = alias;
        select.selection = predicate;
        // Each value under a name of its own: several may be the same expression.
        select.projection.extend(values.into_iter().enumerate().map(|(at, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: Ident::with_quote('"', format!("{ROW_NUMBER}_{at}")),
        }));
    }
    Ok(statement)
}

/// Returns the `n` of a bare `$n`.
pub fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) => text.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}
