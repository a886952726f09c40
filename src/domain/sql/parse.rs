//! Parses SQL and decides what a statement is.
//!
//! The decision is made on the parsed form, by an allow-list: whatever is not listed in `classify` is refused.

use crate::domain::sql::ddl::{alter_table, create_table, drop_tables};
use crate::domain::sql::dialect::BoundedDialect;
use crate::domain::sql::dml::{delete, insert, truncate, update};
use crate::domain::sql::literals::keep_digits;
use crate::domain::sql::statement::{Parsed, Statement, first_words, refusal, table_name_of};
use crate::domain::sql::timeseries::{
    nest_joins, rewrite_aj, rewrite_expressions, rewrite_fills, rewrite_joins, rewrite_time_clause,
};
use crate::domain::sql::tokens::{Tokens, tokenize};
use crate::ports::{Error, Limits, Result, StatementKind};
use sqlparser::ast::{self, DescribeAlias, ObjectType};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// Parses `sql` as one statement.
///
/// # Errors
///
/// `InvalidQuery` for text that is not SQL, too large, or several statements; `Unsupported` for clauses that the engine
/// would ignore.
pub fn parse(sql: &str, limits: &Limits) -> Result<Parsed> {
    let Tokens { tokens, params } = tokenize(sql, limits)?;
    if is_backup(&tokens) {
        return Ok(Parsed { statement: Statement::Backup, params });
    }
    let tokens = rewrite_joins(rewrite_aj(rewrite_time_clause(tokens))?)?;
    // More than `tokenize` lets through: when the parser meets its own limit it backtracks and tries again, many times.
    let depth_max = limits.sql_operators_max.saturating_add(limits.sql_depth_max.saturating_mul(16));
    let depth_max = usize::try_from(depth_max).unwrap_or(usize::MAX);
    let dialect = BoundedDialect::new(tokens.len());
    let mut parser = Parser::new(&dialect).with_recursion_limit(depth_max).with_tokens_with_locations(tokens);
    let parsed = parser.parse_statements();
    let mut statements = parsed.map_err(|error| match error {
        ParserError::RecursionLimitExceeded => Error::invalid("the statement is nested too deeply (sql_depth_max)"),
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            Error::invalid(format!("the statement does not parse: {text}"))
        }
    })?;
    // The parser stops at a stray END as if the text were over.
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(Error::invalid(format!("the statement does not parse: unexpected {rest}{}", rest.span.start)));
    }
    match (statements.pop(), statements.len()) {
        (Some(mut statement), 0) => {
            rewrite_expressions(&mut statement)?;
            rewrite_fills(&mut statement)?;
            nest_joins(&mut statement)?;
            keep_digits(&mut statement)?;
            Ok(Parsed { statement: classify(statement)?, params })
        }
        (_, more) => Err(Error::invalid(format!("there are {} statements; send one at a time", more + 1))),
    }
}

/// Returns whether a statement is the one word that is a statement of its own here.
fn is_backup(tokens: &[TokenWithSpan]) -> bool {
    let is_blank = |token: &Token| matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF);
    let mut words = tokens.iter().map(|token| &token.token).filter(|token| !is_blank(token));
    let first = words.next();
    let is_word = |word: &Word| word.quote_style.is_none() && word.value.eq_ignore_ascii_case("backup");
    matches!(first, Some(Token::Word(word)) if is_word(word)) && words.next().is_none()
}

/// Takes a parsed statement apart, or refuses it.
fn classify(statement: ast::Statement) -> Result<Statement> {
    let whole = statement.to_string();
    match statement {
        ast::Statement::Query(query) => Ok(match refusal(&query) {
            Some(refused) => refused,
            None => Statement::Read(Box::new(ast::Statement::Query(query))),
        }),
        ast::Statement::Explain { .. } => explain(statement),
        ast::Statement::ExplainTable { table_name, .. } => Ok(Statement::Describe(table_name_of(&table_name)?)),
        ast::Statement::ShowTables { .. } if whole == "SHOW TABLES" => Ok(Statement::ShowTables),
        ast::Statement::ShowFunctions { filter: None } => Ok(Statement::ShowFunctions),
        ast::Statement::Insert(this) => insert(this, &whole),
        ast::Statement::Delete(this) => delete(this, &whole),
        ast::Statement::Update(this) => update(this, &whole),
        ast::Statement::Truncate(this) => truncate(&this, &whole),
        ast::Statement::CreateTable(this) => create_table(this, &whole),
        ast::Statement::AlterTable(this) => alter_table(&this, &whole),
        ast::Statement::Drop { object_type: ObjectType::Table, if_exists, names, .. } => {
            drop_tables(&names, if_exists, &whole)
        }
        _ => Ok(Statement::Refused { kind: StatementKind::Definition, what: first_words(&whole) }),
    }
}

fn explain(statement: ast::Statement) -> Result<Statement> {
    let ast::Statement::Explain {
        describe_alias: DescribeAlias::Explain,
        query_plan: false,
        estimate: false,
        options: None,
        statement: explained,
        ..
    } = &statement
    else {
        return Ok(Statement::Refused { kind: StatementKind::Read, what: first_words(&statement.to_string()) });
    };
    match explained.as_ref() {
        ast::Statement::Query(query) => Ok(match refusal(query) {
            Some(refused) => refused,
            None => Statement::Read(Box::new(statement)),
        }),
        _ => Ok(Statement::Refused { kind: StatementKind::Change, what: "EXPLAIN of a change".to_owned() }),
    }
}
