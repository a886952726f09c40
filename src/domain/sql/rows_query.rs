//! The query behind DELETE and UPDATE: the numbers of the rows to change, and their new values.

use crate::ports::{Error, Result};
use sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr, TableAlias, TableFactor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

/// The name of the table of a DELETE or UPDATE in the query that finds its rows.
pub const TARGET: &str = "__zepto_target";

/// The column of row numbers that [`TARGET`] is read with, UINT64, counted from its first row.
pub const ROW_NUMBER: &str = "__zepto_row";

/// Builds `SELECT row_number, values… FROM target AS alias WHERE predicate`.
///
/// # Errors
///
/// `Internal` where the parser does not read the template.
pub fn rows_query(alias: Ident, predicate: Option<Expr>, values: Vec<Expr>) -> Result<ast::Statement> {
    // A template, because sqlparser's SELECT has two dozen fields and no default. What the statement gave is never
    // printed and parsed again.
    let template = format!("SELECT \"{ROW_NUMBER}\" FROM \"{TARGET}\" AS x");
    let mut statement = Parser::parse_sql(&GenericDialect {}, &template)
        .ok()
        .and_then(|mut statements| statements.pop())
        .ok_or_else(|| Error::internal("the template of a change does not parse"))?;
    if let ast::Statement::Query(query) = &mut statement
        && let SetExpr::Select(select) = query.body.as_mut()
        && let [from] = select.from.as_mut_slice()
        && let TableFactor::Table { alias: Some(TableAlias { name, .. }), .. } = &mut from.relation
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
