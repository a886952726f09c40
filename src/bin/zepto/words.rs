//! SQL as words: where a statement ends, and what may be completed or highlighted.
//!
//! This is about typing, not about meaning: the server decides what a statement is.

/// Words that are worth completing and highlighting.
pub const KEYWORDS: [&str; 72] = [
    "ADD",
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BIGINT",
    "BY",
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
    "FLOAT64",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
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
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "RENAME",
    "RIGHT",
    "SELECT",
    "SET",
    "SHOW",
    "SYMBOL",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP_NS",
    "TO",
    "TRUE",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
];

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
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

/// The parts of `text`, which together are all of it.
pub fn parts(text: &str) -> Vec<(Part, &str)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (part, length) = match first {
            '\'' | '"' => (Part::Quoted, quoted(rest, first)),
            '-' if rest.starts_with("--") => (Part::Comment, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (Part::Comment, rest.find("*/").map_or(rest.len(), |at| at + 2)),
            ';' => (Part::End, 1),
            _ if first.is_ascii_digit() => {
                (Part::Number, run(rest, |sign| sign.is_ascii_alphanumeric() || sign == '.'))
            }
            _ if first.is_alphabetic() || first == '_' => {
                (Part::Word, run(rest, |sign| sign.is_alphanumeric() || sign == '_'))
            }
            _ => (Part::Other, first.len_utf8()),
        };
        parts.push((part, &rest[..length]));
        rest = &rest[length..];
    }
    parts
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|sign| !belongs(sign)).unwrap_or(text.len())
}

/// Length of a literal up to its closing quote; a doubled quote closes and opens again, which comes to the same.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |at| at + 2)
}

/// The statements of `text`, without what ends them. Empty ones are none.
pub fn statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    for (part, piece) in parts(text) {
        at += piece.len();
        if part == Part::End {
            found.push(&text[start..at - 1]);
            start = at;
        }
    }
    found.push(&text[start..]);
    let says_something = |statement: &&str| {
        parts(statement).iter().any(|(part, piece)| *part != Part::Comment && !piece.trim().is_empty())
    };
    found.into_iter().map(str::trim).filter(says_something).collect()
}

/// Whether the last statement of `text` has its end.
pub fn is_whole(text: &str) -> bool {
    let parts = parts(text);
    let last = parts.iter().rev().find(|(part, piece)| *part != Part::Comment && !piece.trim().is_empty());
    last.is_none_or(|(part, _)| *part == Part::End)
}

/// Whether a word is a keyword.
pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use crate::words::{is_whole, parts, statements};

    #[test]
    fn statements_end_at_semicolons_that_mean_it() {
        assert_eq!(statements("SELECT 1; SELECT ';' -- ; no\n; ;"), ["SELECT 1", "SELECT ';' -- ; no"]);
        assert_eq!(statements("/* ; */ SELECT 'it''s;' AS \"a;b\""), ["/* ; */ SELECT 'it''s;' AS \"a;b\""]);
        assert!(statements(" -- nothing\n").is_empty());
        for text in ["SELECT 'ü;", "\"", "--", "/*", "'", "1.5e3 _a"] {
            assert_eq!(parts(text).iter().map(|(_, piece)| *piece).collect::<String>(), text);
        }
    }

    #[test]
    fn a_statement_is_whole_when_its_end_was_typed() {
        assert!(is_whole("SELECT 1;") && is_whole("SELECT 1; -- done") && is_whole(""));
        assert!(!is_whole("SELECT 1") && !is_whole("SELECT ';") && !is_whole("SELECT 1; SELECT 2"));
    }
}
