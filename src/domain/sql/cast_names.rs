//! Names columns that are casts of a column which stands in the same list, or orders it.
//!
//! DataFusion 55.2 names `CAST(x AS INT)` as x itself, and refuses it beside x. Such a column is named as it is written.

use sqlparser::ast::{Expr, Ident, OrderBy, OrderByKind, SelectItem, Visit, Visitor};
use std::ops::ControlFlow;

/// Names the casts among `items` that would have the name of another item, or of a column in ORDER BY.
pub fn name_casts(items: &mut [SelectItem], order_by: Option<&OrderBy>) {
    let bases: Vec<Option<String>> = items.iter().map(cast_of).collect();
    if bases.iter().all(Option::is_none) {
        return;
    }
    let plain: Vec<Option<String>> = items.iter().map(plain_name).collect();
    let has_all = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let collides = |at: usize, base: &String| {
        let others = bases.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, base)| base).chain(&plain);
        has_all || others.flatten().any(|other| other == base) || order_by.is_some_and(|order| mentions(order, base))
    };
    for (at, item) in items.iter_mut().enumerate() {
        let collides = bases[at].as_ref().is_some_and(|base| collides(at, base));
        if let (true, SelectItem::UnnamedExpr(expr)) = (collides, &*item) {
            let alias = Ident::with_quote('"', expr.to_string());
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// Returns the name of the column that an item without a name casts, in lower case.
fn cast_of(item: &SelectItem) -> Option<String> {
    fn inner(expr: &Expr) -> Option<String> {
        match expr {
            Expr::Cast { expr, .. } => inner(expr).or_else(|| column(expr)),
            Expr::Nested(expr) => inner(expr),
            _ => None,
        }
    }
    match item {
        SelectItem::UnnamedExpr(expr) => inner(expr),
        _ => None,
    }
}

fn plain_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => column(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.to_lowercase()),
        _ => None,
    }
}

fn column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.to_lowercase()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|name| name.value.to_lowercase()),
        Expr::Nested(expr) => column(expr),
        _ => None,
    }
}

fn mentions(order: &OrderBy, base: &str) -> bool {
    struct Mentions<'a>(&'a str);
    impl Visitor for Mentions<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match column(expr).is_some_and(|name| name == self.0) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    match &order.kind {
        OrderByKind::Expressions(expressions) => {
            expressions.iter().any(|order| order.visit(&mut Mentions(base)).is_break())
        }
        OrderByKind::All(_) => false,
    }
}
