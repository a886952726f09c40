//! SAMPLE BY (QuestDB): groups rows by buckets of the time column, and by every selected column that is no aggregate.
//!
//! `SAMPLE BY 1m …` becomes `CLUSTER BY __zepto_sample_by(…)`, which stands in the same place of the grammar. Once the columns of FROM
//! are known it becomes GROUP BY over a bucket of the time, and the aggregates are wrapped in what fills them.

use crate::domain::sql::time_columns::TimeColumn;
use crate::domain::sql::timeseries::cursor::{Cursor, call, make_word, number, punctuation, text};
use crate::domain::sql::timeseries::expressions::name_of;
use crate::domain::sql::timeseries::relations::query_of;
use crate::ports::{Error, Result};
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr,
    Ident, ObjectName, Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};
use sqlparser::tokenizer::{Token, TokenWithSpan};
use std::ops::ControlFlow;

/// Takes what follows SAMPLE BY, and writes it as the parser takes it.
///
/// # Errors
///
/// `InvalidQuery` for a clause that is wrong, `Unsupported` for ALIGN TO FIRST OBSERVATION beside FROM, TO and FILL.
pub fn sample_by(cursor: &mut Cursor) -> Result<()> {
    let Some(width) = cursor.counted_span()? else {
        return Err(Error::invalid("SAMPLE BY is followed by a width, such as 5m"));
    };
    let null = || vec![make_word("NULL")];
    let (mut from, mut to, mut zone, mut offset, mut fills) = (null(), null(), null(), null(), Vec::new());
    let mut align = null();
    if cursor.is_word(0, "FROM") {
        cursor.skip(1);
        from = cursor.until_clause_or("TO");
    }
    if cursor.is_word(0, "TO") {
        cursor.skip(1);
        to = cursor.until_clause();
    }
    if cursor.is_word(0, "FILL") {
        cursor.skip(1);
        fills = fill_list(cursor)?;
    }
    let aligns = |cursor: &Cursor, words: &[&str]| words.iter().enumerate().all(|(at, word)| cursor.is_word(at, word));
    if aligns(cursor, &["ALIGN", "TO", "FIRST", "OBSERVATION"]) {
        cursor.skip(4);
        if [&from, &to].iter().any(|bound| **bound != null()) || !fills.is_empty() {
            let text = "SAMPLE BY … ALIGN TO FIRST OBSERVATION takes no FROM, TO or FILL; ALIGN TO CALENDAR does";
            return Err(Error::unsupported(text));
        }
        if width.ends_with(['M', 'y']) {
            return Err(Error::invalid("months have no fixed length, so they align to the CALENDAR alone"));
        }
        align = vec![text("first")];
    } else if aligns(cursor, &["ALIGN", "TO"]) {
        if !cursor.is_word(2, "CALENDAR") {
            return Err(Error::invalid("ALIGN TO is followed by CALENDAR or FIRST OBSERVATION"));
        }
        cursor.skip(3);
        if cursor.is_word(0, "TIME") && cursor.is_word(1, "ZONE") {
            cursor.skip(2);
            zone = cursor.take(1);
        }
        if cursor.is_word(0, "WITH") && cursor.is_word(1, "OFFSET") {
            cursor.skip(2);
            offset = clock(cursor)?;
        }
    }
    let args = [vec![text(&width)], from, to, zone, offset, align].into_iter().chain(fills).collect();
    cursor.emit(vec![make_word("CLUSTER"), make_word("BY")]);
    cursor.emit(call("__zepto_sample_by", args));
    Ok(())
}

/// Takes `(PREV, NULL, 0.5)`, each as the text of what it does, or the constant.
fn fill_list(cursor: &mut Cursor) -> Result<Vec<Vec<TokenWithSpan>>> {
    let tokens = cursor.parenthesised()?;
    let items = tokens.split(|token| token.token == Token::Comma);
    let fill = |item: &[TokenWithSpan]| match item {
        [TokenWithSpan { token: Token::Word(word), .. }] => match word.value.to_ascii_uppercase().as_str() {
            known @ ("NONE" | "NULL" | "PREV" | "LINEAR") => Ok(vec![text(known)]),
            other => {
                Err(Error::invalid(format!("unknown FILL({other}); expected NONE, NULL, PREV, LINEAR or a constant")))
            }
        },
        [] => Err(Error::invalid("a fill is missing in FILL (…)")),
        constant => Ok(constant.to_vec()),
    };
    items.map(fill).collect()
}

