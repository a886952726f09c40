//! The statements: each in a file of its own, which can describe it and execute it.
//!
//! The one `match` over all statements is [`operation`]; whoever teaches the engine another statement adds a file and a line.

mod alter_table;
mod answers;
mod backup;
mod create_table;
mod delete;
mod drop_tables;
mod exchange;
mod insert;
mod matching_rows;
mod select;
mod show;
mod truncate;
mod update;

use crate::domain::catalog::Snapshot;
use crate::domain::engine::Inner;
use crate::domain::sql::Statement;
use crate::ports::{BatchStream, Description, Error, Query, Result};
use async_trait::async_trait;
use std::sync::Arc;

/// What a statement is to be described or executed with.
#[derive(Debug)]
pub struct Request {
    /// The query that it came in, with its parameters in order.
    pub query: Query,
    /// The state that it reads.
    pub snapshot: Arc<Snapshot>,
    /// For each parameter of the statement the name that it had, if it had one.
    pub parameters: Vec<Option<String>>,
}

impl Request {
    /// Returns whether the statement has parameters without values: it can only be described.
    pub fn is_unbound(&self) -> bool {
        self.query.params.is_none() && !self.parameters.is_empty()
    }

    /// Returns whether another part of the answer than the first one is wanted, in which what cannot be divided is not.
    fn is_later_part(&self) -> bool {
        self.query.part.is_some_and(|part| part.index() > 0)
    }
}

/// One statement.
#[async_trait]
pub trait Operation: Send {
    /// Says what the statement would do and answer, without executing it.
    async fn describe(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<Description>;

    /// Executes the statement.
    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream>;
}

/// Returns what describes and executes a statement.
///
/// # Errors
///
/// `Unsupported` for one that is refused.
pub fn operation(statement: Statement) -> Result<Box<dyn Operation>> {
    Ok(match statement {
        Statement::Read(statement) => Box::new(select::Select(*statement)),
        Statement::Backup => Box::new(backup::Backup),
        Statement::ShowTables => Box::new(show::ShowTables),
        Statement::ShowFunctions => Box::new(show::ShowFunctions),
        Statement::Describe(table) => Box::new(show::DescribeTable(table)),
        Statement::Insert(insert) => Box::new(insert),
        Statement::Update(update) => Box::new(update),
        Statement::Delete(delete) => Box::new(delete),
        Statement::Truncate(truncate) => Box::new(truncate),
        Statement::CreateTable(create) => Box::new(create),
        Statement::DropTables(drop) => Box::new(drop),
        Statement::AlterTable(alter) => Box::new(alter),
        Statement::Refused { what, .. } => return Err(Error::unsupported(format!("{what} is not supported"))),
    })
}
