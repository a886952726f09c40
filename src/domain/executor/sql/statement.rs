//! What a statement is, decided on its parsed form by an allow-list.
//!
//! A change or definition is taken apart into what the engine does with it. To be sure that no clause is passed over in
//! silence, what was understood is printed again and compared with the whole: any difference is a clause we don't have.

use crate::domain::executor::sql::guard::{Catch, inspect};
use crate::domain::executor::sql::tokens::{Tokens, tokenize};
use crate::domain::types::column_type;
use crate::ports::{Error, Limits, Result, StatementKind};
use arrow::datatypes::{Field, Schema, SchemaRef};
use sqlparser::ast::{
    self, AlterTableOperation, AssignmentTarget, ColumnDef, ColumnOption, CreateTableOptions, DescribeAlias, Expr,
    FromTable, Ident, ObjectName, ObjectType, Query, TableFactor, TableObject, TableWithJoins,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use std::sync::Arc;

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
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_recursion_limit(depth_max).with_tokens_with_locations(tokens);
    let mut statements = parser.parse_statements().map_err(|error| match error {
        ParserError::RecursionLimitExceeded => Error::invalid("the statement nests too deep (sql_depth_max)"),
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            Error::invalid(format!("the statement does not parse: {text}"))
        }
    })?;
    match (statements.pop(), statements.len()) {
        (Some(statement), 0) => Ok(Parsed { statement: classify(statement)?, params }),
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
        ast::Statement::Insert(insert) => self::insert(insert, &whole),
        ast::Statement::Delete(delete) => self::delete(delete, &whole),
        ast::Statement::Update(update) => self::update(update, &whole),
        ast::Statement::Truncate(truncate) => self::truncate(&truncate, &whole),
        ast::Statement::CreateTable(create) => create_table(create, &whole),
        ast::Statement::AlterTable(alter) => alter_table(&alter, &whole),
        ast::Statement::Drop { object_type: ObjectType::Table, if_exists, names, .. } => {
            drop_tables(&names, if_exists, &whole)
        }
        _ => Ok(Statement::Refused { kind: StatementKind::Definition, what: first_words(&whole) }),
    }
}