/// Takes an offset such as `'00:15'`, in nanoseconds.
fn clock(cursor: &mut Cursor) -> Result<Vec<TokenWithSpan>> {
    let wrong = || Error::invalid("WITH OFFSET is followed by hours and minutes, such as '00:15'");
    let taken = cursor.take(1);
    let Some(Token::SingleQuotedString(clock)) = taken.first().map(|token| &token.token) else { return Err(wrong()) };
    let (hours, minutes) = clock.trim_start_matches(['-', '+']).split_once(':').ok_or_else(wrong)?;
    let minutes = hours.parse::<u32>().ok().zip(minutes.parse::<u32>().ok());
    let (hours, minutes) = minutes.filter(|(hours, minutes)| *hours < 24 && *minutes < 60).ok_or_else(wrong)?;
    let ns = (u64::from(hours) * 60 + u64::from(minutes)) * 60_000_000_000;
    let mut tokens = vec![number(&ns.to_string())];
    if clock.starts_with('-') {
        tokens.insert(0, punctuation(Token::Minus));
    }
    Ok(tokens)
}

/// Returns whether a SELECT has SAMPLE BY.
pub fn has_sample_by(select: &Select) -> bool {
    matches!(select.cluster_by.as_slice(), [order] if marker_of(order).is_some())
}

fn marker_of(expr: &Expr) -> Option<&FunctionArgumentList> {
    match expr {
        Expr::Function(Function { args: FunctionArguments::List(list), .. }) if is_call(expr, "__zepto_sample_by") => {
            Some(list)
        }
        _ => None,
    }
}

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(call) if name_of(call).as_deref() == Some(name))
}

/// Makes SAMPLE BY a GROUP BY over buckets of `time`, the time column of FROM. Returns whether it added a query to FROM, of the first
/// time of all rows.
///
/// # Errors
///
/// `InvalidQuery` for as many fills as there are not aggregates, and for GROUP BY beside it.
pub fn group_by_sample(select: &mut Select, time: &TimeColumn, is_aggregate: &dyn Fn(&str) -> bool) -> Result<bool> {
    let Some(order) = select.cluster_by.pop() else { return Ok(false) };
    let Some(list) = marker_of(&order) else { return Ok(false) };
    let args: Vec<Expr> = list.args.iter().filter_map(plain).cloned().collect();
    let [width, from, to, zone, offset, align, fills @ ..] = args.as_slice() else {
        return Err(Error::internal("SAMPLE BY has lost its arguments"));
    };
    if !matches!(&select.group_by, GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty())
    {
        return Err(Error::invalid("SAMPLE BY groups by itself; leave GROUP BY out"));
    }
    let nones = fills.iter().filter(|fill| fill_name(fill) == Some("NONE")).count();
    if nones > 0 && nones < fills.len() {
        return Err(Error::unsupported("FILL(NONE) is for all aggregates or for none of them"));
    }
    let fills: Vec<&Expr> = fills.iter().filter(|fill| fill_name(fill) != Some("NONE")).collect();
    let time_expr = time.expr();
    let name = if fills.is_empty() { "__zepto_sample" } else { "__zepto_sample_fill" };
    let times = [width.clone(), time_expr.clone(), zone.clone(), offset.clone(), from.clone(), to.clone()];
    let from_first = !is_null(align);
    let bucket = match from_first {
        true => {
            function("__zepto_sample_first", vec![width.clone(), time_expr.clone(), first_time(select, &time_expr)])
        }
        false => function(name, times.to_vec()),
    };
    let bounds = [(from, BinaryOperator::GtEq), (to, BinaryOperator::Lt)];
    for (bound, op) in bounds.into_iter().filter(|(bound, _)| !is_null(bound)) {
        and(&mut select.selection, compare(time_expr.clone(), op, bound.clone()));
    }
    let mut keys = vec![bucket.clone()];
    let aggregates: Vec<bool> = select.projection.iter().map(|item| has_aggregate(item, is_aggregate)).collect();
    let count = aggregates.iter().filter(|is| **is).count();
    if fills.len() > 1 && fills.len() != count {
        return Err(Error::invalid(format!("FILL has {} fills for {count} aggregates", fills.len())));
    }
    if select.projection.iter().any(has_window) {
        return Err(Error::unsupported(
            "a window function beside SAMPLE BY is not supported; put it around: SELECT …, avg(x) OVER (…) FROM (SELECT … SAMPLE BY …)",
        ));
    }
    let mut next_fill = 0;
    for (item, is_aggregate_item) in select.projection.iter_mut().zip(&aggregates) {
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), None),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(alias.clone())),
            _ => return Err(Error::invalid("SAMPLE BY selects columns and aggregates by their names, not *")),
        };
        let is_time = time.is(&expr);
        if *is_aggregate_item {
            let fill = if fills.len() > 1 { fills.get(next_fill) } else { fills.first() };
            next_fill += 1;
            let alias = alias.unwrap_or_else(|| Ident::with_quote('"', expr.to_string()));
            *item = SelectItem::ExprWithAlias { expr: filled(expr, fill.copied(), is_aggregate)?, alias };
        } else if is_time {
            let alias = alias.unwrap_or_else(|| Ident::with_quote('"', time.column.clone()));
            *item = SelectItem::ExprWithAlias { expr: bucket.clone(), alias };
        } else {
            keys.push(expr);
        }
    }
    select.group_by = GroupByExpr::Expressions(keys, Vec::new());
    Ok(from_first)
}

