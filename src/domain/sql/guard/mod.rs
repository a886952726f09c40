//! Refuses what a query may not contain: changes, and clauses that the planner would silently ignore.
//!
//! Nodes of the parsed form that the planner reads only in part are taken apart here, field by field and without `..`:
//! when the parser learns a new clause, this folder does not compile until the clause is handled. `_` stands for a
//! field that the planner reads, that it refuses itself, or that means nothing (tokens, hints, spelling).

mod functions;
mod pipes;
mod select;
mod tables;

pub use functions::{Callee, Functions};

use crate::domain::sql::guard::functions::expr;
use crate::domain::sql::guard::pipes::pipe_operator;
use crate::domain::sql::guard::select::{no_named_window, select};
use crate::domain::sql::guard::tables::{table_alias, table_factor};
use sqlparser::ast::{
    Cte, CteAsMaterialized, Expr, OrderBy, OrderByKind, Query, Select, SetExpr, SetOperator, SetQuantifier, Statement,
    TableFactor, Visit, Visitor, With,
};
use std::ops::ControlFlow;

/// The reason to refuse a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would change something.
    Change(&'static str),
    /// It has a clause that the planner would ignore.
    Clause(&'static str),
}

/// Checks all of a query or an expression, subqueries included.
///
/// # Errors
///
/// The first change or clause that is refused.
pub fn inspect(node: &impl Visit, functions: Functions) -> Result<(), Refused> {
    match node.visit(&mut Guard { functions: Some(functions) }) {
        ControlFlow::Break(refused) => Err(refused),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Checks a query or an expression for changes alone, which decide the kind of a statement.
///
/// # Errors
///
/// The first change.
pub fn inspect_changes(node: &impl Visit) -> Result<(), Refused> {
    match node.visit(&mut Guard { functions: None }) {
        ControlFlow::Break(change @ Refused::Change(_)) => Err(change),
        _ => Ok(()),
    }
}

struct Guard<'a> {
    /// None where only changes are looked for.
    functions: Option<Functions<'a>>,
}

impl Guard<'_> {
    fn check(&self, look: impl FnOnce(Functions) -> Result<(), Refused>) -> ControlFlow<Refused> {
        match self.functions.map_or(Ok(()), look) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refused) => ControlFlow::Break(refused),
        }
    }
}

