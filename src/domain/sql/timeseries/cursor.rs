//! Walks over the tokens of a statement and writes others in their place.

use crate::ports::{Error, Result};
use sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// Words that end a table, a condition or a span, beside those that the parser reserves.
const CLAUSES: &str = "AJ0 ASOF CLUSTER CROSS DISTRIBUTE EXCEPT EXCLUDE FETCH FILL FOR FORMAT FULL GROUP HAVING HORIZON INCLUDE INNER \
    INTERSECT JOIN LATEST LEFT LIMIT LT NATURAL OFFSET ON ORDER PLUS PREWHERE QUALIFY RANGE RIGHT SAMPLE SETTINGS \
    SORT SPLICE TOLERANCE UNION USING WHERE WINDOW ALIGN MATCH_CONDITION";

/// Words that are a clause only before another one: they may also name a column or an alias.
const FOLLOWED: &[(&str, &[&str])] = &[
    ("AJ0", &["JOIN"]),
    ("LT", &["JOIN"]),
    ("PLUS", &["JOIN"]),
    ("SPLICE", &["JOIN"]),
    ("HORIZON", &["JOIN"]),
    ("LATEST", &["ON"]),
    ("RANGE", &["BETWEEN", "FROM"]),
    ("INCLUDE", &["PREVAILING"]),
    ("EXCLUDE", &["PREVAILING"]),
    ("SAMPLE", &["BY"]),
    ("ALIGN", &["TO"]),
];

/// Tokens without white space, and what has been written so far.
pub struct Cursor {
    tokens: Vec<TokenWithSpan>,
    at: usize,
    written: Vec<TokenWithSpan>,
}

/// Makes a word.
pub fn make_word(word: &str) -> TokenWithSpan {
    punctuation(Token::make_word(word, None))
}

/// Makes a text.
pub fn text(text: &str) -> TokenWithSpan {
    punctuation(Token::SingleQuotedString(text.to_owned()))
}

/// Makes a number.
pub fn number(digits: &str) -> TokenWithSpan {
    punctuation(Token::Number(digits.to_owned(), false))
}

/// Makes any other token.
pub fn punctuation(token: Token) -> TokenWithSpan {
    TokenWithSpan::new(token, Span::empty())
}

/// Makes a call of a function.
pub fn call(name: &str, args: Vec<Vec<TokenWithSpan>>) -> Vec<TokenWithSpan> {
    let mut tokens = vec![make_word(name), punctuation(Token::LParen)];
    for (at, arg) in args.into_iter().enumerate() {
        if at > 0 {
            tokens.push(punctuation(Token::Comma));
        }
        tokens.extend(arg);
    }
    tokens.push(punctuation(Token::RParen));
    tokens
}

fn word(token: &TokenWithSpan) -> Option<&str> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
        _ => None,
    }
}

impl Cursor {
    /// Returns whether any of `words` is in a statement, whatever it means there.
    pub fn mentions(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
        tokens.iter().filter_map(word).any(|found| words.iter().any(|word| word.eq_ignore_ascii_case(found)))
    }

    /// Starts at the first token.
    pub fn new(tokens: Vec<TokenWithSpan>) -> Self {
        let tokens = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
        Self { tokens, at: 0, written: Vec::new() }
    }

