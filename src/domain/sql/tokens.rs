//! Splits a statement into tokens, bounds them before the parser runs, and numbers the parameters.
//!
//! A flat chain of operators becomes a tree as deep as the chain is long, and everything that walks that tree – parser,
//! planner, optimiser, even dropping it – uses stack for each level. So the chain is measured while it is still flat.
//! The count includes everything that may be an operator, with one exception: signs of numbers in lists do not count,
//! so that long `VALUES` pass.

use crate::ports::{Error, Limits, Result};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use std::collections::HashMap;

/// Most parameters of one statement.
const PARAMS_MAX: usize = 10_000;

/// A statement as the parser takes it.
#[derive(Debug)]
pub struct Tokens {
    /// Its tokens, every parameter as its `$n`.
    pub tokens: Vec<TokenWithSpan>,
    /// The name of each of `$1…$n`, where it had one.
    pub params: Vec<Option<String>>,
}

/// Returns the tokens of `sql`, within the limits.
///
/// # Errors
///
/// `InvalidQuery` for an empty, overlong or overly branched statement, for text that is not SQL, and for a mixture of
/// `?` and `$n`.
pub fn tokenize(sql: &str, limits: &Limits) -> Result<Tokens> {
    if sql.len() as u64 > limits.sql_bytes_max {
        return Err(Error::invalid(format!(
            "the statement has {} bytes, more than {} (sql_bytes_max)",
            sql.len(),
            limits.sql_bytes_max
        )));
    }
    // Editors put a byte order mark before what they save.
    let sql = sql.trim_start_matches('\u{feff}');
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| Error::invalid(format!("the statement is not SQL: {error}")))?;
    if tokens.iter().all(|token| matches!(token.token, Token::Whitespace(_) | Token::SemiColon | Token::EOF)) {
        return Err(Error::invalid("the statement is empty"));
    }
    if let Some(word) = tokens.iter().find_map(reserved_word) {
        return Err(Error::invalid(format!("{word:?} cannot be named: names that begin with __zepto are reserved")));
    }
    let operators = count_operators(&tokens);
    if operators > limits.sql_operators_max {
        return Err(Error::invalid(format!(
            "the statement has {operators} operators, more than {} (sql_operators_max); long lists fit in IN or VALUES",
            limits.sql_operators_max
        )));
    }
    check_nesting(&tokens, limits.sql_depth_max)?;
    let params = number_placeholders(&mut tokens)?;
    Ok(Tokens { tokens, params })
}

/// Returns a name that the engine keeps for itself, such as that of the column of row numbers.
fn reserved_word(token: &TokenWithSpan) -> Option<&str> {
    let Token::Word(word) = &token.token else { return None };
    let start = word.value.get(.."__zepto".len())?;
    start.eq_ignore_ascii_case("__zepto").then_some(word.value.as_str())
}

/// Deepest nesting of constructs that take twice the time for each level: those that the parser tries in two ways, and
/// subqueries in expressions, which the optimiser walks twice. Eight levels take milliseconds, twenty-five take days.
const RETRIED_DEPTH_MAX: usize = 8;

/// Refuses deep nesting before anything is parsed: of all brackets, because each level takes stack, and of a few
/// constructs more strictly, because each level of them takes twice the time.
fn check_nesting(tokens: &[TokenWithSpan], depth_max: u64) -> Result<()> {
    let mut open: Vec<Opened> = Vec::new();
    let mut just_opened = false;
    let mut intervals = 0;
    let mut before = Before::default();
    for token in tokens {
        let keyword = match &token.token {
            Token::Whitespace(_) => continue,
            // A word in quotes or after a period is a name, not a keyword: `t.end`.
            Token::Word(word) if word.quote_style.is_none() && !before.is_period => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                open.push(Opened { is_case: false, is_retried: is_retried(before.keyword), after: before.keyword });
            }
            Token::RParen | Token::RBracket | Token::RBrace => drop(open.pop()),
            _ if keyword == Keyword::CASE => {
                open.push(Opened { is_case: true, is_retried: true, after: before.keyword });
            }
            _ if matches!(keyword, Keyword::SELECT | Keyword::WITH) && just_opened => {
                if let Some(last) = open.last_mut() {
                    last.is_retried = !begins_relation(last.after);
                }
            }
            // It ends a CASE where a value stands before it; elsewhere it is the name of a column.
            _ if keyword == Keyword::END && before.is_value && open.last().is_some_and(|last| last.is_case) => {
                let _ = open.pop();
            }
            _ => {}
        }
        intervals = if keyword == Keyword::INTERVAL { intervals + 1 } else { 0 };
        let retried = open.iter().filter(|opened| opened.is_retried).count() + intervals;
        if open.len() as u64 > depth_max || retried > RETRIED_DEPTH_MAX {
            return Err(Error::invalid(format!(
                "the statement is nested deeper than {depth_max} levels (sql_depth_max), or {RETRIED_DEPTH_MAX} of CASE, CAST, subqueries in expressions and the like"
            )));
        }
        just_opened = token.token == Token::LParen;
        before = Before::of(&token.token, keyword);
    }
    Ok(())
}

