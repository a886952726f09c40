//! ALTER TABLE: columns come, go and change their names; all parts of a statement or none.
//!
//! Segments are reshaped before the commit; those that arrive meanwhile are reshaped when it is applied, which is little.

use crate::domain::catalog::Change;
use crate::domain::engine::Inner;
use crate::domain::engine::statements::answers::{definition_description, definition_reply};
use crate::domain::engine::statements::matching_rows::column_index;
use crate::domain::engine::statements::{Operation, Request};
use crate::domain::engine::table_rules::table_schema;
use crate::domain::sql::{AlterTable, Alteration};
use crate::domain::storage::{Reshape, Table};
use crate::ports::{BatchStream, Description, Error, ErrorKind, Limits, Result};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use std::sync::Arc;

/// How often an ALTER looks for segments that arrived meanwhile, before its commit takes the last of them.
const CATCH_UP_MAX: usize = 4;

#[async_trait]
impl Operation for AlterTable {
    async fn describe(self: Box<Self>, _: &Arc<Inner>, _: Request) -> Result<Description> {
        Ok(definition_description())
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        let locked = match engine.lock_table(&self.table, &request.query).await {
            Err(error) if self.if_exists && error.kind() == ErrorKind::NotFound => return Ok(definition_reply()),
            locked => locked?,
        };
        let reshape = reshape(&locked.base, &self.alterations, &engine.options.limits)?;
        let mut reshaped = reshape.segments(locked.base.segments(), &engine.allocations)?;
        // What arrives while the rest is reshaped is caught up with here, where it keeps nobody else's commit waiting.
        for _ in 0..CATCH_UP_MAX {
            let snapshot = engine.catalog.current();
            let Some(now) = snapshot.same_table(locked.base.name(), locked.base.id()) else { break };
            let Some(arrived) = now.segments().get(reshaped.len()..).filter(|arrived| !arrived.is_empty()) else {
                break;
            };
            reshaped.extend(reshape.segments(arrived, &engine.allocations)?);
        }
        let change = Change::Alter { table: locked.reference(), reshape, reshaped };
        engine.commit(locked.commit_of(change)).await?;
        Ok(definition_reply())
    }
}

fn reshape(table: &Table, alterations: &[Alteration], limits: &Limits) -> Result<Reshape> {
    let fields = table.schema().fields().iter().enumerate();
    let mut columns: Vec<(Field, Option<usize>)> =
        fields.map(|(at, field)| (field.as_ref().clone(), Some(at))).collect();
    for alteration in alterations {
        apply(&mut columns, alteration)?;
    }
    let (fields, sources): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let reshape = Reshape::new(table_schema(&Schema::new(fields), limits)?, sources);
    reshape.check_rows(table.rows())?;
    Ok(reshape)
}

fn apply(columns: &mut Vec<(Field, Option<usize>)>, alteration: &Alteration) -> Result<()> {
    let schema = Schema::new(columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>());
    let free = |name: &str| match schema.index_of(name) {
        Ok(_) => Err(Error::new(ErrorKind::AlreadyExists, format!("column {name:?} exists already"))),
        Err(_) => Ok(()),
    };
    match alteration {
        Alteration::Add { field, if_not_exists } => match free(field.name()) {
            Err(_) if *if_not_exists => {}
            taken => {
                taken?;
                columns.push((field.clone(), None));
            }
        },
        Alteration::Drop { column, if_exists } => match column_index(&schema, column) {
            Err(_) if *if_exists => {}
            found => {
                columns.remove(found?);
            }
        },
        Alteration::Rename { from, to } => {
            let index = column_index(&schema, from)?;
            if schema.field(index).name() != to {
                free(to)?;
            }
            columns[index].0.set_name(to);
        }
    }
    Ok(())
}
