//! `CREATE TABLE … TIMESTAMP(ts)` (QuestDB): says which column is a table's time.
//!
//! It becomes the option `WITH (time = 'ts')`, which the parser knows and which is the clause's other spelling.

use crate::domain::sql::timeseries::cursor::{make_word, punctuation, text};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Rewrites the clause where a CREATE TABLE ends with it; any other statement stays as it is.
pub fn rewrite_time_clause(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let solid: Vec<usize> = (0..tokens.len()).filter(|at| !is_space(&tokens[*at])).collect();
    let end = solid.iter().rposition(|at| !matches!(tokens[*at].token, Token::EOF | Token::SemiColon));
    let Some(clause) = end.and_then(|end| solid.get(end.checked_sub(4)?..=end)) else { return tokens };
    let &[before, timestamp, open, column, close] = clause else { return tokens };
    let is = |at: usize, token: &Token| tokens[at].token == *token;
    let is_clause = is(before, &Token::RParen) && is_word(&tokens[timestamp], "TIMESTAMP") && is(open, &Token::LParen);
    let Token::Word(name) = &tokens[column].token else { return tokens };
    if !is_clause || !is(close, &Token::RParen) || !is_word(&tokens[solid[0]], "CREATE") {
        return tokens;
    }
    let name = text(&name.value);
    let option = [make_word("WITH"), punctuation(Token::LParen), make_word("time"), punctuation(Token::Eq), name];
    tokens.drain(timestamp..=close);
    // The option stands before AS and its query, the clause behind them.
    let place = query_begins(&tokens).unwrap_or(timestamp);
    tokens.splice(place..place, option.into_iter().chain([punctuation(Token::RParen)]));
    tokens
}

/// Returns where the AS of a CREATE TABLE AS stands.
fn query_begins(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && is_word(token, "AS")
    })
}

fn is_word(token: &TokenWithSpan, expected: &str) -> bool {
    match &token.token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected),
        _ => false,
    }
}
