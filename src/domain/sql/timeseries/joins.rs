//! Joins by time as other systems spell them, and LATEST ON: tokens that do not parse become tokens that do.
//!
//! Everything becomes the one join that the parser knows, `a ASOF JOIN b MATCH_CONDITION (…) ON …`, whose condition is a call of a
//! marker: `__zepto_asof(kind, form, tolerance, condition)`, `__zepto_window(from, to, prevailing)`, `__zepto_plus()`,
//! `__zepto_union()`. LATEST ON becomes `QUALIFY __zepto_latest(time, keys…)`. Tokens keep their places, so errors point into what
//! the user wrote.

use crate::domain::sql::timeseries::cursor::{Cursor, call, make_word, number, punctuation, text};
use crate::domain::sql::timeseries::sample_by::sample_by;
use crate::ports::{Error, Result};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Most offsets of one HORIZON JOIN: each is an as-of join of all rows.
const OFFSETS_MAX: i64 = 1_000;

/// Rewrites the joins and LATEST ON of a statement.
///
/// # Errors
///
/// `InvalidQuery` for a clause of theirs that is wrong.
pub fn rewrite_joins(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    if !Cursor::mentions(
        &tokens,
        &["ASOF", "LT", "AJ0", "WINDOW", "UNION", "PLUS", "SPLICE", "HORIZON", "LATEST", "SAMPLE"],
    ) {
        return Ok(tokens);
    }
    let mut cursor = Cursor::new(tokens);
    while !cursor.is_at_end() {
        if let Some((kind, length)) = join_kind(&cursor) {
            cursor.skip(length);
            join(&mut cursor, kind)?;
        } else if cursor.is_word(0, "LATEST") && cursor.is_word(1, "ON") {
            cursor.skip(2);
            latest(&mut cursor)?;
        } else if cursor.is_word(0, "SAMPLE") && cursor.is_word(1, "BY") {
            cursor.skip(2);
            sample_by(&mut cursor)?;
        } else {
            cursor.copy(1);
        }
    }
    Ok(cursor.finish())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With the name of what becomes of rows without a match: `default`, `left`, `inner`.
    Asof(&'static str),
    /// Strictly before (QuestDB).
    Lt,
    Window,
    Horizon,
    Plus,
    /// As of, both ways (QuestDB).
    Splice,
    Union,
}

/// Returns the kind of the join that begins here, and the number of its words.
fn join_kind(cursor: &Cursor) -> Option<(Kind, usize)> {
    let words = |expected: &[&str]| expected.iter().enumerate().all(|(at, word)| cursor.is_word(at, word));
    let named = |word: &str| words(&[word, "JOIN"]) && !cursor.is_alias(word);
    if words(&["ASOF", "LEFT", "OUTER", "JOIN"]) || words(&["LEFT", "OUTER", "ASOF", "JOIN"]) {
        Some((Kind::Asof("left"), 4))
    } else if words(&["ASOF", "LEFT", "JOIN"]) || words(&["LEFT", "ASOF", "JOIN"]) {
        Some((Kind::Asof("left"), 3))
    } else if words(&["ASOF", "INNER", "JOIN"]) || words(&["INNER", "ASOF", "JOIN"]) {
        Some((Kind::Asof("inner"), 3))
    } else if words(&["ASOF", "JOIN"]) {
        Some((Kind::Asof("default"), 2))
    } else if words(&["WINDOW", "JOIN"]) {
        Some((Kind::Window, 2))
    } else if words(&["UNION", "JOIN"]) {
        Some((Kind::Union, 2))
    } else if named("LT") {
        Some((Kind::Lt, 2))
    } else if named("AJ0") {
        Some((Kind::Asof("inner"), 2))
    } else if named("PLUS") {
        Some((Kind::Plus, 2))
    } else if named("SPLICE") {
        Some((Kind::Splice, 2))
    } else if named("HORIZON") {
        Some((Kind::Horizon, 2))
    } else {
        None
    }
}

fn join(cursor: &mut Cursor, kind: Kind) -> Result<()> {
    let right = cursor.table_factor();
    let condition = match cursor.is_word(0, "MATCH_CONDITION") {
        true => {
            cursor.skip(1);
            cursor.parenthesised()?
        }
        false => Vec::new(),
    };
    if !condition.is_empty() && !matches!(kind, Kind::Asof(_)) {
        return Err(Error::unsupported("MATCH_CONDITION is for an ASOF JOIN; put the condition into ON"));
    }
    let constraint = constraint(cursor);
    if kind == Kind::Union && !constraint.is_empty() {
        return Err(Error::unsupported("a UNION JOIN has no ON: it has all rows of both sides"));
    }
    let marker = match kind {
        Kind::Asof(_) | Kind::Lt | Kind::Splice => asof_marker(cursor, kind, condition)?,
        Kind::Window => window_marker(cursor)?,
        Kind::Horizon => return horizon(cursor, right, constraint),
        Kind::Plus => vec![make_word("__zepto_plus"), punctuation(Token::LParen), punctuation(Token::RParen)],
        Kind::Union => vec![make_word("__zepto_union"), punctuation(Token::LParen), punctuation(Token::RParen)],
    };
    emit(cursor, right, marker, constraint);
    Ok(())
}

/// Writes the join that the parser knows.
fn emit(cursor: &mut Cursor, right: Vec<TokenWithSpan>, marker: Vec<TokenWithSpan>, constraint: Vec<TokenWithSpan>) {
    cursor.emit(vec![make_word("ASOF"), make_word("JOIN")]);
    cursor.emit(right);
    cursor.emit(vec![make_word("MATCH_CONDITION"), punctuation(Token::LParen)]);
    cursor.emit(marker);
    cursor.emit(vec![punctuation(Token::RParen)]);
    cursor.emit(constraint);
}

/// Takes ON or USING with what follows, as far as it goes.
fn constraint(cursor: &mut Cursor) -> Vec<TokenWithSpan> {
    if cursor.is_word(0, "ON") || cursor.is_word(0, "USING") {
        let keyword = cursor.take(1);
        keyword.into_iter().chain(cursor.until_clause()).collect()
    } else {
        Vec::new()
    }
}

fn asof_marker(cursor: &mut Cursor, kind: Kind, condition: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let tolerance = match cursor.is_word(0, "TOLERANCE") {
        true => {
            cursor.skip(1);
            span(cursor)?
        }
        false => vec![make_word("NULL")],
    };
    let (kept, form) = match kind {
        Kind::Asof(kept) => (kept, "before"),
        Kind::Splice => ("left", "splice"),
        _ => ("default", "strict"),
    };
    let condition = if condition.is_empty() { vec![make_word("NULL")] } else { condition };
    Ok(call("__zepto_asof", vec![vec![text(kept)], vec![text(form)], tolerance, condition]))
}

/// Takes a span such as `2s`, `INTERVAL '2 seconds'` or `5 seconds`, as one expression.
fn span(cursor: &mut Cursor) -> Result<Vec<TokenWithSpan>> {
    if let Some(span) = cursor.counted_span()? {
        return Ok(vec![text(&span)]);
    }
    let tokens = cursor.until_clause();
    match tokens.is_empty() {
        true => Err(Error::invalid("a span of time is missing, such as 2s or INTERVAL '2 seconds'")),
        false => Ok(tokens),
    }
}

/// Takes `RANGE BETWEEN … PRECEDING AND … FOLLOWING [INCLUDE | EXCLUDE PREVAILING]` (QuestDB); without it the bounds are in ON.
fn window_marker(cursor: &mut Cursor) -> Result<Vec<TokenWithSpan>> {
    let null = || vec![make_word("NULL")];
    let mut bounds = [null(), null()];
    let has_range = cursor.is_word(0, "RANGE") && cursor.is_word(1, "BETWEEN");
    if has_range {
        cursor.skip(2);
        bounds[0] = window_bound(cursor)?;
        if !cursor.is_word(0, "AND") {
            return Err(Error::invalid("a WINDOW JOIN's RANGE BETWEEN needs two bounds with AND between them"));
        }
        cursor.skip(1);
        bounds[1] = window_bound(cursor)?;
    }
    let mut prevailing = if has_range { "include" } else { "exclude" };
    for (word, meaning) in [("INCLUDE", "include"), ("EXCLUDE", "exclude")] {
        if cursor.is_word(0, word) && cursor.is_word(1, "PREVAILING") {
            cursor.skip(2);
            prevailing = meaning;
        }
    }
    let [from, to] = bounds;
    Ok(call("__zepto_window", vec![from, to, vec![text(prevailing)]]))
}

/// Takes a bound, as the span by which it is later than the row.
fn window_bound(cursor: &mut Cursor) -> Result<Vec<TokenWithSpan>> {
    if cursor.is_word(0, "CURRENT") && cursor.is_word(1, "ROW") {
        cursor.skip(2);
        return Ok(vec![number("0")]);
    }
    if cursor.is_word(0, "UNBOUNDED") {
        return Err(Error::unsupported("an unbounded end of a WINDOW JOIN is not supported"));
    }
    let span = match cursor.counted_span()? {
        Some(span) => vec![text(&span)],
        None => cursor.until_words(&["PRECEDING", "FOLLOWING"]),
    };
    let direction = if cursor.is_word(0, "PRECEDING") {
        "before"
    } else if cursor.is_word(0, "FOLLOWING") {
        "after"
    } else {
        return Err(Error::invalid("a bound of a WINDOW JOIN ends with PRECEDING or FOLLOWING"));
    };
    cursor.skip(1);
    Ok(call("__zepto_bound", vec![vec![text(direction)], span]))
}

/// Writes a HORIZON JOIN (QuestDB): each row of the left side at each of several offsets, joined as of then.
fn horizon(cursor: &mut Cursor, right: Vec<TokenWithSpan>, constraint: Vec<TokenWithSpan>) -> Result<()> {
    let offsets = if cursor.is_word(0, "RANGE") {
        cursor.skip(1);
        let mut bound = |word: &str| {
            if !cursor.is_word(0, word) {
                return Err(Error::invalid("a HORIZON JOIN's RANGE is FROM … TO … STEP …"));
            }
            cursor.skip(1);
            cursor.signed_span_ns()
        };
        let (from, to, step) = (bound("FROM")?, bound("TO")?, bound("STEP")?);
        let count = to.checked_sub(from).and_then(|length| length.checked_div(step));
        if step <= 0 || to < from || count.is_none_or(|count| count >= OFFSETS_MAX) {
            let text = format!("a HORIZON JOIN has 1 to {OFFSETS_MAX} offsets, from the lowest to the highest");
            return Err(Error::invalid(text));
        }
        (0..=(to - from) / step).map(|at| from + at * step).collect()
    } else if cursor.is_word(0, "LIST") {
        cursor.skip(1);
        cursor.span_list_ns()?
    } else {
        return Err(Error::invalid("a HORIZON JOIN needs RANGE FROM … TO … STEP …, or LIST (…)"));
    };
    if offsets.is_empty() || offsets.len() as i64 > OFFSETS_MAX {
        return Err(Error::invalid(format!("a HORIZON JOIN has 1 to {OFFSETS_MAX} offsets")));
    }
    if !cursor.is_word(0, "AS") {
        return Err(Error::invalid("the offsets of a HORIZON JOIN need a name: … AS h"));
    }
    cursor.skip(1);
    let name = cursor.take(1);
    cursor.emit(vec![make_word("CROSS"), make_word("JOIN"), punctuation(Token::LParen), make_word("VALUES")]);
    for (at, offset) in offsets.iter().enumerate() {
        if at > 0 {
            cursor.emit(vec![punctuation(Token::Comma)]);
        }
        let mut row = vec![punctuation(Token::LParen)];
        if *offset < 0 {
            row.push(punctuation(Token::Minus));
        }
        row.extend([number(&offset.unsigned_abs().to_string()), punctuation(Token::RParen)]);
        cursor.emit(row);
    }
    cursor.emit(vec![punctuation(Token::RParen), make_word("AS")]);
    cursor.emit(name.clone());
    cursor.emit(vec![punctuation(Token::LParen), make_word("offset"), punctuation(Token::RParen)]);
    let at = name.into_iter().chain([punctuation(Token::Period), make_word("offset")]).collect();
    let marker = call("__zepto_asof", vec![vec![text("left")], vec![text("horizon")], vec![make_word("NULL")], at]);
    emit(cursor, right, marker, constraint);
    Ok(())
}

/// Takes `time PARTITION BY keys` (QuestDB), after LATEST ON.
fn latest(cursor: &mut Cursor) -> Result<()> {
    let time = cursor.until_words(&["PARTITION"]);
    if time.is_empty() || !cursor.is_word(1, "BY") {
        return Err(Error::invalid("LATEST ON is followed by a time and PARTITION BY keys"));
    }
    cursor.skip(2);
    let keys = cursor.until_clause_with_commas();
    cursor.emit(vec![make_word("QUALIFY")]);
    cursor.emit(call("__zepto_latest", vec![time, keys]));
    Ok(())
}
