//! The analyzer rule that makes expressions exact once their types are settled.

use crate::domain::executor::error::unsupported;
use crate::domain::executor::memory::QueryMemory;
use crate::domain::executor::semantics::floored::floored;
use crate::domain::executor::semantics::operators::checked;
use crate::domain::executor::time_units::unit_ns;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility,
};
use datafusion::optimizer::analyzer::AnalyzerRule;
use datafusion::optimizer::utils::NamePreserver;
use std::sync::{Arc, LazyLock};

/// Replaces operators that wrap by checked ones, hides lossy casts from the optimiser, and refuses subqueries that it
/// would decorrelate wrongly.
#[derive(Debug)]
pub struct ExactOperators {
    /// The account that results are taken from.
    pub memory: QueryMemory,
}

impl AnalyzerRule for ExactOperators {
    fn name(&self) -> &str {
        "exact_operators"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &self.memory)).data()
    }
}

fn rewrite_node(plan: LogicalPlan, memory: &QueryMemory) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let is_filter = matches!(plan, LogicalPlan::Filter(_));
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        check_subqueries(&expr, is_filter)?;
        let name = names.save(&expr);
        let rewritten = expr.transform_down(|expr| rewrite_expr(expr, &schema, memory))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })
}

/// Rewrites one expression before those within it: the types of expressions that are not rewritten yet are cheap to
/// find.
fn rewrite_expr(expr: Expr, schema: &DFSchema, memory: &QueryMemory) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let types = (left.get_type(schema)?, right.get_type(schema)?);
            if needs_check(op, &types) {
                let shown = format!("{} {op} {}", left.schema_name(), right.schema_name());
                let call = ScalarFunction::new_udf(checked(op, shown, memory), vec![*left, *right]);
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            }
            if is_comparison(op) {
                let left = opaque(*left, schema, std::slice::from_ref(right.as_ref()))?;
                let right = opaque(*right, schema, std::slice::from_ref(&left.data))?;
                let changed = left.transformed || right.transformed;
                let comparison = BinaryExpr::new(Box::new(left.data), op, Box::new(right.data));
                return Ok(Transformed::new_transformed(Expr::BinaryExpr(comparison), changed));
            }
            if matches!(op, Operator::And | Operator::Or) {
                return Ok(keep_lists_apart(*left, op, *right));
            }
            Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        Expr::Negative(inner) => negated(inner, schema, memory),
        Expr::Cast(Cast { expr, field }) => {
            if let Some(exact) = exact_decimal(&expr, field.data_type()) {
                return Ok(Transformed::yes(Expr::Literal(exact, None)));
            }
            let from = expr.get_type(schema)?;
            Ok(match floored(*expr, &from, field.data_type()) {
                Ok(expr) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(expr), field })),
                Err(expr) => Transformed::no(Expr::Cast(Cast { expr: Box::new(expr), field })),
            })
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let from = expr.get_type(schema)?;
            Ok(match floored(*expr, &from, field.data_type()) {
                Ok(expr) => Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(expr), field })),
                Err(expr) => Transformed::no(Expr::TryCast(TryCast { expr: Box::new(expr), field })),
            })
        }
        Expr::ScalarFunction(call) => in_whole_units(call, schema),
        Expr::InList(InList { expr, list, negated }) => {
            let expr = opaque(*expr, schema, &list)?;
            let list = InList { expr: Box::new(expr.data), list, negated };
            Ok(Transformed::new_transformed(Expr::InList(list), expr.transformed))
        }
        Expr::Between(Between { expr, .. }) if expr.is_volatile() => {
            // DataFusion makes two comparisons of it, each with a value of its own.
            Err(unsupported("BETWEEN over a random value is not supported; name it in a subquery".to_owned()))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let expr = opaque(*expr, schema, &[low.as_ref().clone(), high.as_ref().clone()])?;
            let between = Between { expr: Box::new(expr.data), negated, low, high };
            Ok(Transformed::new_transformed(Expr::Between(between), expr.transformed))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Makes a minus sign one that does not wrap, and gives no NaN a sign.
fn negated(inner: Box<Expr>, schema: &DFSchema, memory: &QueryMemory) -> Result<Transformed<Expr>> {
    match inner.get_type(schema)? {
        integer if integer.is_signed_integer() && !matches!(*inner, Expr::Literal(..)) => {
            let zero = Expr::Literal(ScalarValue::new_zero(&integer)?, None);
            let shown = format!("(- {})", inner.schema_name());
            let call = ScalarFunction::new_udf(checked(Operator::Minus, shown, memory), vec![zero, *inner]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        // A negated NaN would have a sign.
        float if float.is_floating() && !matches!(*inner, Expr::Literal(..)) => {
            let minus_one = Expr::Literal(ScalarValue::new_negative_one(&float)?, None);
            let shown = format!("(- {})", inner.schema_name());
            let call = ScalarFunction::new_udf(checked(Operator::Multiply, shown, memory), vec![*inner, minus_one]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        _ => Ok(Transformed::no(Expr::Negative(inner))),
    }
}

/// Returns whether an operator on these types may wrap, double its text, or make a NaN with a sign.
fn needs_check(op: Operator, (left, right): &(DataType, DataType)) -> bool {
    let is_sum = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply);
    let are = |of: fn(&DataType) -> bool| of(left) && of(right);
    let is_text = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
        )
    };
    match op {
        _ if is_sum && are(DataType::is_integer) => true,
        _ if is_sum && are(DataType::is_decimal) => true,
        _ if (is_sum || matches!(op, Operator::Divide | Operator::Modulo)) && are(DataType::is_floating) => true,
        Operator::StringConcat => left == right && is_text(left),
        _ => false,
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Returns the digits of a number that was written with a point, where it is cast to a decimal: the double that it was read
/// as has others behind them (apache/datafusion issue 14272). Its shortest text is what was written.
fn exact_decimal(number: &Expr, to: &DataType) -> Option<ScalarValue> {
    let text = match number {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) if value.is_finite() => value.to_string(),
        Expr::Literal(ScalarValue::Float32(Some(value)), _) if value.is_finite() => value.to_string(),
        _ => return None,
    };
    match to {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            let places = text.split_once('.').map_or(0, |(_, places)| places.len());
            // What has more places is rounded as the statement says.
            let fits = i64::try_from(places).is_ok_and(|places| places <= i64::from(*scale));
            fits.then(|| ScalarValue::Utf8(Some(text)).cast_to(to).ok()).flatten()
        }
        _ => None,
    }
}

/// Rounds down what a function counts in whole units of time.
fn in_whole_units(mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let unit = |unit: TimeUnit| Some(DataType::Timestamp(unit, None));
    let to = match (call.func.name(), call.args.as_slice()) {
        ("to_unixtime" | "to_timestamp_seconds", _) => unit(TimeUnit::Second),
        ("to_timestamp_millis", _) => unit(TimeUnit::Millisecond),
        ("to_timestamp_micros", _) => unit(TimeUnit::Microsecond),
        ("arrow_cast" | "arrow_try_cast", [_, Expr::Literal(to, _)]) => {
            to.try_as_str().flatten().and_then(|to| to.parse().ok())
        }
        _ => None,
    };
    let Some(to) = to else { return Ok(Transformed::no(Expr::ScalarFunction(call))) };
    let Some(time) = call.args.first_mut() else { return Ok(Transformed::no(Expr::ScalarFunction(call))) };
    let from = time.get_type(schema)?;
    let made = floored(std::mem::take(time), &from, &to);
    let is_floored = made.is_ok();
    *time = made.unwrap_or_else(|time| time);
    Ok(Transformed::new_transformed(Expr::ScalarFunction(call), is_floored))
}

/// Hides a lossy cast: the optimiser would move it to the other side of a comparison, where it loses something else
/// (apache/datafusion issue 23095). So does the cast of a time to a finer unit, where what it is compared with has a finer part.
fn opaque(expr: Expr, schema: &DFSchema, others: &[Expr]) -> Result<Transformed<Expr>> {
    let (inner, to) = match &expr {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        _ => return Ok(Transformed::no(expr)),
    };
    if matches!(**inner, Expr::Literal(..)) {
        return Ok(Transformed::no(expr));
    }
    let from = inner.get_type(schema)?;
    if is_lossy(&from, to) || loses_a_part(&from, to, others) {
        return Ok(Transformed::yes(hidden(expr, 0)));
    }
    // A cast that coercion put around it is not lossy, and is moved first.
    Ok(match expr {
        Expr::Cast(cast) => opaque(*cast.expr, schema, others)?
            .update_data(|inner| Expr::Cast(Cast { expr: Box::new(inner), field: cast.field })),
        other => Transformed::no(other),
    })
}

fn is_lossy(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Decimal256};
    match (from, to) {
        (Decimal128(..) | Decimal256(..), to) if to.is_integer() => true,
        (Decimal128(p, s) | Decimal256(p, s), Decimal128(wp, ws) | Decimal256(wp, ws)) => ws < s || wp < p,
        (from, to) if from.is_floating() && to.is_integer() => true,
        (from, to) if from.is_integer() && to.is_integer() => {
            from.primitive_width() > to.primitive_width() || from.is_signed_integer() != to.is_signed_integer()
        }
        _ => false,
    }
}

/// Returns whether a time of a coarse unit is compared in a finer one with what the coarse one may not hold exactly.
fn loses_a_part(from: &DataType, to: &DataType, others: &[Expr]) -> bool {
    let (Some(coarse_ns), Some(fine_ns)) = (unit_ns(from), unit_ns(to)) else { return false };
    let is_exact = |other: &Expr| {
        let value = match other {
            Expr::Literal(value, _) => value.cast_to(to).ok(),
            Expr::Cast(cast) => match cast.expr.as_ref() {
                Expr::Literal(value, _) => {
                    value.cast_to(cast.field.data_type()).and_then(|value| value.cast_to(to)).ok()
                }
                _ => None,
            },
            _ => None,
        };
        match value.and_then(|value| value.cast_to(&DataType::Int64).ok()) {
            Some(ScalarValue::Int64(Some(at))) => at % (coarse_ns / fine_ns) == 0,
            _ => false,
        }
    };
    // Nothing is moved to what is no constant.
    let is_constant = |other: &Expr| !other.any_column_refs() && !other.contains_outer();
    coarse_ns > fine_ns && others.iter().any(|other| is_constant(other) && !is_exact(other))
}

/// Keeps the optimiser from merging two IN lists of the same expression: their union and intersection ignore NULL
/// (apache/datafusion issue 24246).
fn keep_lists_apart(left: Expr, op: Operator, right: Expr) -> Transformed<Expr> {
    let is_sound = |negated: bool| negated == (op == Operator::And);
    let right = match (&left, right) {
        (Expr::InList(a), Expr::InList(mut b))
            if a.expr == b.expr && !(a.negated == b.negated && is_sound(a.negated)) =>
        {
            b.expr = Box::new(hidden(*b.expr, 1));
            Transformed::yes(Expr::InList(b))
        }
        (_, right) => Transformed::no(right),
    };
    let changed = right.transformed;
    let both = BinaryExpr::new(Box::new(left), op, Box::new(right.data));
    Transformed::new_transformed(Expr::BinaryExpr(both), changed)
}

/// Returns `expr` as the argument of an identity function that the optimiser cannot see through.
fn hidden(expr: Expr, number: i64) -> Expr {
    static OPAQUE: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(Opaque { signature: Signature::any(2, Volatility::Immutable) })));
    let number = Expr::Literal(ScalarValue::Int64(Some(number)), None);
    Expr::ScalarFunction(ScalarFunction::new_udf(OPAQUE.clone(), vec![expr, number]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque {
    signature: Signature,
}

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &str {
        "__zepto_opaque"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.into_iter().next().unwrap_or(ColumnarValue::Scalar(ScalarValue::Null)))
    }
}

