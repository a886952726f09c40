//! kdb's `aj(trades, quotes, 'symbol', 'timestamp')` in FROM: a left ASOF JOIN by the columns of those names, the last of them the time.

use crate::domain::sql::timeseries::cursor::{Cursor, make_word, punctuation};
use crate::ports::{Error, Result};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Writes every `aj(…)` of a statement as the join that it is.
///
/// # Errors
///
/// `InvalidQuery` for other arguments than two tables and names of columns.
pub fn rewrite_aj(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    if !Cursor::mentions(&tokens, &["AJ"]) {
        return Ok(tokens);
    }
    let mut cursor = Cursor::new(tokens);
    while !cursor.is_at_end() {
        let is_relation = cursor.follows(&["FROM", "JOIN"], &[Token::Comma, Token::LParen]);
        if is_relation && cursor.is_word(0, "AJ") && cursor.is_token(1, &Token::LParen) {
            cursor.skip(2);
            let join = join(&mut cursor)?;
            cursor.emit(join);
        } else {
            cursor.copy(1);
        }
    }
    Ok(cursor.finish())
}

fn join(cursor: &mut Cursor) -> Result<Vec<TokenWithSpan>> {
    let wrong = || Error::invalid("aj takes two tables, keys and a time: aj(trades, quotes, 'symbol', 'timestamp')");
    // After a parenthesis a table may be another `aj(…)`.
    let mut join = rewrite_aj([vec![punctuation(Token::LParen)], cursor.table_factor()].concat())?;
    if !cursor.is_token(0, &Token::Comma) {
        return Err(wrong());
    }
    cursor.skip(1);
    join.extend(["ASOF", "LEFT", "JOIN"].map(make_word));
    join.extend(rewrite_aj(cursor.table_factor())?);
    join.extend([make_word("USING"), punctuation(Token::LParen)]);
    let mut names = 0;
    while cursor.is_token(0, &Token::Comma) {
        cursor.skip(1);
        if names > 0 {
            join.push(punctuation(Token::Comma));
        }
        names += 1;
        let mut name = cursor.take(1).pop().ok_or_else(wrong)?;
        name.token = match name.token {
            Token::SingleQuotedString(text) => Token::make_word(&text, Some('"')),
            word @ Token::Word(_) => word,
            _ => return Err(wrong()),
        };
        join.push(name);
    }
    if names == 0 || !cursor.is_token(0, &Token::RParen) {
        return Err(wrong());
    }
    cursor.skip(1);
    join.extend([punctuation(Token::RParen), punctuation(Token::RParen)]);
    Ok(join)
}
