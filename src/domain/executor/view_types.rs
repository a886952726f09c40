//! Replaces view types in answers that no table asked for.
//!
//! A column of a view type leaves as one only where it is a bare column of a table that has that type; where an
//! expression made it, it becomes the plain type. Drivers break on types that they did not ask for.

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Column;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, cast};
use std::sync::Arc;

/// Returns the same plan, without view types that an expression made.
///
/// # Errors
///
/// Those of DataFusion where it does not take the casts.
pub fn replace_computed_views(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let schema = plan.schema().clone();
    let made = |index: usize, field: &Field| {
        plain_type(field.data_type()) != *field.data_type() && !is_table_column(&plan, index)
    };
    if !schema.fields().iter().enumerate().any(|(index, field)| made(index, field)) {
        return Ok(plan);
    }
    let columns: Vec<Expr> = schema
        .iter()
        .enumerate()
        .map(|(index, (qualifier, field))| {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            if made(index, field) {
                cast(column, plain_type(field.data_type())).alias_qualified(qualifier.cloned(), field.name())
            } else {
                column
            }
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Returns a type with every view in it replaced.
fn plain_type(data_type: &DataType) -> DataType {
    let plain_field = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

/// Returns whether output column `index` is a table's own column, unchanged.
fn is_table_column(plan: &LogicalPlan, index: usize) -> bool {
    let column_of = |expr: &Expr, input: &LogicalPlan| match expr.clone().unalias_nested().data {
        Expr::Column(column) => {
            input.schema().maybe_index_of_column(&column).is_some_and(|at| is_table_column(input, at))
        }
        _ => false,
    };
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(projection) => column_of(&projection.expr[index], &projection.input),
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group_expr.get(index).is_some_and(|expr| column_of(expr, &aggregate.input))
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => is_table_column(plan.inputs()[0], index),
        LogicalPlan::Window(window) => {
            index < window.input.schema().fields().len() && is_table_column(&window.input, index)
        }
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| is_table_column(input, index)),
        LogicalPlan::Join(join) => {
            let (qualifier, field) = plan.schema().qualified_field(index);
            let column = Column::new(qualifier.cloned(), field.name());
            [&join.left, &join.right]
                .into_iter()
                .any(|side| side.schema().maybe_index_of_column(&column).is_some_and(|at| is_table_column(side, at)))
        }
        _ => false,
    }
}