impl Visitor for Guard<'_> {
    type Break = Refused;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Refused> {
        match statement {
            Statement::Query(_) | Statement::Explain { .. } => ControlFlow::Continue(()),
            _ => ControlFlow::Break(Refused::Change("a change inside a query")),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refused> {
        self.check(|_| self::query(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refused> {
        if select.into.is_some() {
            return ControlFlow::Break(Refused::Change("SELECT INTO (use CREATE TABLE … AS SELECT)"));
        }
        self.check(|_| self::select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Refused> {
        self.check(|_| table_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refused> {
        self.check(|functions| self::expr(expr, functions))
    }
}

pub(super) fn refused(clause: &'static str) -> Refused {
    Refused::Clause(clause)
}

/// Refuses `clause` if it is present.
pub(super) fn absent(present: bool, clause: &'static str) -> Result<(), Refused> {
    if present { Err(refused(clause)) } else { Ok(()) }
}

fn query(query: &Query) -> Result<(), Refused> {
    let Query {
        with,
        body,
        order_by,
        // All of LIMIT is read, LIMIT BY refused, and FETCH refused, outside of a recursive WITH.
        limit_clause: _,
        fetch: _,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    absent(!locks.is_empty(), "FOR UPDATE and FOR SHARE")?;
    absent(for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE")?;
    absent(settings.is_some(), "SETTINGS")?;
    absent(format_clause.is_some(), "FORMAT in the statement (ask for a format in the request instead)")?;
    set_expr(body)?;
    with.iter().try_for_each(self::with)?;
    order_by.iter().try_for_each(|order_by| self::order_by(order_by, body))?;
    pipe_operators.iter().try_for_each(pipe_operator)
}

fn with(with: &With) -> Result<(), Refused> {
    let With { with_token: _, recursive, cte_tables } = with;
    cte_tables.iter().try_for_each(cte)?;
    if *recursive { cte_tables.iter().try_for_each(|cte| recursive_union(&cte.query)) } else { Ok(()) }
}

fn cte(cte: &Cte) -> Result<(), Refused> {
    let Cte { alias, query: _, from, materialized, closing_paren_token: _ } = cte;
    absent(from.is_some(), "FROM between WITH and its query")?;
    // A CTE is expanded wherever it is named, which is what NOT MATERIALIZED asks for.
    absent(*materialized == Some(CteAsMaterialized::Materialized), "MATERIALIZED")?;
    table_alias(alias)
}

/// Refuses clauses around a UNION in a WITH RECURSIVE: the planner takes its two sides, by position, and ignores the
/// rest, even where the UNION does not name itself.
fn recursive_union(query: &Query) -> Result<(), Refused> {
    let Query {
        with,
        body,
        order_by,
        limit_clause,
        fetch,
        locks: _,
        for_clause: _,
        settings: _,
        format_clause: _,
        pipe_operators,
    } = query;
    let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left: _, right: _ } = body.as_ref() else {
        return Ok(());
    };
    let by_name = match set_quantifier {
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => true,
        SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None => false,
    };
    absent(by_name, "BY NAME in a recursive UNION")?;
    absent(with.is_some(), "WITH inside of a recursive WITH")?;
    absent(order_by.is_some(), "ORDER BY of a recursive UNION")?;
    absent(limit_clause.is_some(), "LIMIT and OFFSET of a recursive UNION")?;
    absent(fetch.is_some(), "FETCH of a recursive UNION")?;
    absent(!pipe_operators.is_empty(), "|> after a recursive UNION")
}

fn order_by(order_by: &OrderBy, body: &SetExpr) -> Result<(), Refused> {
    // INTERPOLATE and WITH FILL are refused.
    let OrderBy { kind, interpolate: _ } = order_by;
    let all = matches!(kind, OrderByKind::All(_)) && !matches!(body, SetExpr::Select(_));
    absent(all, "ORDER BY ALL of anything but a SELECT")?;
    no_named_window(order_by)
}

/// Refuses set operations that DataFusion 55 answers wrongly: one copy of a row takes all copies of it, or none.
pub(super) fn set_expr(body: &SetExpr) -> Result<(), Refused> {
    match body {
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            let is_all = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
            absent(is_all && *op == SetOperator::Except, "EXCEPT ALL")?;
            absent(is_all && *op == SetOperator::Intersect, "INTERSECT ALL")?;
            absent(*op == SetOperator::Minus, "MINUS (use EXCEPT)")?;
            set_expr(left)?;
            set_expr(right)
        }
        SetExpr::Table(_) => Err(refused("TABLE t (use SELECT * FROM t)")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::sql::guard::{Callee, Refused, inspect, inspect_changes};
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    fn catch(sql: &str) -> Option<Refused> {
        let functions = |name: &str, windowed: bool| match name {
            "abs" | "upper" => Callee::Scalar,
            "unnest" | "array_transform" => Callee::Nameless,
            "row_number" | "lag" | "rank" => Callee::Window,
            "first_value" if windowed => Callee::Window,
            _ => Callee::Aggregate,
        };
        let statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        inspect(&statements, &functions).err()
    }

    /// Statements with a clause that the planner would drop or read as something else.
    const DROPPED: &[&str] = &[
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t SETTINGS x = 1",
        "SELECT * FROM t FORMAT JSON",
        "SELECT * FROM t SAMPLE 1/10 OFFSET 1/2",
        "SELECT * FROM t TABLESAMPLE SYSTEM (10)",
        "SELECT * FROM (SELECT 1) TABLESAMPLE (10)",
        "SELECT * FROM t PREWHERE x = 1",
        "SELECT * FROM t START WITH a = 1 CONNECT BY PRIOR a = b",
        "SELECT * FROM t PARTITION (p0)",
        "SELECT * FROM t WITH (NOLOCK)",
        "SELECT * FROM t WITH ORDINALITY",
        "SELECT * FROM range(1, 3) WITH ORDINALITY",
        "SELECT * FROM range(1, 3, SETTINGS x = 1)",
        "SELECT * FROM range.x(1, 3)",
        "SELECT * FROM a, LATERAL range(start => 1, stop => 3)",
        "SELECT * FROM t AS x (a INT)",
        "WITH c (a INT) AS (SELECT 1) SELECT * FROM c",
        "WITH c (SELECT 1) FROM t SELECT 1",
        "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c LIMIT 10) SELECT * FROM c",
        "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL BY NAME SELECT n + 1 AS n FROM c) SELECT * FROM c",
        "WITH RECURSIVE c AS (SELECT 1 UNION ALL SELECT 2 ORDER BY 1) SELECT * FROM c",
        "SELECT a FROM t GROUP BY a WITH ROLLUP",
        "SELECT a FROM t GROUP BY a GROUPING SETS ((a), ())",
        "SELECT * ILIKE 'a%' FROM t",
        "SELECT * REPLACE (1 AS b) FROM t",
        "FROM t",
        "SELECT * FROM a GLOBAL JOIN b ON x = y",
        "SELECT * FROM a LT JOIN b ON x = y",
        "SELECT * FROM a any LEFT JOIN b ON x = y",
        "SELECT * FROM a JOIN b ON x = y JOIN c AJ0 JOIN d ON y = z",
        "SELECT * FROM (a PLUS JOIN b ON x = y)",
        "SELECT * FROM t FINAL",
        "SELECT * FROM t timestamp(ts)",
        "SELECT quantile(0.5)(x) FROM t",
        "SELECT ARRAY(SELECT 1)",
        "SELECT abs(DISTINCT x) FROM t",
        "SELECT abs(x ORDER BY y) FROM t",
        "SELECT ABS(x) FILTER (WHERE y) FROM t",
        "SELECT abs(x) OVER () FROM t",
        "SELECT abs(x) IGNORE NULLS FROM t",
        "SELECT abs(x) WITHIN GROUP (ORDER BY y) FROM t",
        "SELECT unnest(list => x) FROM t",
        "SELECT (array_agg(DISTINCT x))[2] FROM t",
        "SELECT array_agg(x IGNORE NULLS)[2] FROM t",
        "SELECT percentile_cont(x, 0.5 ORDER BY y) FROM t",
        "SELECT corr(DISTINCT x, y) FROM t",
        "SELECT count(DISTINCT *) FROM t",
        "SELECT count(u.*) FROM t LEFT JOIN u ON a = b",
        "SELECT (SELECT max(s) FROM (SELECT sum(v) OVER w AS s FROM u WINDOW w AS (ORDER BY v))) FROM t",
        "SELECT lag(DISTINCT x) OVER () FROM t",
        "SELECT rank() IGNORE NULLS OVER (ORDER BY x) FROM t",
        "SELECT sum(x) RESPECT NULLS OVER () FROM t",
        "SELECT sum(x) OVER (w ROWS 1 PRECEDING) FROM t WINDOW w AS (ORDER BY x)",
        "SELECT sum(x) OVER v FROM t WINDOW w AS (ORDER BY x), v AS (w ROWS 1 PRECEDING)",
        "SELECT a FROM t GROUP BY a ORDER BY sum(x) OVER w",
        "SELECT a FROM t WINDOW w AS (ORDER BY a) QUALIFY sum(x) OVER w > 1",
        "SELECT a FROM t |> AGGREGATE sum(x) DESC GROUP BY a",
        "SELECT a FROM t |> AGGREGATE sum(x) OVER w GROUP BY a",
        "SELECT TRIM('xaby', 'x', 'y')",
        "SELECT 1 WHERE 1 IN (SELECT x FROM t TABLESAMPLE SYSTEM (1))",
        "SELECT 1 EXCEPT ALL SELECT 1",
        "SELECT * FROM a RIGHT JOIN b USING (x)",
        "SELECT * FROM a NATURAL FULL JOIN b",
        "SELECT * FROM a JOIN b",
    ];

    #[test]
    fn what_the_planner_drops_is_refused() {
        for sql in DROPPED {
            assert!(matches!(catch(sql), Some(Refused::Clause(_))), "{sql}");
        }
        for sql in ["SELECT a INTO b FROM t", "WITH x AS (SELECT 1) INSERT INTO t SELECT 1"] {
            assert!(matches!(catch(sql), Some(Refused::Change(_))), "{sql}");
            let statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            assert!(inspect_changes(&statements).is_err(), "{sql}");
        }
    }

    #[test]
    fn what_the_planner_reads_passes() {
        for sql in [
            "SELECT /*+ hint */ DISTINCT ON (a) a, t.* EXCLUDE (b) FROM t AS lt JOIN u USING (x) WHERE a > 1",
            "SELECT a, sum(x) OVER w FROM t WINDOW w AS (PARTITION BY a ORDER BY b ROWS 1 PRECEDING) LIMIT 1 OFFSET 2",
            "SELECT a FROM t QUALIFY row_number() OVER (ORDER BY a) = 1 ORDER BY sum(x) OVER (ORDER BY b) NULLS FIRST",
            "SELECT a FROM t ORDER BY (SELECT sum(x) OVER w FROM u WINDOW w AS (ORDER BY y))",
            "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c) SELECT * FROM c LIMIT 10",
            "WITH RECURSIVE c AS (SELECT 1 AS n LIMIT 1) SELECT * FROM c",
            "SELECT a, count(*) FROM t GROUP BY ROLLUP (a), CUBE (b), GROUPING SETS ((c), ())",
            "SELECT sum(DISTINCT x) FILTER (WHERE y), count(*), array_agg(x ORDER BY y) FROM t",
            "SELECT first_value(x) IGNORE NULLS OVER (ORDER BY y ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "SELECT percentile_cont(x, 0.5 ORDER BY x DESC), abs(value => x), sum(y) FROM t",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x), TRIM(LEADING 'x' FROM y), {fn abs(x)} FROM t",
            "SELECT a FROM t |> WHERE a > 1 |> AGGREGATE sum(a) AS s GROUP BY b |> ORDER BY s DESC |> LIMIT 1",
            "FROM t SELECT a",
            "SELECT * FROM t AS x (a, b), UNNEST([1, 2]) AS u, LATERAL (SELECT 1) v",
            "SELECT * FROM t AS final, t \"lt\" JOIN u ON a = b",
            "SELECT array_agg(x ORDER BY y)[2], x[1] FROM t lt, u",
            "VALUES (1), (2) ORDER BY 1",
            "SELECT * FROM t SAMPLE 0.1",
            "SELECT * FROM t AS u TABLESAMPLE BERNOULLI (10 PERCENT)",
        ] {
            assert_eq!(catch(sql), None, "{sql}");
        }
    }
}