/// Adds a query of the first time of all rows to FROM, and returns its column.
fn first_time(select: &mut Select, time: &Expr) -> Expr {
    const FIRST: &str = "__zepto_first";
    let mut first = Select { distinct: None, having: None, qualify: None, named_window: Vec::new(), ..select.clone() };
    let alias = Ident::with_quote('"', FIRST);
    first.projection =
        vec![SelectItem::ExprWithAlias { expr: function("min", vec![time.clone()]), alias: alias.clone() }];
    let alias = TableAlias { explicit: true, name: alias, columns: Vec::new(), at: None };
    let subquery = Box::new(query_of(SetExpr::Select(Box::new(first))));
    let relation = TableFactor::Derived { lateral: false, subquery, alias: Some(alias.clone()), sample: None };
    select.from.push(TableWithJoins { relation, joins: Vec::new() });
    Expr::CompoundIdentifier(vec![alias.name.clone(), alias.name])
}

fn plain(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

fn fill_name(fill: &Expr) -> Option<&str> {
    match fill {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

fn filled(mut expr: Expr, fill: Option<&Expr>, is_aggregate: &dyn Fn(&str) -> bool) -> Result<Expr> {
    let is_plain = is_aggregate_call(&expr, is_aggregate);
    Ok(match (fill, fill.and_then(fill_name)) {
        (None, _) | (_, Some("NULL")) => expr,
        (_, Some("PREV")) if is_plain => function("locf", vec![expr]),
        (_, Some("PREV")) => {
            // The last value of what is computed is what is computed of the last values.
            let _ = VisitMut::visit(&mut expr, &mut CarryForward(is_aggregate));
            expr
        }
        _ if !is_plain => {
            let text = format!(
                "FILL(LINEAR) and constants fill an aggregate as it stands, not {expr}; put it into a subquery"
            );
            return Err(Error::unsupported(text));
        }
        (_, Some("LINEAR")) => function("interpolate", vec![expr]),
        (Some(constant), _) => function("__zepto_fill", vec![expr, constant.clone()]),
    })
}

fn is_aggregate_call(expr: &Expr, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    matches!(expr, Expr::Function(call) if call.over.is_none() && name_of(call).is_some_and(|name| is_aggregate(&name)))
}

/// Wraps each aggregate in `locf`.
struct CarryForward<'a>(&'a dyn Fn(&str) -> bool);

impl VisitorMut for CarryForward<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_aggregate_call(expr, self.0) {
            let call = std::mem::replace(expr, Expr::value(Value::Null));
            *expr = function("locf", vec![call]);
        }
        ControlFlow::Continue(())
    }
}

/// Makes a call of a function.
pub fn function(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn compare(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn and(selection: &mut Option<Expr>, more: Expr) {
    *selection = Some(match selection.take() {
        Some(before) => compare(Expr::Nested(Box::new(before)), BinaryOperator::And, more),
        None => more,
    });
}

/// Returns whether a selected expression calls an aggregate.
fn has_window(item: &SelectItem) -> bool {
    struct Windows;
    impl Visitor for Windows {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(call) if call.over.is_some() => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    item.visit(&mut Windows).is_break()
}

fn has_aggregate(item: &SelectItem, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    struct Aggregates<'a>(&'a dyn Fn(&str) -> bool);
    impl Visitor for Aggregates<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(call) if call.over.is_none() && name_of(call).is_some_and(|name| (self.0)(&name)) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    item.visit(&mut Aggregates(is_aggregate)).is_break()
}
