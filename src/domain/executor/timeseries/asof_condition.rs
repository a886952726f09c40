//! Takes the condition of a join by time apart: keys, inequalities, and what concerns one side alone.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::asof::JoinKey;
use crate::domain::executor::timeseries::spans::Span;
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use sqlparser::ast::{BinaryOperator, Expr as SqlExpr, JoinConstraint};

/// The parts of a condition.
#[derive(Debug, Default)]
pub struct Conditions {
    /// Equal keys.
    pub keys: Vec<JoinKey>,
    /// Inequalities between both sides.
    pub inequalities: Vec<Inequality>,
    /// The times of `nearest(left, right)`.
    pub nearest: Option<[Expr; 2]>,
    /// What concerns the left side alone: its rows have a match only where it is true.
    pub left_condition: Option<Expr>,
    /// What concerns the right side alone: only rows where it is true are in force.
    pub right_condition: Option<Expr>,
}

/// `left op right`, each of one side.
#[derive(Debug, Clone)]
pub struct Inequality {
    /// Of the left side.
    pub left: Expr,
    /// One of `<`, `<=`, `>`, `>=`.
    pub op: Operator,
    /// Of the right side.
    pub right: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Both,
    Neither,
}

impl Conditions {
    /// Reads ON or USING, and a MATCH_CONDITION.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for OR between both sides, and for anything else that is no key, inequality or condition of one side.
    pub fn read(
        schemas: [&DFSchema; 2],
        both: &DFSchema,
        constraint: JoinConstraint,
        condition: Option<SqlExpr>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let mut found = Self::default();
        let (mut left_only, mut right_only) = (Vec::new(), Vec::new());
        let mut parts = Vec::new();
        match constraint {
            JoinConstraint::On(on) => conjuncts(on, &mut parts),
            JoinConstraint::Using(names) => {
                for name in names {
                    let name = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone());
                    found.keys.push(key_of(&name.unwrap_or_default(), schemas)?);
                }
            }
            JoinConstraint::Natural => return Err(refused("a join by time is not NATURAL; name its keys".to_owned())),
            JoinConstraint::None => {}
        }
        condition.into_iter().for_each(|condition| conjuncts(condition, &mut parts));
        for part in parts {
            if let Some(names) = bare_names(&part) {
                // QuestDB's ON (key): the same name on both sides.
                for name in names {
                    found.keys.push(key_of(&name, schemas)?);
                }
                continue;
            }
            if let Some([left, right]) = nearest(&part) {
                let times = [context.sql_to_expr(left, both)?, context.sql_to_expr(right, both)?];
                found.nearest = Some(oriented(times, schemas)?);
                continue;
            }
            let expr = context.sql_to_expr(part, both)?;
            match (side(&expr, schemas), expr) {
                (Side::Left | Side::Neither, expr) => left_only.push(expr),
                (Side::Right, expr) => right_only.push(expr),
                (Side::Both, Expr::BinaryExpr(BinaryExpr { left, op, right })) => {
                    found.compare(*left, op, *right, schemas)?
                }
                (Side::Both, Expr::Between(Between { expr, negated: false, low, high })) => {
                    found.compare(*expr.clone(), Operator::GtEq, *low, schemas)?;
                    found.compare(*expr, Operator::LtEq, *high, schemas)?;
                }
                (Side::Both, expr) => return Err(not_understood(&expr)),
            }
        }
        found.left_condition = conjunction(left_only);
        found.right_condition = conjunction(right_only);
        Ok(found)
    }

    fn compare(&mut self, left: Expr, op: Operator, right: Expr, schemas: [&DFSchema; 2]) -> Result<()> {
        let whole = || Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), op, Box::new(right.clone())));
        let (left, op, right) = match (side(&left, schemas), side(&right, schemas)) {
            (Side::Left, Side::Right) => (left, op, right),
            (Side::Right, Side::Left) => match op.swap() {
                Some(op) => (right, op, left),
                None => return Err(not_understood(&whole())),
            },
            _ => return Err(not_understood(&whole())),
        };
        match op {
            Operator::Eq => self.keys.push(JoinKey { left, right, null_safe: false }),
            Operator::IsNotDistinctFrom => self.keys.push(JoinKey { left, right, null_safe: true }),
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                self.inequalities.push(Inequality { left, op, right });
            }
            _ => {
                let whole = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
                return Err(not_understood(&whole));
            }
        }
        Ok(())
    }

    /// Makes the last key the time (DuckDB, `USING (key, time)`).
    ///
    /// # Errors
    ///
    /// `InvalidQuery` without keys.
    pub fn last_key_is_time(&mut self) -> Result<()> {
        let Some(JoinKey { left, right, .. }) = self.keys.pop() else {
            return Err(refused("USING names keys and a time".to_owned()));
        };
        self.inequalities.push(Inequality { left, op: Operator::GtEq, right });
        Ok(())
    }
}

