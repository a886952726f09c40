//! A statement as the engine takes it, and what the files that take statements apart share.
//!
//! To be sure that no clause is silently ignored, what was understood of a change or definition is printed again and
//! compared with the whole statement: any difference is a clause that the engine does not have.

use crate::domain::sql::guard::{Refused, inspect_changes};
use crate::ports::{Error, Result, StatementKind};
use arrow::datatypes::{Field, SchemaRef};
use sqlparser::ast::{self, Expr, Ident, ObjectName, ObjectNamePart, Query};

/// A statement that only reads, as the planner takes it.
pub type ReadStatement = ast::Statement;

/// One statement, taken apart.
#[derive(Debug)]
pub enum Statement {
    /// A query, or an EXPLAIN of one.
    Read(Box<ReadStatement>),
    /// `BACKUP`
    Backup,
    /// `SHOW TABLES`
    ShowTables,
    /// `SHOW FUNCTIONS`
    ShowFunctions,
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
    /// A statement that is understood and not supported.
    Refused {
        /// The kind that it would be.
        kind: StatementKind,
        /// Its name in the error.
        what: String,
    },
}

/// One statement, and its parameters.
#[derive(Debug)]
pub struct Parsed {
    /// The statement; its parameters are `$1…$n`.
    pub statement: Statement,
    /// The name of each parameter, where it had one.
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
    /// The table that takes the rows.
    pub table: Name,
    /// The columns that `source` fills, all of them where empty.
    pub columns: Vec<Name>,
    /// The query or VALUES that gives the rows.
    pub source: Box<ReadStatement>,
}

/// `DELETE`
#[derive(Debug)]
pub struct Delete {
    /// The table that loses the rows.
    pub table: Name,
    /// The name of the table in the predicate.
    pub alias: Ident,
    /// The rows to change; all of them where none.
    pub predicate: Option<Expr>,
}

/// `UPDATE`
#[derive(Debug)]
pub struct Update {
    /// The table that is changed.
    pub table: Name,
    /// The name of the table in the expressions.
    pub alias: Ident,
    /// Column and new value.
    pub assignments: Vec<(Name, Expr)>,
    /// The rows to change; all of them where none.
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
    /// Whether it may exist already, and then stays as it is.
    pub if_not_exists: bool,
    /// Whether it replaces a table that exists already.
    pub or_replace: bool,
    /// Where its columns come from.
    pub columns: NewColumns,
    /// Its time column, where the statement says it.
    pub time: Option<Name>,
}

/// The columns and rows that a new table starts with.
#[derive(Debug)]
pub enum NewColumns {
    /// These columns and no rows.
    Listed(SchemaRef),
    /// The columns and rows of a query.
    From(Box<ReadStatement>),
}

/// `DROP TABLE`
#[derive(Debug)]
pub struct DropTables {
    /// The tables; all of them are dropped, or none.
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
    /// The alterations, made in this order, all or none.
    pub alterations: Vec<Alteration>,
}

/// One part of an `ALTER TABLE`.
#[derive(Debug)]
pub enum Alteration {
    /// `ADD COLUMN [IF NOT EXISTS] column`
    Add {
        /// The column.
        field: Field,
        /// Whether it may exist already.
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
        /// The old name.
        from: Name,
        /// The new name.
        to: String,
    },
}

impl Statement {
    /// Returns the kind of the statement.
    pub fn kind(&self) -> StatementKind {
        match self {
            Self::Read(_) | Self::Backup | Self::ShowTables | Self::ShowFunctions | Self::Describe(_) => {
                StatementKind::Read
            }
            Self::Insert(_) | Self::Delete(_) | Self::Update(_) | Self::Truncate(_) => StatementKind::Change,
            Self::CreateTable(_) | Self::DropTables(_) | Self::AlterTable(_) => StatementKind::Definition,
            Self::Refused { kind, .. } => *kind,
        }
    }
}

/// Returns the refusal of a query that would change something.
pub(super) fn refusal(query: &Query) -> Option<Statement> {
    match inspect_changes(query) {
        Err(Refused::Change(what) | Refused::Clause(what)) => {
            Some(Statement::Refused { kind: StatementKind::Change, what: what.to_owned() })
        }
        Ok(()) => None,
    }
}

impl Name {
    /// Takes over the name of an identifier.
    pub(super) fn of(ident: &Ident) -> Self {
        Self { text: ident.value.clone(), quoted: ident.quote_style.is_some() }
    }
}

/// Returns the last part of a table's name; the only catalog and schema, `zepto.public`, may qualify it.
pub(super) fn table_ident(name: &ObjectName) -> Option<&Ident> {
    let parts: Vec<_> = name.0.iter().filter_map(ObjectNamePart::as_ident).collect();
    match parts.as_slice() {
        [table] => Some(table),
        [schema, table] if schema.value.eq_ignore_ascii_case("public") => Some(table),
        [catalog, schema, table]
            if catalog.value.eq_ignore_ascii_case("zepto") && schema.value.eq_ignore_ascii_case("public") =>
        {
            Some(table)
        }
        _ => None,
    }
}

/// Returns the name of a table that a change or definition is about.
pub(super) fn table_name_of(name: &ObjectName) -> Result<Name> {
    table_ident(name).map(Name::of).ok_or_else(|| Error::invalid(format!("{name} is not a table name")))
}

/// Checks that one of `prints`, which show what was understood, is the whole statement.
pub(super) fn check_understood(whole: &str, prints: &[String]) -> Result<()> {
    if prints.iter().any(|print| print == whole) { Ok(()) } else { Err(unsupported(whole)) }
}

/// Makes the error of a statement with a clause that the engine does not have.
pub(super) fn unsupported(whole: &str) -> Error {
    Error::unsupported(format!("a clause of this {} statement is not supported", first_words(whole)))
}

/// Returns the keywords that a statement begins with: `CREATE VIEW`, `SET`, …
pub(super) fn first_words(statement: &str) -> String {
    let words = statement.split_whitespace().take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()));
    words.take(2).collect::<Vec<_>>().join(" ")
}