/// Refuses subqueries that DataFusion 55.2 decorrelates wrongly: NOT IN anywhere but at the top of WHERE, over one
/// column and uncorrelated (25340, 25347, 25336, 25473); EXISTS and IN over a correlated aggregate, which has a row for
/// every row around it (25519).
fn check_subqueries(expr: &Expr, is_filter: bool) -> Result<()> {
    let mut simple = Vec::new();
    if is_filter {
        conjuncts(expr, &mut simple);
    }
    if is_filter {
        check_null_is_hidden(expr, true)?;
    }
    expr.apply(|part| {
        match part {
            Expr::InSubquery(within) => {
                let is_simple = simple.iter().any(|conjunct| std::ptr::eq(*conjunct, part));
                let is_plain = within.subquery.outer_ref_columns.is_empty() && matches!(*within.expr, Expr::Column(_));
                if within.negated && !(is_simple && is_plain) {
                    return Err(unsupported(
                        "NOT IN (SELECT …) is supported for a bare column, in WHERE, not within OR or NOT, over a subquery \
                         that does not name outer columns; use NOT EXISTS otherwise"
                            .to_owned(),
                    ));
                }
                check_aggregate(&within.subquery)?;
            }
            Expr::Exists(exists) => check_aggregate(&exists.subquery)?,
            // The optimiser turns this into NOT IN.
            Expr::Not(inner) if inner.exists(|part| Ok(matches!(part, Expr::InSubquery(_))))? => {
                return Err(unsupported("NOT around IN (SELECT …) is not supported; use NOT EXISTS".to_owned()));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Refuses IN (SELECT …) where it would be seen that it answers false in place of NULL: anywhere but under AND and OR.
fn check_null_is_hidden(expr: &Expr, is_hidden: bool) -> Result<()> {
    match expr {
        Expr::InSubquery(_) if is_hidden => Ok(()),
        Expr::InSubquery(_) => Err(unsupported(
            "IN (SELECT …) within another expression than AND and OR is not supported; use EXISTS".to_owned(),
        )),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            check_null_is_hidden(left, is_hidden)?;
            check_null_is_hidden(right, is_hidden)
        }
        other => {
            let mut checked = Ok(());
            other.apply_children(|child| {
                checked = check_null_is_hidden(child, false);
                Ok(if checked.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })?;
            checked
        }
    }
}

fn conjuncts<'a>(expr: &'a Expr, found: &mut Vec<&'a Expr>) {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            conjuncts(left, found);
            conjuncts(right, found);
        }
        other => found.push(other),
    }
}

fn check_aggregate(subquery: &Subquery) -> Result<()> {
    let mut plan = subquery.subquery.as_ref();
    let is_correlated = !subquery.outer_ref_columns.is_empty();
    while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) = plan {
        let Some(input) = plan.inputs().first().copied() else { return Ok(()) };
        plan = input;
    }
    let grouped_at_once = |aggregate: &Aggregate| {
        aggregate.group_expr.is_empty() || aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)))
    };
    match plan {
        LogicalPlan::Aggregate(aggregate) if is_correlated && grouped_at_once(aggregate) => Err(unsupported(
            "EXISTS and IN over an aggregate of outer rows are not supported; compare with the aggregate itself"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}
