//! SQL as tokens: where statements end, and what to complete and highlight.
//!
//! For typing only: the server decides what a statement means.

/// Keywords that are completed and highlighted.
pub const KEYWORDS: [&str; 90] = [
    "ADD",
    "ALIGN",
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "ASC",
    "ASOF",
    "BETWEEN",
    "BIGINT",
    "BY",
    "CALENDAR",
    "CASE",
    "CAST",
    "COLUMN",
    "COUNT",
    "CREATE",
    "CROSS",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FILL",
    "FLOAT64",
    "FROM",
    "FULL",
    "FUNCTIONS",
    "GROUP",
    "HAVING",
    "HORIZON",
    "IF",
    "IN",
    "INNER",
    "INSERT",
    "INT64",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATEST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATCH_CONDITION",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PLUS",
    "PREVAILING",
    "QUALIFY",
    "RANGE",
    "RENAME",
    "RIGHT",
    "ROWS",
    "SAMPLE",
    "SELECT",
    "SET",
    "SHOW",
    "SPLICE",
    "SYMBOL",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP_NS",
    "TO",
    "TOLERANCE",
    "TRUE",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// A kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A name or keyword.
    Word,
    /// A number.
    Number,
    /// A literal or a quoted name.
    Quoted,
    /// A comment.
    Comment,
    /// The end of a statement.
    End,
    /// Anything else.
    Other,
}

/// Splits `text` into tokens, which together are all of it.
pub fn tokenize(text: &str) -> Vec<(TokenKind, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = match first {
            '\'' | '"' => (TokenKind::Quoted, quoted_length(rest, first)),
            '-' if rest.starts_with("--") => (TokenKind::Comment, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (TokenKind::Comment, rest.find("*/").map_or(rest.len(), |at| at + 2)),
            ';' => (TokenKind::End, 1),
            _ if first.is_ascii_digit() => {
                (TokenKind::Number, run_length(rest, |sign| sign.is_ascii_alphanumeric() || sign == '.'))
            }
            _ if first.is_alphabetic() || first == '_' => {
                (TokenKind::Word, run_length(rest, |sign| sign.is_alphanumeric() || sign == '_'))
            }
            _ => (TokenKind::Other, first.len_utf8()),
        };
        tokens.push((kind, &rest[..length]));
        rest = &rest[length..];
    }
    tokens
}

fn run_length(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|sign| !belongs(sign)).unwrap_or(text.len())
}

/// Returns the length of a literal up to its closing quote. A doubled quote closes it and opens the next.
fn quoted_length(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |at| at + 2)
}

/// Splits `text` into statements without their semicolons, and leaves out empty ones.
pub fn split_statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    for (kind, token) in tokenize(text) {
        at += token.len();
        if kind == TokenKind::End {
            found.push(&text[start..at - 1]);
            start = at;
        }
    }
    found.push(&text[start..]);
    let has_tokens = |statement: &&str| {
        tokenize(statement).iter().any(|(kind, token)| *kind != TokenKind::Comment && !token.trim().is_empty())
    };
    found.into_iter().map(str::trim).filter(has_tokens).collect()
}

/// Returns whether the last statement of `text` has its semicolon.
pub fn is_complete(text: &str) -> bool {
    let tokens = tokenize(text);
    let last = tokens.iter().rev().find(|(kind, token)| *kind != TokenKind::Comment && !token.trim().is_empty());
    last.is_none_or(|(kind, _)| *kind == TokenKind::End)
}

/// Returns whether a word is a keyword.
pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use crate::lexer::{is_complete, split_statements, tokenize};

    #[test]
    fn statements_end_at_semicolons_that_mean_it() {
        assert_eq!(split_statements("SELECT 1; SELECT ';' -- ; no\n; ;"), ["SELECT 1", "SELECT ';' -- ; no"]);
        assert_eq!(split_statements("/* ; */ SELECT 'it''s;' AS \"a;b\""), ["/* ; */ SELECT 'it''s;' AS \"a;b\""]);
        assert!(split_statements(" -- nothing\n").is_empty());
        for text in ["SELECT 'ü;", "\"", "--", "/*", "'", "1.5e3 _a"] {
            assert_eq!(tokenize(text).iter().map(|(_, piece)| *piece).collect::<String>(), text);
        }
    }

    #[test]
    fn a_statement_is_complete_with_its_semicolon() {
        assert!(is_complete("SELECT 1;") && is_complete("SELECT 1; -- done") && is_complete(""));
        assert!(!is_complete("SELECT 1") && !is_complete("SELECT ';") && !is_complete("SELECT 1; SELECT 2"));
    }
}