/// The refusal of a query that is more than a query.
fn refusal(query: &Query) -> Option<Statement> {
    inspect(query).map(|catch| match catch {
        Catch::Change(what) => Statement::Refused { kind: StatementKind::Change, what: what.to_owned() },
        Catch::Clause(what) => Statement::Refused { kind: StatementKind::Read, what: what.to_owned() },
    })
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

fn insert(insert: ast::Insert, whole: &str) -> Result<Statement> {
    let (TableObject::TableName(table), Some(source)) = (&insert.table, insert.source) else {
        return Err(unsupported(whole));
    };
    let columns = list(&insert.columns);
    let into = if insert.into { "INTO " } else { "" };
    understood(whole, &[format!("INSERT {into}{table} {columns}{source}")])?;
    if let Some(refused) = refusal(&source) {
        return Ok(refused);
    }
    Ok(Statement::Insert(Insert {
        table: table_name_of(table)?,
        columns: insert.columns.iter().map(column_name_of).collect::<Result<_>>()?,
        source,
    }))
}

/// `(a, b) `, or nothing.
fn list(names: &[ObjectName]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!("({}) ", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn delete(delete: ast::Delete, whole: &str) -> Result<Statement> {
    let FromTable::WithFromKeyword(from) = &delete.from else { return Err(unsupported(whole)) };
    let [from] = from.as_slice() else { return Err(unsupported(whole)) };
    let (table, alias) = plain_table(from, whole)?;
    understood(whole, &[format!("DELETE FROM {from}{}", condition(delete.selection.as_ref()))])?;
    refuse_changes_in(delete.selection.iter())?;
    Ok(Statement::Delete(Delete { table, alias, predicate: delete.selection }))
}

fn update(update: ast::Update, whole: &str) -> Result<Statement> {
    let (table, alias) = plain_table(&update.table, whole)?;
    let set: Vec<_> = update.assignments.iter().map(ToString::to_string).collect();
    let condition = condition(update.selection.as_ref());
    understood(whole, &[format!("UPDATE {} SET {}{condition}", update.table, set.join(", "))])?;
    refuse_changes_in(update.assignments.iter().map(|assignment| &assignment.value).chain(&update.selection))?;
    let assignments = update
        .assignments
        .into_iter()
        .map(|assignment| match &assignment.target {
            AssignmentTarget::ColumnName(name) => Ok((column_name_of(name)?, assignment.value)),
            AssignmentTarget::Tuple(_) => Err(unsupported(whole)),
        })
        .collect::<Result<_>>()?;
    Ok(Statement::Update(Update { table, alias, assignments, predicate: update.selection }))
}

fn condition(predicate: Option<&Expr>) -> String {
    predicate.map(|predicate| format!(" WHERE {predicate}")).unwrap_or_default()
}

/// Changes do not hide in the subqueries of a predicate either.
fn refuse_changes_in<'a>(expressions: impl Iterator<Item = &'a Expr>) -> Result<()> {
    use sqlparser::ast::{Visit, Visitor};
    use std::ops::ControlFlow;
    struct Queries;
    impl Visitor for Queries {
        type Break = Catch;
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Catch> {
            inspect(query).map_or(ControlFlow::Continue(()), ControlFlow::Break)
        }
    }
    for expression in expressions {
        if let ControlFlow::Break(Catch::Change(what) | Catch::Clause(what)) = expression.visit(&mut Queries) {
            return Err(Error::unsupported(format!("{what} is not supported")));
        }
    }
    Ok(())
}

/// The one table of a DELETE or UPDATE, and what it is called there.
fn plain_table(from: &TableWithJoins, whole: &str) -> Result<(Name, Ident)> {
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else { return Err(unsupported(whole)) };
    let plain = alias.as_ref().map_or_else(|| name.to_string(), |alias| format!("{name} {alias}"));
    if from.to_string() != plain || alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return Err(unsupported(whole));
    }
    let table = table_name_of(name)?;
    let own_name = Ident { quote_style: table.quoted.then_some('"'), ..Ident::new(&table.text) };
    Ok((table, alias.as_ref().map_or(own_name, |alias| alias.name.clone())))
}

fn truncate(truncate: &ast::Truncate, whole: &str) -> Result<Statement> {
    let [target] = truncate.table_names.as_slice() else { return Err(unsupported(whole)) };
    let table = if truncate.table { "TABLE " } else { "" };
    let exists = if truncate.if_exists { "IF EXISTS " } else { "" };
    understood(whole, &[format!("TRUNCATE {table}{exists}{}", target.name)])?;
    Ok(Statement::Truncate(Truncate { table: table_name_of(&target.name)?, if_exists: truncate.if_exists }))
}

fn create_table(create: ast::CreateTable, whole: &str) -> Result<Statement> {
    let replace = if create.or_replace { "OR REPLACE " } else { "" };
    let exists = if create.if_not_exists { "IF NOT EXISTS " } else { "" };
    let head = format!("CREATE {replace}TABLE {exists}{}", create.name);
    if create.table_options != CreateTableOptions::None {
        return Err(unsupported(whole));
    }
    let columns = match create.query {
        Some(query) => {
            understood(whole, &[format!("{head} AS {query}")])?;
            if let Some(refused) = refusal(&query) {
                return Ok(refused);
            }
            NewColumns::From(query)
        }
        None => {
            let columns: Vec<_> = create.columns.iter().map(ToString::to_string).collect();
            understood(whole, &[format!("{head} ({})", columns.join(", "))])?;
            NewColumns::Listed(new_schema(&create.columns)?)
        }
    };
    Ok(Statement::CreateTable(CreateTable {
        table: table_name_of(&create.name)?.text,
        if_not_exists: create.if_not_exists,
        or_replace: create.or_replace,
        columns,
    }))
}

fn new_schema(columns: &[ColumnDef]) -> Result<SchemaRef> {
    let fields = columns.iter().map(new_field).collect::<Result<Vec<_>>>()?;
    for (at, field) in fields.iter().enumerate() {
        if fields[..at].iter().any(|other| other.name() == field.name()) {
            return Err(Error::invalid(format!("column {:?} comes twice", field.name())));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn new_field(column: &ColumnDef) -> Result<Field> {
    let mut nullable = true;
    for option in &column.options {
        match &option.option {
            ColumnOption::Null => nullable = true,
            ColumnOption::NotNull => nullable = false,
            other => return Err(Error::unsupported(format!("column option {other} is not supported"))),
        }
    }
    Ok(Field::new(&column.name.value, column_type(&column.data_type)?, nullable))
}

fn drop_tables(names: &[ObjectName], if_exists: bool, whole: &str) -> Result<Statement> {
    let exists = if if_exists { "IF EXISTS " } else { "" };
    let listed = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    understood(whole, &["", " RESTRICT"].map(|tail| format!("DROP TABLE {exists}{listed}{tail}")))?;
    Ok(Statement::DropTables(DropTables { tables: names.iter().map(table_name_of).collect::<Result<_>>()?, if_exists }))
}

fn alter_table(alter: &ast::AlterTable, whole: &str) -> Result<Statement> {
    let exists = if alter.if_exists { "IF EXISTS " } else { "" };
    let operations = alter.operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    understood(whole, &[format!("ALTER TABLE {exists}{} {operations}", alter.name)])?;
    let mut alterations = Vec::new();
    for operation in &alter.operations {
        match operation {
            AlterTableOperation::AddColumn { if_not_exists, column_def, column_position: None, .. } => {
                let field = new_field(column_def)?;
                alterations.push(Alteration::Add { field, if_not_exists: *if_not_exists });
            }
            AlterTableOperation::DropColumn { column_names, if_exists, drop_behavior: None, .. } => {
                alterations.extend(
                    column_names.iter().map(|name| Alteration::Drop { column: Name::of(name), if_exists: *if_exists }),
                );
            }
            AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                let to = new_column_name.value.clone();
                alterations.push(Alteration::Rename { from: Name::of(old_column_name), to });
            }
            _ => return Err(unsupported(whole)),
        }
    }
    Ok(Statement::AlterTable(AlterTable {
        table: table_name_of(&alter.name)?,
        if_exists: alter.if_exists,
        alterations,
    }))
}

impl Name {
    fn of(ident: &Ident) -> Self {
        Self { text: ident.value.clone(), quoted: ident.quote_style.is_some() }
    }
}

/// A table's name; the one schema there is, `public`, may stand before it.
fn table_name_of(name: &ObjectName) -> Result<Name> {
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

fn column_name_of(name: &ObjectName) -> Result<Name> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(Name::of),
        _ => None,
    }
    .ok_or_else(|| Error::invalid(format!("{name} is not the name of a column")))
}

/// Holds what was understood against the whole statement.
fn understood(whole: &str, prints: &[String]) -> Result<()> {
    if prints.iter().any(|print| print == whole) { Ok(()) } else { Err(unsupported(whole)) }
}

fn unsupported(whole: &str) -> Error {
    Error::unsupported(format!("a clause of this {} statement is not supported", first_words(whole)))
}

/// `CREATE VIEW`, `SET`, … : the keywords that a statement begins with.
fn first_words(statement: &str) -> String {
    let words = statement.split_whitespace().take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()));
    words.take(2).collect::<Vec<_>>().join(" ")
}
