//! Which column is the time of rows, and which plans depend on the order in which they arrived.

use crate::domain::executor::planner_context::NamedTable;
use crate::domain::storage::TIME_NAMES;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Returns the time column of rows: the first TIMESTAMP of a customary name, else the first TIMESTAMP. `relation` chooses among
/// those of a join.
pub fn time_column(schema: &DFSchema, relation: Option<&TableReference>) -> Option<Column> {
    let times = || {
        schema.iter().filter(|(qualifier, field)| {
            matches!(field.data_type(), DataType::Timestamp(..))
                && relation.is_none_or(|wanted| *qualifier == Some(wanted))
        })
    };
    let named = TIME_NAMES.iter().find_map(|name| times().find(|(_, field)| field.name().eq_ignore_ascii_case(name)));
    named.or_else(|| times().next()).map(Column::from)
}

/// Returns the time column of the rows of a plan: the one that a table's definition names, where the plan reads one table and
/// passes its columns on, else that of [`time_column`].
pub fn time_of_plan(plan: &LogicalPlan) -> Option<Column> {
    declared_time(plan)
        .and_then(|time| plan.schema().columns().into_iter().find(|column| column.name == time))
        .or_else(|| time_column(plan.schema(), None))
}

fn declared_time(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => declared_time(&alias.input),
        LogicalPlan::Filter(filter) => declared_time(&filter.input),
        LogicalPlan::Projection(projection) => declared_time(&projection.input).filter(|time| {
            projection.expr.iter().any(|expr| matches!(expr, Expr::Column(column) if column.name == *time))
        }),
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<NamedTable>()?.declared_time().map(str::to_owned),
        _ => None,
    }
}

/// Gives `first(x)` and `last(x)` the time that decides.
#[derive(Debug)]
pub struct TimeColumns;

impl FunctionRewrite for TimeColumns {
    fn name(&self) -> &str {
        "time_columns"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::AggregateFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
        let is_ours = matches!(call.func.name(), "first" | "last") && call.params.args.len() == 1;
        let time = is_ours.then(|| relation_of(&call)).and_then(|relation| time_column(schema, relation.as_ref()));
        Ok(match time {
            Some(time) => {
                call.params.args.push(Expr::Column(time));
                Transformed::yes(Expr::AggregateFunction(call))
            }
            None => Transformed::no(Expr::AggregateFunction(call)),
        })
    }
}

/// Returns the relation that the argument of a call comes from.
fn relation_of(call: &AggregateFunction) -> Option<TableReference> {
    let mut relation = None;
    for arg in &call.params.args {
        let columns = arg.column_refs();
        relation = relation.or_else(|| columns.iter().find_map(|column| column.relation.clone()));
    }
    relation
}

/// Returns whether an answer depends on the order in which rows arrived, so that one core has to read them in it.
///
/// # Errors
///
/// None in fact; walking a plan may fail by its type.
pub fn depends_on_arrival(plan: &LogicalPlan) -> Result<bool> {
    let mut depends = false;
    plan.apply_with_subqueries(|node| {
        depends |= matches!(node, LogicalPlan::Extension(_));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::AggregateFunction(call) = expr {
                    depends |= matches!(
                        call.func.name(),
                        "first"
                            | "last"
                            | "arg_min"
                            | "arg_max"
                            | "selector_first"
                            | "selector_last"
                            | "selector_min"
                            | "selector_max"
                            | "twap"
                    );
                }
                if let Expr::WindowFunction(call) = expr {
                    // Of equal times the one that arrived first comes first.
                    depends |= matches!(call.fun.name(), "ema" | "delta" | "ratio" | "__zepto_ema_by");
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(depends)
}
