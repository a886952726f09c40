//! ALTER TABLE: columns come, go and change their names; all parts of a statement or none.
//!
//! The segments are rebuilt outside of the catalogue's lock; what arrived meanwhile is rebuilt inside, which is little.

use crate::domain::engine::Inner;
use crate::domain::engine::change::{Held, column_index};
use crate::domain::engine::define::defined;
use crate::domain::engine::ingest::table_schema;
use crate::domain::sql::{AlterTable, Alteration};
use crate::domain::storage::{Segment, Table};
use crate::ports::{BatchStream, Error, ErrorKind, Limits, Query, Result};
use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

/// The next schema, and where each of its columns comes from; none is a column of nulls.
struct Reshape {
    schema: SchemaRef,
    sources: Vec<Option<usize>>,
}

impl Inner {
    /// Alters a table.
    pub(super) async fn alter_table(self: &Arc<Self>, alter: AlterTable, query: &Query) -> Result<BatchStream> {
        let Held { name, base, changing: _changing, .. } = match self.hold(&alter.table, query).await {
            Err(error) if alter.if_exists && error.kind() == ErrorKind::NotFound => return Ok(defined()),
            held => held?,
        };
        let reshape = Reshape::new(&base, &alter.alterations, &self.options.limits)?;
        let rebuilt = self.rebuild(&reshape, base.segments())?;
        self.catalog.publish(|present| {
            let now = present.table(&name)?;
            if now.id() != base.id() {
                return Err(Error::new(ErrorKind::NotFound, format!("table {name:?} was dropped meanwhile")));
            }
            reshape.check_rows(now)?;
            let mut segments = rebuilt;
            segments.extend(self.rebuild(&reshape, &now.segments()[base.segments().len()..])?);
            Ok((vec![(name.clone(), Some(now.reshaped(reshape.schema.clone(), segments)))], ()))
        })?;
        Ok(defined())
    }

    fn rebuild(&self, reshape: &Reshape, segments: &[Arc<Segment>]) -> Result<Vec<Arc<Segment>>> {
        let rebuilt = segments.iter().map(|segment| reshape.batch(segment.batch()));
        // Columns that come take memory; without any, what is rebuilt only takes the place of what was there.
        let grows = reshape.sources.contains(&None);
        rebuilt
            .map(|batch| match grows {
                true => Segment::try_new(batch?, &self.budget),
                false => Ok(Segment::replacing(batch?, &self.budget)),
            })
            .collect()
    }
}

impl Reshape {
    fn new(table: &Table, alterations: &[Alteration], limits: &Limits) -> Result<Self> {
        let old = table.schema();
        let mut columns: Vec<(Field, Option<usize>)> =
            old.fields().iter().enumerate().map(|(at, field)| (field.as_ref().clone(), Some(at))).collect();
        for alteration in alterations {
            apply(&mut columns, alteration)?;
        }
        let (fields, sources): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let reshape = Self { schema: table_schema(&Schema::new(fields), limits)?, sources };
        reshape.check_rows(table)?;
        Ok(reshape)
    }

    /// A column that may not be null can only be added while there are no rows.
    fn check_rows(&self, table: &Table) -> Result<()> {
        let added = self.schema.fields().iter().zip(&self.sources).filter(|(_, source)| source.is_none());
        match added.map(|(field, _)| field).find(|field| !field.is_nullable()) {
            Some(field) if table.rows() > 0 => Err(Error::mismatch(format!(
                "column {:?} may not be null, and {} rows would have no value for it",
                field.name(),
                table.rows()
            ))),
            _ => Ok(()),
        }
    }

    fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let column = |(field, source): (&Arc<Field>, &Option<usize>)| match source {
            Some(index) => batch.column(*index).clone(),
            None => new_null_array(field.data_type(), rows),
        };
        let columns = self.schema.fields().iter().zip(&self.sources).map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::internal("a segment could not be altered").with_source(error))
    }
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
