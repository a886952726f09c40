//! Checks SELECT, its columns, groups and windows.

use crate::domain::sql::guard::tables::{from, loses_key};
use crate::domain::sql::guard::{Refused, absent, refused};
use sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, GroupByWithModifier, NamedWindowDefinition, NamedWindowExpr, Query, Select,
    SelectFlavor, SelectItem, Visit, Visitor, WildcardAdditionalOptions, WindowSpec, WindowType,
};
use std::ops::ControlFlow;

pub(super) fn select(select: &Select) -> Result<(), Refused> {
    let Select {
        select_token: _,
        optimizer_hints: _,
        distinct,
        select_modifiers,
        top: _,
        top_before_distinct: _,
        projection,
        exclude,
        // A change, which is checked for before.
        into: _,
        from,
        lateral_views: _,
        prewhere,
        selection,
        connect_by,
        group_by,
        cluster_by: _,
        distribute_by: _,
        sort_by: _,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    absent(select_modifiers.is_some(), "modifiers of SELECT, such as SQL_CALC_FOUND_ROWS")?;
    absent(value_table_mode.is_some(), "SELECT AS STRUCT and SELECT AS VALUE")?;
    absent(*flavor == SelectFlavor::FromFirstNoSelect, "FROM without SELECT")?;
    absent(exclude.is_some(), "EXCLUDE after the columns of SELECT (use it after *)")?;
    absent(prewhere.is_some(), "PREWHERE (use WHERE)")?;
    absent(!connect_by.is_empty(), "START WITH and CONNECT BY (use WITH RECURSIVE)")?;
    projection.iter().try_for_each(select_item)?;
    self::from(from)?;
    let has_star = projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    absent(
        has_star && from.iter().any(loses_key),
        "SELECT * of a LEFT JOIN with USING, in this order of names (name the columns)",
    )?;
    self::group_by(group_by)?;
    named_window.iter().try_for_each(self::named_window)?;
    named_windows_only_in_projection(projection, distinct.as_ref(), [selection, having, qualify], group_by)
}

pub(super) fn select_item(item: &SelectItem) -> Result<(), Refused> {
    match item {
        SelectItem::UnnamedExpr(_)
        | SelectItem::ExprWithAlias { expr: _, alias: _ }
        | SelectItem::ExprWithAliases { expr: _, aliases: _ } => Ok(()),
        SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => wildcard(options),
    }
}

fn wildcard(options: &WildcardAdditionalOptions) -> Result<(), Refused> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude: _,
        opt_except: _,
        opt_replace,
        opt_rename: _,
        opt_alias: _,
    } = options;
    absent(opt_ilike.is_some(), "* ILIKE")?;
    // Replacing a column that does not exist is silently ignored, and names are resolved in expressions alone.
    absent(opt_replace.is_some(), "* REPLACE")
}

fn group_by(group_by: &GroupByExpr) -> Result<(), Refused> {
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
    match modifiers.first() {
        None => Ok(()),
        Some(GroupByWithModifier::Rollup) => Err(refused("GROUP BY … WITH ROLLUP (use GROUP BY ROLLUP (…))")),
        Some(GroupByWithModifier::Cube) => Err(refused("GROUP BY … WITH CUBE (use GROUP BY CUBE (…))")),
        Some(GroupByWithModifier::Totals) => Err(refused("GROUP BY … WITH TOTALS")),
        Some(GroupByWithModifier::GroupingSets(_)) => {
            Err(refused("GROUPING SETS after the columns of GROUP BY (use GROUP BY GROUPING SETS (…))"))
        }
    }
}

fn named_window(definition: &NamedWindowDefinition) -> Result<(), Refused> {
    let NamedWindowDefinition(_, window) = definition;
    match window {
        NamedWindowExpr::WindowSpec(spec) => window_spec(spec),
        // Refused as undefined where something uses it.
        NamedWindowExpr::NamedWindow(_) => Ok(()),
    }
}

pub(super) fn window_spec(spec: &WindowSpec) -> Result<(), Refused> {
    let WindowSpec { window_name, partition_by: _, order_by: _, window_frame: _ } = spec;
    absent(window_name.is_some(), "a window made from a named one (use OVER w, not OVER (w …))")
}

/// Refuses named windows outside of the expressions of SELECT: there the planner drops OVER w and an aggregate remains,
/// and in subqueries of them it takes this SELECT's windows before the subquery's own.
fn named_windows_only_in_projection(
    projection: &[SelectItem],
    distinct: Option<&Distinct>,
    conditions: [&Option<Expr>; 3],
    group_by: &GroupByExpr,
) -> Result<(), Refused> {
    distinct.into_iter().try_for_each(no_named_window)?;
    conditions.into_iter().flatten().try_for_each(no_named_window)?;
    no_named_window(group_by)?;
    let nested = projection.iter().any(|item| has_named_window(item, true));
    absent(nested, "OVER a named window in a subquery of a SELECT expression (use OVER (…))")
}

pub(super) fn no_named_window(node: &impl Visit) -> Result<(), Refused> {
    absent(has_named_window(node, false), "OVER a named window outside of the SELECT expressions (use OVER (…))")
}

/// Returns whether `node` uses a named window: in its subqueries, or outside of them.
fn has_named_window(node: &impl Visit, in_subqueries: bool) -> bool {
    node.visit(&mut NamedWindows { in_subqueries, depth: 0 }).is_break()
}

struct NamedWindows {
    in_subqueries: bool,
    depth: u32,
}

impl Visitor for NamedWindows {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(Function { over: Some(WindowType::NamedWindow(_)), .. }) = expr else {
            return ControlFlow::Continue(());
        };
        if (self.depth > 0) == self.in_subqueries { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
