//! Functions and clauses of other systems that mean something standard.

use crate::ports::{Error, Result};
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, OrderByExpr, Select, Statement, Value, VisitMut, VisitorMut, WindowType,
};
use std::ops::ControlFlow;

/// Rewrites the expressions of `statement`, and PREWHERE to WHERE.
///
/// # Errors
///
/// `InvalidQuery` for a percentile that is no constant.
pub fn rewrite_expressions(statement: &mut Statement) -> Result<()> {
    match statement.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Box<Error>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Error>> {
        // ClickHouse reads these columns first; the rows are those of WHERE.
        if let Some(first) = select.prewhere.take() {
            let and = |right| Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(first.clone()))),
                op: BinaryOperator::And,
                right: Box::new(Expr::Nested(Box::new(right))),
            };
            select.selection = Some(match select.selection.take() {
                Some(selection) => and(selection),
                None => first,
            });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        match function(call) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

/// Returns the name of a function that is neither quoted nor qualified, in lowercase.
pub fn name_of(call: &Function) -> Option<String> {
    match call.name.0.as_slice() {
        [ObjectNamePart::Identifier(Ident { value, quote_style: None, span: _ })] => Some(value.to_ascii_lowercase()),
        _ => None,
    }
}

/// Gives a call another name.
pub fn rename(call: &mut Function, name: &str) {
    call.name = ObjectName::from(vec![Ident::new(name)]);
}

fn function(call: &mut Function) -> Result<()> {
    let Some(name) = name_of(call) else { return Ok(()) };
    let windowed = call.over.clone();
    let FunctionArguments::List(list) = &mut call.args else { return Ok(()) };
    match (name.as_str(), list.args.len()) {
        ("count", 0) if list.clauses.is_empty() => {
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
        }
        ("variance", 1) => rename(call, "var_samp"),
        ("date_trunc", 2) => date_trunc(call),
        ("percentile", 2) => {
            percent(list, true)?;
            rename(call, "percentile_cont");
        }
        ("percentile_cont", 2) => percent(list, false)?,
        ("avg", 3) if windowed.is_some() => {
            // A unit of time for its kind: the time is what the window is ordered by.
            if let (Some(WindowType::WindowSpec(spec)), false) = (windowed, is_timeless(list.args.get(1)))
                && let Some(OrderByExpr { expr, .. }) = spec.order_by.first()
            {
                list.args.push(argument(expr.clone()));
            }
            rename(call, "__zepto_ema_by");
        }
        _ => {}
    }
    Ok(())
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn value_of(arg: Option<&FunctionArg>) -> Option<&Value> {
    match arg {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) => Some(&value.value),
        _ => None,
    }
}

fn text_of(arg: Option<&FunctionArg>) -> Option<String> {
    match value_of(arg) {
        Some(Value::SingleQuotedString(text)) => Some(text.to_ascii_lowercase()),
        _ => None,
    }
}

fn is_timeless(kind: Option<&FunctionArg>) -> bool {
    matches!(text_of(kind).as_deref(), Some("alpha" | "period"))
}

/// Makes units of `date_trunc` as ZeptoDB names them DataFusion's.
fn date_trunc(call: &mut Function) {
    let FunctionArguments::List(list) = &mut call.args else { return };
    let unit = match text_of(list.args.first()).as_deref() {
        Some("us") => "microsecond",
        Some("ms") => "millisecond",
        Some("s" | "sec") => "second",
        Some("min" | "m") => "minute",
        Some("h") => "hour",
        Some("d") => "day",
        Some("w") => "week",
        Some("ns" | "nanosecond") => {
            list.args.swap(0, 1);
            list.args[1] = argument(Expr::value(Value::Number("1".to_owned(), false)));
            rename(call, "xbar");
            return;
        }
        _ => return,
    };
    list.args[0] = argument(Expr::value(Value::SingleQuotedString(unit.to_owned())));
}

/// Makes a percentile of 0 to 100 one of 0 to 1; without `always` only one above 1, which nothing else could mean.
fn percent(list: &mut FunctionArgumentList, always: bool) -> Result<()> {
    let number = match value_of(list.args.get(1)) {
        Some(Value::Number(digits, _)) => digits.parse::<f64>().ok(),
        _ => None,
    };
    match number {
        Some(percent) if percent > 100.0 => {
            Err(Error::invalid(format!("percentile {percent} does not exist; it is 0 to 100")))
        }
        Some(percent) if always || percent > 1.0 => {
            list.args[1] = argument(Expr::value(Value::Number((percent / 100.0).to_string(), false)));
            Ok(())
        }
        None if always => Err(Error::invalid("the second argument of percentile has to be a number from 0 to 100")),
        _ => Ok(()),
    }
}
