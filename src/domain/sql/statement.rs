//! What a statement is, decided on its parsed form by an allow-list.
//!
//! A change or definition is taken apart into what the engine does with it. To be sure that no clause is passed over in
//! silence, what was understood is printed again and compared with the whole: any difference is a clause we don't have.

use crate::domain::sql::ddl::{alter_table, create_table, drop_tables};
use crate::domain::sql::dialect::BoundedDialect;
use crate::domain::sql::dml::{delete, insert, truncate, update};
use crate::domain::sql::guard::{Refused, inspect_changes};
use crate::domain::sql::literals::keep_digits;
use crate::domain::sql::tokens::{Tokens, tokenize};
use crate::ports::{Error, Limits, Result, StatementKind};
use arrow::datatypes::{Field, SchemaRef};
use sqlparser::ast::{self, DescribeAlias, Expr, Ident, ObjectName, ObjectType, Query};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// One statement, understood.
#[derive(Debug)]
pub enum Statement {
    /// A query, or an EXPLAIN of one.
    Read(Box<ast::Statement>),
    /// `SHOW TABLES`
    ShowTables,
    /// `DESCRIBE table`
    Describe(Name),
    /// `INSERT INTO table [(columns)] query`
    Insert(Insert),
    /// `DELETE FROM table [WHERE …]`
    Delete(Delete),
    /// `UPDATE table SET … [WHERE …]`
    Update(Update),
    /// `TRUNCATE [TABLE] table`
    Truncate(Truncate),
    /// `CREATE TABLE table (columns)` or `… AS query`
    CreateTable(CreateTable),
    /// `DROP TABLE table, …`
    DropTables(DropTables),
    /// `ALTER TABLE table …`
    AlterTable(AlterTable),
    /// Understood, and not done here.
    Refused {
        /// What it would be.
        kind: StatementKind,
        /// What to call it.
        what: String,
    },
}

/// One statement, and its parameters.
#[derive(Debug)]
pub struct Parsed {
    /// The statement; its parameters are `$1…$n`.
    pub statement: Statement,
    /// For each of those the name that it had, if it had one.
    pub params: Vec<Option<String>>,
}

/// A name as SQL wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name without quotes.
    pub text: String,
    /// Whether it was quoted, so that its case matters.
    pub quoted: bool,
}

/// `INSERT`
#[derive(Debug)]
pub struct Insert {
    /// Where to.
    pub table: Name,
    /// The columns that `source` fills, all of them where empty.
    pub columns: Vec<Name>,
    /// The rows.
    pub source: Box<Query>,
}

/// `DELETE`
#[derive(Debug)]
pub struct Delete {
    /// Where from.
    pub table: Name,
    /// What the predicate calls it.
    pub alias: Ident,
    /// Which rows; all of them where none.
    pub predicate: Option<Expr>,
}

/// `UPDATE`
#[derive(Debug)]
pub struct Update {
    /// Where.
    pub table: Name,
    /// What the expressions call it.
    pub alias: Ident,
    /// Column and new value.
    pub assignments: Vec<(Name, Expr)>,
    /// Which rows; all of them where none.
    pub predicate: Option<Expr>,
}

/// `TRUNCATE`
#[derive(Debug)]
pub struct Truncate {
    /// The table to empty.
    pub table: Name,
    /// Whether it may be missing.
    pub if_exists: bool,
}

/// `CREATE TABLE`
#[derive(Debug)]
pub struct CreateTable {
    /// Its name.
    pub table: String,
    /// Whether it may be there already, and stays then.
    pub if_not_exists: bool,
    /// Whether it takes the place of one that is there already.
    pub or_replace: bool,
    /// Where its columns come from.
    pub columns: NewColumns,
}

/// What a new table starts with.
#[derive(Debug)]
pub enum NewColumns {
    /// These columns and no rows.
    Listed(SchemaRef),
    /// The columns and rows of a query.
    From(Box<Query>),
}

/// `DROP TABLE`
#[derive(Debug)]
pub struct DropTables {
    /// The tables, all or none of which go.
    pub tables: Vec<Name>,
    /// Whether they may be missing.
    pub if_exists: bool,
}

/// `ALTER TABLE`
#[derive(Debug)]
pub struct AlterTable {
    /// The table.
    pub table: Name,
    /// Whether it may be missing.
    pub if_exists: bool,
    /// What to do, in this order, all or nothing.
    pub alterations: Vec<Alteration>,
}