/// A bracket or CASE that is not closed yet.
struct Opened {
    is_case: bool,
    is_retried: bool,
    /// The keyword before it.
    after: Keyword,
}

/// The token before another one.
struct Before {
    keyword: Keyword,
    is_period: bool,
    /// Whether an expression may end with it.
    is_value: bool,
}

impl Default for Before {
    fn default() -> Self {
        Self { keyword: Keyword::NoKeyword, is_period: false, is_value: false }
    }
}

impl Before {
    fn of(token: &Token, keyword: Keyword) -> Self {
        let is_value = match token {
            Token::Word(_) => !wants_operand(keyword),
            Token::Number(..) | Token::Placeholder(_) | Token::RParen | Token::RBracket | Token::RBrace => true,
            other => {
                !is_operator(other) && !matches!(other, Token::LParen | Token::LBrace | Token::Comma | Token::Period)
            }
        };
        Self { keyword, is_period: *token == Token::Period, is_value }
    }
}

/// Returns whether an operand has to follow a keyword. Where this list is too short, the budget of `dialect` still
/// holds.
fn wants_operand(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::CASE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::AND
            | Keyword::OR
            | Keyword::XOR
            | Keyword::NOT
            | Keyword::IN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::BETWEEN
            | Keyword::ESCAPE
            | Keyword::DIV
            | Keyword::SELECT
            | Keyword::DISTINCT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::BY
            | Keyword::INTERVAL
    )
}

/// Returns whether a subquery that opens after this keyword is a table, which is walked once.
fn begins_relation(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::FROM
            | Keyword::JOIN
            | Keyword::LATERAL
            | Keyword::AS
            | Keyword::MATERIALIZED
            | Keyword::UNION
            | Keyword::ALL
            | Keyword::EXCEPT
            | Keyword::INTERSECT
    )
}

fn is_retried(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::ARRAY
            | Keyword::CAST
            | Keyword::TRY_CAST
            | Keyword::SAFE_CAST
            | Keyword::CONVERT
            | Keyword::TRY_CONVERT
            | Keyword::OVERLAY
            | Keyword::SUBSTRING
            | Keyword::SUBSTR
            | Keyword::TRIM
            | Keyword::EXTRACT
            | Keyword::POSITION
            | Keyword::CEIL
            | Keyword::FLOOR
            | Keyword::STRUCT
            | Keyword::MAP
            | Keyword::INTERVAL
            | Keyword::TRUNCATE
    )
}

fn count_operators(tokens: &[TokenWithSpan]) -> u64 {
    let mut in_list = false;
    let mut count = 0;
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::Minus | Token::Plus if in_list => {}
            token if is_operator(token) => count += 1,
            _ => {}
        }
        in_list = matches!(token.token, Token::LParen | Token::Comma);
    }
    count
}

/// Returns whether a token can make the parsed tree deeper without making the text nest.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::DIV
                | Keyword::OVERLAPS
                | Keyword::MEMBER
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::MINUS
                | Keyword::JOIN
                | Keyword::APPLY
                | Keyword::PIVOT
                | Keyword::UNPIVOT
                | Keyword::SELECT
                | Keyword::VALUES
        ),
        Token::EOF
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::TripleSingleQuotedString(_)
        | Token::TripleDoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::SingleQuotedByteStringLiteral(_)
        | Token::DoubleQuotedByteStringLiteral(_)
        | Token::Comma
        | Token::Whitespace(_)
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::SemiColon
        | Token::RBracket
        | Token::LBrace
        | Token::RBrace
        | Token::Placeholder(_) => false,
        _ => true,
    }
}

