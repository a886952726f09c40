//! Takes apart the statements that define tables: CREATE, DROP and ALTER TABLE.

use crate::domain::sql::statement::{
    AlterTable, Alteration, CreateTable, DropTables, Name, NewColumns, Statement, check_understood, refusal,
    table_name_of, unsupported,
};
use crate::domain::sql::types::column_type;
use crate::ports::{Error, Result};
use arrow::datatypes::{Field, Schema, SchemaRef};
use sqlparser::ast::{
    self, AlterTableOperation, ColumnDef, ColumnOption, CreateTableOptions, Expr, ObjectName, SqlOption, Value,
    ValueWithSpan,
};
use std::sync::Arc;

pub(super) fn create_table(create: ast::CreateTable, whole: &str) -> Result<Statement> {
    let replace = if create.or_replace { "OR REPLACE " } else { "" };
    let exists = if create.if_not_exists { "IF NOT EXISTS " } else { "" };
    let head = format!("CREATE {replace}TABLE {exists}{}", create.name);
    let (time, options) = match &create.table_options {
        CreateTableOptions::None => (None, String::new()),
        CreateTableOptions::With(options) => (Some(time_option(options)?), format!(" {}", create.table_options)),
        _ => return Err(unsupported(whole)),
    };
    let columns = match create.query {
        Some(query) => {
            check_understood(whole, &[format!("{head}{options} AS {query}")])?;
            if let Some(refused) = refusal(&query) {
                return Ok(refused);
            }
            NewColumns::From(Box::new(ast::Statement::Query(query)))
        }
        None => {
            let columns: Vec<_> = create.columns.iter().map(ToString::to_string).collect();
            check_understood(whole, &[format!("{head} ({}){options}", columns.join(", "))])?;
            NewColumns::Listed(new_schema(&create.columns)?)
        }
    };
    Ok(Statement::CreateTable(CreateTable {
        table: table_name_of(&create.name)?.text,
        if_not_exists: create.if_not_exists,
        or_replace: create.or_replace,
        columns,
        time,
    }))
}

/// Reads `WITH (time = 'ts')`, the only option that a table has.
fn time_option(options: &[SqlOption]) -> Result<Name> {
    let [SqlOption::KeyValue { key, value }] = options else {
        return Err(Error::unsupported("CREATE TABLE has one option: WITH (time = 'column')"));
    };
    if !key.value.eq_ignore_ascii_case("time") {
        let text = format!("option {key} of CREATE TABLE is not supported; there is time, the name of the time column");
        return Err(Error::unsupported(text));
    }
    match value {
        Expr::Identifier(ident) => Ok(Name::of(ident)),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
            Ok(Name { text: text.clone(), quoted: false })
        }
        other => Err(Error::invalid(format!("the option time is the name of a column, not {other}"))),
    }
}

fn new_schema(columns: &[ColumnDef]) -> Result<SchemaRef> {
    let fields = columns.iter().map(new_field).collect::<Result<Vec<_>>>()?;
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

pub(super) fn drop_tables(names: &[ObjectName], if_exists: bool, whole: &str) -> Result<Statement> {
    let exists = if if_exists { "IF EXISTS " } else { "" };
    let listed = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    check_understood(whole, &["", " RESTRICT"].map(|tail| format!("DROP TABLE {exists}{listed}{tail}")))?;
    Ok(Statement::DropTables(DropTables { tables: names.iter().map(table_name_of).collect::<Result<_>>()?, if_exists }))
}

pub(super) fn alter_table(alter: &ast::AlterTable, whole: &str) -> Result<Statement> {
    let exists = if alter.if_exists { "IF EXISTS " } else { "" };
    let operations = alter.operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    check_understood(whole, &[format!("ALTER TABLE {exists}{} {operations}", alter.name)])?;
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