/// One part of an `ALTER TABLE`.
#[derive(Debug)]
pub enum Alteration {
    /// `ADD COLUMN [IF NOT EXISTS] column`
    Add {
        /// The column.
        field: Field,
        /// Whether it may be there already.
        if_not_exists: bool,
    },
    /// `DROP COLUMN [IF EXISTS] column`
    Drop {
        /// The column.
        column: Name,
        /// Whether it may be missing.
        if_exists: bool,
    },
    /// `RENAME COLUMN from TO to`
    Rename {
        /// Its name.
        from: Name,
        /// Its next name.
        to: String,
    },
}

impl Statement {
    /// What it does.
    pub fn kind(&self) -> StatementKind {
        match self {
            Self::Read(_) | Self::ShowTables | Self::Describe(_) => StatementKind::Read,
            Self::Insert(_) | Self::Delete(_) | Self::Update(_) | Self::Truncate(_) => StatementKind::Change,
            Self::CreateTable(_) | Self::DropTables(_) | Self::AlterTable(_) => StatementKind::Definition,
            Self::Refused { kind, .. } => *kind,
        }
    }
}

/// Parses `sql` as one statement.
///
/// # Errors
///
/// `InvalidQuery` for what is no SQL, too large, or several statements; `Unsupported` for clauses that no part of the
/// engine would honour.
pub fn parse(sql: &str, limits: &Limits) -> Result<Parsed> {
    let Tokens { tokens, params } = tokenize(sql, limits)?;
    // Beyond what the tokens let through: where the parser runs into its own limit, it tries again, and again.
    let depth_max = limits.sql_operators_max.saturating_add(limits.sql_depth_max.saturating_mul(16));
    let depth_max = usize::try_from(depth_max).unwrap_or(usize::MAX);
    let dialect = BoundedDialect::new(tokens.len());
    let mut parser = Parser::new(&dialect).with_recursion_limit(depth_max).with_tokens_with_locations(tokens);
    let parsed = parser.parse_statements();
    let mut statements = parsed.map_err(|error| match error {
        ParserError::RecursionLimitExceeded => Error::invalid("the statement nests too deep (sql_depth_max)"),
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
            keep_digits(&mut statement)?;
            Ok(Parsed { statement: classify(statement)?, params })
        }
        (_, more) => Err(Error::invalid(format!("there are {} statements; send one at a time", more + 1))),
    }
}

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

/// The refusal of a query that is more than a query.
pub(super) fn refusal(query: &Query) -> Option<Statement> {
    match inspect_changes(query) {
        Err(Refused::Change(what) | Refused::Clause(what)) => {
            Some(Statement::Refused { kind: StatementKind::Change, what: what.to_owned() })
        }
        Ok(()) => None,
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

impl Name {
    pub(super) fn of(ident: &Ident) -> Self {
        Self { text: ident.value.clone(), quoted: ident.quote_style.is_some() }
    }
}

/// A table's name; the one schema there is, `public`, may stand before it.
pub(super) fn table_name_of(name: &ObjectName) -> Result<Name> {
    let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    match parts.as_slice() {
        [table] => Ok(Name::of(table)),
        [schema, table] if schema.value.eq_ignore_ascii_case("public") => Ok(Name::of(table)),
        [catalog, schema, table]
            if catalog.value.eq_ignore_ascii_case("zepto") && schema.value.eq_ignore_ascii_case("public") =>
        {
            Ok(Name::of(table))
        }
        _ => Err(Error::invalid(format!("{name} is not the name of a table"))),
    }
}

/// Holds what was understood against the whole statement.
pub(super) fn understood(whole: &str, prints: &[String]) -> Result<()> {
    if prints.iter().any(|print| print == whole) { Ok(()) } else { Err(unsupported(whole)) }
}

pub(super) fn unsupported(whole: &str) -> Error {
    Error::unsupported(format!("a clause of this {} statement is not supported", first_words(whole)))
}

/// `CREATE VIEW`, `SET`, … : the keywords that a statement begins with.
fn first_words(statement: &str) -> String {
    let words = statement.split_whitespace().take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()));
    words.take(2).collect::<Vec<_>>().join(" ")
}