impl Inequality {
    /// Decides which of two inequalities says the direction, and which how far away a match may be.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where they are not about the same two times, or bound the same end.
    pub fn main_of<'a>(a: &'a Self, b: &'a Self) -> Result<(&'a Self, &'a Self)> {
        let (a_left, a_right, b_left, b_right) =
            (spread(&a.left)?, spread(&a.right)?, spread(&b.left)?, spread(&b.right)?);
        let refuse = || {
            refused("two inequalities of an ASOF JOIN have to be about the same two times: `a.t >= b.t AND b.t >= a.t - INTERVAL …`".to_owned())
        };
        let is_later = |inequality: &Self| matches!(inequality.op, Operator::Gt | Operator::GtEq);
        if a_left.0 != b_left.0 || a_right.0 != b_right.0 || is_later(a) == is_later(b) {
            return Err(refuse());
        }
        let has_distance = |left: &(Expr, i64), right: &(Expr, i64)| left.1 != 0 || right.1 != 0;
        match (has_distance(&a_left, &a_right), has_distance(&b_left, &b_right)) {
            (false, _) => Ok((a, b)),
            (true, false) => Ok((b, a)),
            (true, true) => Err(refuse()),
        }
    }

    /// Returns how far away `other` lets a match be, in nanoseconds.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where that is less than nothing.
    pub fn tolerance_ns(&self, other: &Self) -> Result<i64> {
        let (left_ns, right_ns) = (spread(&other.left)?.1, spread(&other.right)?.1);
        let is_later = matches!(self.op, Operator::Gt | Operator::GtEq);
        let distance = if is_later { right_ns.checked_sub(left_ns) } else { left_ns.checked_sub(right_ns) };
        let is_strict = matches!(other.op, Operator::Gt | Operator::Lt);
        match distance.and_then(|ns| ns.checked_sub(i64::from(is_strict))) {
            Some(ns) if ns >= 0 => Ok(ns),
            _ => Err(refused("the two inequalities of an ASOF JOIN leave no time between them".to_owned())),
        }
    }
}

/// Splits a time into one without a span beside it, and that span.
fn spread(expr: &Expr) -> Result<(Expr, i64)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok((expr.clone(), 0)) };
    let Expr::Literal(value, _) = right.as_ref() else { return Ok((expr.clone(), 0)) };
    let span = match Span::read(value)? {
        Some(Span::Ns(ns)) => ns,
        _ => return Ok((expr.clone(), 0)),
    };
    match op {
        Operator::Plus => Ok((left.as_ref().clone(), span)),
        Operator::Minus => match span.checked_neg() {
            Some(span) => Ok((left.as_ref().clone(), span)),
            None => Ok((expr.clone(), 0)),
        },
        _ => Ok((expr.clone(), 0)),
    }
}

fn not_understood(expr: &Expr) -> datafusion::error::DataFusionError {
    refused(format!(
        "a join by time cannot have the condition {expr}: it takes equal keys, one inequality of times, and conditions of one side, joined by AND"
    ))
}

fn conjuncts(expr: SqlExpr, found: &mut Vec<SqlExpr>) {
    match expr {
        SqlExpr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(*left, found);
            conjuncts(*right, found);
        }
        SqlExpr::Nested(inner) => match *inner {
            inner @ (SqlExpr::Nested(_)
            | SqlExpr::BinaryOp { op: BinaryOperator::And, .. }
            | SqlExpr::Identifier(_)) => {
                conjuncts(inner, found);
            }
            inner => found.push(SqlExpr::Nested(Box::new(inner))),
        },
        other => found.push(other),
    }
}

/// Returns the names of `key` or `(key, key)`.
fn bare_names(expr: &SqlExpr) -> Option<Vec<String>> {
    match expr {
        SqlExpr::Identifier(ident) => Some(vec![ident.value.clone()]),
        SqlExpr::Tuple(items) => items.iter().map(bare_names).collect::<Option<Vec<_>>>().map(|names| names.concat()),
        _ => None,
    }
}

fn nearest(expr: &SqlExpr) -> Option<[SqlExpr; 2]> {
    use sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};
    let SqlExpr::Function(call) = expr else { return None };
    let FunctionArguments::List(list) = &call.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(left)), FunctionArg::Unnamed(FunctionArgExpr::Expr(right))]
            if call.name.to_string().eq_ignore_ascii_case("nearest") =>
        {
            Some([left.clone(), right.clone()])
        }
        _ => None,
    }
}

/// Returns two times with that of the left side first.
fn oriented([a, b]: [Expr; 2], schemas: [&DFSchema; 2]) -> Result<[Expr; 2]> {
    match (side(&a, schemas), side(&b, schemas)) {
        (Side::Left, Side::Right) => Ok([a, b]),
        (Side::Right, Side::Left) => Ok([b, a]),
        _ => Err(refused("nearest takes a time of either side".to_owned())),
    }
}

fn key_of(name: &str, schemas: [&DFSchema; 2]) -> Result<JoinKey> {
    let [left, right] = schemas.map(|schema| -> Result<Expr> {
        // Of joins one after the other the first table's, as everywhere with a name alone in a list of keys.
        match schema.iter().find(|(_, field)| field.name() == name) {
            Some(found) => Ok(Expr::Column(Column::from(found))),
            None => Ok(Expr::Column(Column::from(schema.qualified_field_with_unqualified_name(name)?))),
        }
    });
    Ok(JoinKey { left: left?, right: right?, null_safe: false })
}

fn side(expr: &Expr, [left, right]: [&DFSchema; 2]) -> Side {
    let columns = expr.column_refs();
    let is_in = |schema: &DFSchema| columns.iter().any(|column| schema.maybe_index_of_column(column).is_some());
    match (is_in(left), is_in(right)) {
        (true, true) => Side::Both,
        (true, false) => Side::Left,
        (false, true) => Side::Right,
        (false, false) => Side::Neither,
    }
}