/// Numbers the parameters: `?` by their order, `$name` by the first use of each name. Returns the name of each of
/// `$1…$n`, where it has one.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<Vec<Option<String>>> {
    let mut params: Vec<Option<String>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut styles = [false; 3];
    for token in tokens {
        let Token::Placeholder(text) = &mut token.token else { continue };
        let number = match text.strip_prefix('$') {
            None if text == "?" => {
                styles[0] = true;
                params.push(None);
                params.len()
            }
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                styles[1] = true;
                let number = digits.parse().unwrap_or(usize::MAX);
                if number == 0 {
                    return Err(Error::invalid("there is no parameter $0; parameters count from $1"));
                }
                params.resize(params.len().max(number.min(PARAMS_MAX + 1)), None);
                number
            }
            name => {
                styles[2] = true;
                let name = name.unwrap_or(text).to_owned();
                *known.entry(name.clone()).or_insert_with(|| {
                    params.push(Some(name));
                    params.len()
                })
            }
        };
        if params.len() > PARAMS_MAX {
            return Err(Error::invalid(format!("the statement has more than {PARAMS_MAX} parameters")));
        }
        *text = format!("${number}");
    }
    if styles.iter().filter(|used| **used).count() > 1 {
        return Err(Error::invalid("parameters are either all ?, or all $1, $2, …, or all $name"));
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use crate::domain::sql::tokens::{Tokens, count_operators, tokenize};
    use crate::ports::Limits;

    fn operators(sql: &str) -> u64 {
        let limits = Limits { sql_operators_max: 1_000_000, ..Limits::default() };
        count_operators(&tokenize(sql, &limits).unwrap().tokens)
    }

    #[test]
    fn operators_are_counted_and_signs_in_lists_are_not() {
        assert_eq!(operators("SELECT 1 + 2 + 3"), 3);
        assert_eq!(operators("SELECT a FROM t WHERE a = 1 OR b LIKE 'x' AND NOT c"), 6);
        assert_eq!(operators("SELECT 1 UNION ALL SELECT 2"), 3);
        assert_eq!(operators("SELECT a::INT::TEXT[1]"), 4);
        assert_eq!(operators("INSERT INTO t VALUES (-1, - 2, +3), (-4, -5, -6)"), 1);
    }

    #[test]
    fn nesting_is_counted_by_what_it_costs() {
        let nest = |open: &str, core: &str, close: &str, depth: usize| {
            let sql = format!("SELECT {}{core}{}", open.repeat(depth), close.repeat(depth));
            tokenize(&sql, &Limits::default()).is_ok()
        };
        for (open, core, close) in
            [("(SELECT ", "1", ")"), ("CAST(", "1", " AS TEXT)"), ("CASE WHEN a THEN ", "1", " END")]
        {
            assert!(nest(open, core, close, 8) && !nest(open, core, close, 9), "{open}");
        }
        for (open, core, close) in [("* FROM (SELECT ", "1", ") x"), ("(", "1", ")"), ("abs(", "1", ")")] {
            assert!(nest(open, core, close, 50) && !nest(open, core, close, 51), "{open}");
        }
    }

    #[test]
    fn questions_become_numbers_outside_of_literals() {
        let check = |sql, start: &str, names: &[Option<&str>]| {
            let Tokens { tokens, params } = tokenize(sql, &Limits::default()).unwrap();
            let text: String = tokens.iter().map(|token| token.token.to_string()).collect();
            assert!(text.starts_with(start), "{text}");
            assert_eq!(params.iter().map(Option::as_deref).collect::<Vec<_>>(), names);
        };
        check("SELECT ?, '?', \"?\", ? -- ?", "SELECT $1, '?', \"?\", $2", &[None, None]);
        check("SELECT $2", "SELECT $2", &[None, None]);
        check("SELECT $b, $a, $b", "SELECT $1, $2, $1", &[Some("b"), Some("a")]);
        for mixed in ["SELECT ?, $2", "SELECT $1, $a", "SELECT ?, $a", "SELECT $0", "SELECT $99999999"] {
            assert!(tokenize(mixed, &Limits::default()).is_err(), "{mixed}");
        }
    }

    #[test]
    fn empty_long_and_branched_statements_are_refused() {
        let limits = Limits { sql_bytes_max: 100, sql_operators_max: 3, ..Limits::default() };
        for (sql, word) in
            [("", "empty"), (" ;; -- hi", "empty"), ("SELECT 1+2+3+4", "operators"), ("SELECT '", "not SQL")]
        {
            let error = tokenize(sql, &limits).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
        assert!(tokenize(&"x".repeat(101), &limits).unwrap_err().message().contains("sql_bytes_max"));
    }
}