    /// Returns what was written.
    pub fn finish(self) -> Vec<TokenWithSpan> {
        self.written
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|token| &token.token)
    }

    /// Returns whether a token is this word, and no part of a qualified name.
    pub fn is_word(&self, ahead: usize, expected: &str) -> bool {
        let at = self.at + ahead;
        let is_word = self.tokens.get(at).and_then(word).is_some_and(|word| word.eq_ignore_ascii_case(expected));
        let before = at.checked_sub(1).and_then(|before| self.tokens.get(before));
        let after = self.tokens.get(at + 1);
        let is_period = |token: Option<&TokenWithSpan>| token.is_some_and(|token| token.token == Token::Period);
        is_word && !is_period(before) && !is_period(after)
    }

    /// Returns whether a word names a table here: AS stands before it, or it qualifies a column somewhere.
    pub fn is_alias(&self, name: &str) -> bool {
        let follows_as = self.at > 0
            && self.tokens.get(self.at - 1).and_then(word).is_some_and(|word| word.eq_ignore_ascii_case("AS"));
        let qualifies = self.tokens.windows(2).any(|pair| {
            word(&pair[0]).is_some_and(|word| word.eq_ignore_ascii_case(name)) && pair[1].token == Token::Period
        });
        follows_as || qualifies
    }

    /// Returns whether one of these words or tokens stands before.
    pub fn follows(&self, words: &[&str], tokens: &[Token]) -> bool {
        let Some(before) = self.at.checked_sub(1).and_then(|before| self.tokens.get(before)) else { return false };
        tokens.contains(&before.token)
            || word(before).is_some_and(|found| words.iter().any(|word| word.eq_ignore_ascii_case(found)))
    }

    /// Returns whether a token is this one.
    pub fn is_token(&self, ahead: usize, expected: &Token) -> bool {
        self.token(ahead) == Some(expected)
    }

    pub fn skip(&mut self, count: usize) {
        self.at += count;
    }

    pub fn copy(&mut self, count: usize) {
        let taken = self.take(count);
        self.emit(taken);
    }

    pub fn emit(&mut self, tokens: Vec<TokenWithSpan>) {
        self.written.extend(tokens);
    }

    pub fn take(&mut self, count: usize) -> Vec<TokenWithSpan> {
        let end = (self.at + count).min(self.tokens.len());
        let taken = self.tokens[self.at..end].to_vec();
        self.at = end;
        taken
    }

    /// Takes a table, function or query with its alias.
    pub fn table_factor(&mut self) -> Vec<TokenWithSpan> {
        let mut taken = Vec::new();
        if self.is_word(0, "LATERAL") {
            taken.extend(self.take(1));
        }
        if self.token(0) != Some(&Token::LParen) {
            taken.extend(self.take(1));
            while self.token(0) == Some(&Token::Period) {
                taken.extend(self.take(2));
            }
        }
        if self.token(0) == Some(&Token::LParen) {
            taken.extend(self.balanced());
        }
        let has_as = self.is_word(0, "AS");
        if has_as || (matches!(self.token(0), Some(Token::Word(_))) && !self.is_clause()) {
            taken.extend(self.take(1 + usize::from(has_as)));
            if self.token(0) == Some(&Token::LParen) {
                taken.extend(self.balanced());
            }
        }
        taken
    }

    /// Takes a pair of parentheses with all between them.
    fn balanced(&mut self) -> Vec<TokenWithSpan> {
        let (mut depth, mut count) = (0_usize, 0);
        while let Some(token) = self.token(count) {
            count += 1;
            match token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        self.take(count)
    }

    /// Takes what is between a pair of parentheses.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where there is none.
    pub fn parenthesised(&mut self) -> Result<Vec<TokenWithSpan>> {
        let mut taken = self.balanced();
        if taken.len() < 3 || taken[0].token != Token::LParen {
            return Err(Error::invalid("the statement does not parse: expected (…)"));
        }
        taken.pop();
        taken.remove(0);
        Ok(taken)
    }

    /// Returns whether a clause begins here.
    fn is_clause(&self) -> bool {
        self.is_clause_at(0)
    }

    fn is_clause_at(&self, ahead: usize) -> bool {
        let Some(Token::Word(found)) = self.token(ahead) else { return false };
        let next = self.token(ahead + 1);
        if found.quote_style.is_some() || next == Some(&Token::Period) {
            return false;
        }
        let is = |word: &&str| found.value.eq_ignore_ascii_case(word);
        if let Some((_, followers)) = FOLLOWED.iter().find(|(word, _)| is(word)) {
            return followers.iter().any(|follower| self.is_word(ahead + 1, follower));
        }
        if is(&"LIST") {
            return next == Some(&Token::LParen);
        }
        // `a IS DISTINCT FROM b` and `CASE … END` are parts of a condition.
        let before = (self.at + ahead).checked_sub(1).and_then(|before| self.tokens.get(before)).and_then(word);
        if is(&"END") || (is(&"FROM") && before.is_some_and(|before| before.eq_ignore_ascii_case("DISTINCT"))) {
            return false;
        }
        let is_call = next == Some(&Token::LParen) && matches!(found.keyword, Keyword::LEFT | Keyword::RIGHT);
        !is_call && (CLAUSES.split(' ').any(|word| is(&word)) || RESERVED_FOR_TABLE_ALIAS.contains(&found.keyword))
    }

    /// Takes tokens up to the next clause, comma or closing parenthesis.
    pub fn until_clause(&mut self) -> Vec<TokenWithSpan> {
        self.until(|cursor| cursor.is_clause() || cursor.token(0) == Some(&Token::Comma))
    }

    /// Takes tokens up to the next clause or closing parenthesis.
    pub fn until_clause_with_commas(&mut self) -> Vec<TokenWithSpan> {
        self.until(Self::is_clause)
    }

    /// Takes tokens up to the next clause, `word`, comma or closing parenthesis.
    pub fn until_clause_or(&mut self, word: &str) -> Vec<TokenWithSpan> {
        self.until(|cursor| cursor.is_clause() || cursor.is_word(0, word) || cursor.token(0) == Some(&Token::Comma))
    }

    /// Takes tokens up to one of `words`, or a closing parenthesis.
    pub fn until_words(&mut self, words: &[&str]) -> Vec<TokenWithSpan> {
        self.until(|cursor| words.iter().any(|word| cursor.is_word(0, word)))
    }

    fn until(&mut self, is_end: impl Fn(&Self) -> bool) -> Vec<TokenWithSpan> {
        let mut taken = Vec::new();
        loop {
            match self.token(0) {
                None | Some(Token::EOF | Token::SemiColon | Token::RParen | Token::RBracket | Token::RBrace) => {
                    return taken;
                }
                _ if is_end(self) => return taken,
                Some(Token::LParen | Token::LBracket | Token::LBrace) => taken.extend(self.balanced()),
                _ => taken.extend(self.take(1)),
            }
        }
    }

    /// Takes `2s` or `2 seconds`, in the form of `2s`; none where something else stands here.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an unknown unit.
    pub fn counted_span(&mut self) -> Result<Option<String>> {
        let Some(Token::Number(digits, _)) = self.token(0) else { return Ok(None) };
        let digits = digits.replace('_', "");
        let Some(unit) = self.tokens.get(self.at + 1).and_then(word) else { return Ok(None) };
        let lower = unit.to_ascii_lowercase();
        let letter = match lower.trim_end_matches('s') {
            _ if unit.len() == 1 => unit,
            "nanosecond" => "n",
            "microsecond" => "U",
            "millisecond" => "T",
            "second" => "s",
            "minute" => "m",
            "hour" => "h",
            "day" => "d",
            "week" => "w",
            "month" => "M",
            "year" => "y",
            // A number alone, of nanoseconds.
            "preceding" | "following" | "and" => return Ok(None),
            _ if self.is_clause_at(1) => return Ok(None),
            _ => return Err(Error::invalid(format!("unknown unit of time {unit:?}"))),
        };
        let span = format!("{digits}{letter}");
        self.skip(2);
        Ok(Some(span))
    }

    /// Takes a span with a sign, in nanoseconds; a number without unit is nanoseconds.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for what is no span, or one of months.
    pub fn signed_span_ns(&mut self) -> Result<i64> {
        let is_negative = self.token(0) == Some(&Token::Minus);
        if is_negative {
            self.skip(1);
        }
        let wrong = || Error::invalid("a span of time is missing, such as 2s");
        let has_unit = self.tokens.get(self.at + 1).and_then(word).is_some_and(|word| word.len() == 1);
        let span = match (self.token(0), has_unit) {
            (Some(Token::Number(..)), true) => self.counted_span()?.ok_or_else(wrong)?,
            (Some(Token::Number(digits, _)), false) => {
                let span = format!("{digits}n");
                self.skip(1);
                span
            }
            _ => return Err(wrong()),
        };
        let (digits, unit) = span.split_at(span.len() - 1);
        let unit_ns = match unit {
            "n" => 1,
            "U" | "u" => 1_000,
            "T" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000_i64,
            "w" => 604_800_000_000_000,
            _ => return Err(Error::invalid(format!("{span:?} is no span of fixed length"))),
        };
        let count = digits.parse::<i64>().map_err(|_| wrong())?;
        let ns = count
            .checked_mul(unit_ns)
            .ok_or_else(|| Error::invalid(format!("{span:?} is beyond 64 bits of nanoseconds")))?;
        Ok(if is_negative { -ns } else { ns })
    }

    /// Takes `(0, 2s, …)`, in nanoseconds.
    ///
    /// # Errors
    ///
    /// Those of [`Cursor::signed_span_ns`].
    pub fn span_list_ns(&mut self) -> Result<Vec<i64>> {
        let mut spans = Vec::new();
        let mut separator = Token::LParen;
        while self.token(0) == Some(&separator) {
            self.skip(1);
            spans.push(self.signed_span_ns()?);
            separator = Token::Comma;
        }
        match self.token(0) {
            Some(Token::RParen) => {
                self.skip(1);
                Ok(spans)
            }
            _ => Err(Error::invalid("a list of spans is missing, such as (0, 2s)")),
        }
    }
}
