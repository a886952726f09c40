//! The rows of VALUES, and the parameters in them.

use crate::domain::sql::statement::ReadStatement;
use sqlparser::ast::{self, Expr, Ident, Query, SetExpr, Statement, Value, ValueWithSpan};
use std::ops::ControlFlow;

/// Returns the rows of a statement that is VALUES; none for any other.
pub fn values_rows(source: &ReadStatement) -> Option<Vec<&[Expr]>> {
    let Statement::Query(query) = source else { return None };
    let SetExpr::Values(values) = query.body.as_ref() else { return None };
    Some(values.rows.iter().map(|row| row.content.as_slice()).collect())
}

/// Returns the row of a statement that is VALUES of one row and nothing else.
pub fn only_values_row(source: &ReadStatement) -> Option<Vec<Expr>> {
    let Statement::Query(query) = source else { return None };
    match values_rows(source)?.as_slice() {
        [row] if is_bare(query) => Some(row.to_vec()),
        _ => None,
    }
}

/// Returns whether a query is its body alone, without a clause that would make fewer rows of it.
fn is_bare(query: &Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.pipe_operators.is_empty()
}

/// Returns the `n` of a bare `$n`.
pub fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) => text.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

/// Returns `exprs` with each `$n` replaced by a column called `names[n - 1]`; those beyond `names` stay.
pub fn placeholders_to_columns(mut exprs: Vec<Expr>, names: &[String]) -> Vec<Expr> {
    let _: ControlFlow<()> = ast::visit_expressions_mut(&mut exprs, |expr| {
        if let Some(name) = placeholder(expr).and_then(|number| names.get(number - 1)) {
            *expr = Expr::Identifier(Ident::with_quote('"', name));
        }
        ControlFlow::Continue(())
    });
    exprs
}

#[cfg(test)]
mod tests {
    use crate::domain::sql::values::is_bare;
    use sqlparser::ast::Query;
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    fn query(sql: &str) -> Box<Query> {
        Parser::new(&GenericDialect {}).try_with_sql(sql).unwrap().parse_query().unwrap()
    }

    #[test]
    fn a_clause_behind_values_is_seen() {
        assert!(is_bare(&query("VALUES (1)")));
        for clause in ["LIMIT 0", "ORDER BY 1", "|> LIMIT 0", "|> WHERE false"] {
            assert!(!is_bare(&query(&format!("VALUES (1) {clause}"))), "{clause}");
        }
    }
}
