//! Filters above scans: conditions that a scan keeps itself, or that all of its rows fulfil, are not computed.
//!
//! A filter for symbols is kept by their codes, where there are some; a filter by a column of times or whole numbers is known to hold
//! where the first and the last value of every segment's rows fulfil it. What cannot be proved stays a filter.

use crate::domain::executor::scan::ScanExec;
use crate::domain::executor::scan::pieces::Piece;
use crate::domain::executor::scan::symbols::WantedSymbols;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use std::sync::Arc;

/// Takes conditions out of filters that the scan below keeps.
#[derive(Debug)]
pub struct NarrowScans;

impl PhysicalOptimizerRule for NarrowScans {
    fn name(&self) -> &str {
        "NarrowScans"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let made = node.downcast_ref::<FilterExec>().map(narrowed).transpose()?.flatten();
            Ok(made.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn narrowed(filter: &FilterExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = filter.input().downcast_ref::<ScanExec>() else { return Ok(None) };
    if filter.projection().is_some() || filter.fetch().is_some() {
        return Ok(None);
    }
    let mut narrower: Option<ScanExec> = None;
    let conditions = split_conjunction(filter.predicate());
    let mut left: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(conditions.len());
    for condition in &conditions {
        let scan = narrower.as_ref().unwrap_or(scan);
        if let Some(of_symbols) = scan.of_symbols(condition) {
            narrower = Some(of_symbols);
        } else if !scan.fulfils(condition) {
            left.push((*condition).clone());
        }
    }
    if left.len() == conditions.len() {
        return Ok(None);
    }
    let input = narrower.map_or_else(|| filter.input().clone(), |scan| Arc::new(scan) as Arc<dyn ExecutionPlan>);
    if left.is_empty() {
        return Ok(Some(input));
    }
    let builder =
        FilterExecBuilder::new(conjunction(left), input).with_default_selectivity(filter.default_selectivity());
    Ok(Some(Arc::new(builder.with_batch_size(filter.batch_size()).build()?)))
}

impl ScanExec {
    /// Returns the same scan of the rows that fulfil `condition`, where that asks for some values of a column that has codes.
    fn of_symbols(&self, condition: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let mut values = Vec::new();
        let column = *self.columns.get(symbols_of(condition, &mut values)?)?;
        if self.wanted.is_some() {
            return None;
        }
        let wanted = WantedSymbols::new(column, self.table.symbols(column)?, &values);
        Some(Self { wanted: Some(wanted), ..self.with_partitions(self.partitions.clone()) })
    }

    /// Returns whether it is known that every row fulfils a comparison of a column of times or whole numbers with a constant.
    fn fulfils(&self, condition: &Arc<dyn PhysicalExpr>) -> bool {
        let Some(binary) = condition.downcast_ref::<BinaryExpr>() else { return false };
        let sides = (binary.left().downcast_ref::<Column>(), binary.right().downcast_ref::<Literal>());
        let (Some(column), Some(literal)) = sides else { return false };
        let data_type = self.schema().field(column.index()).data_type().clone();
        let Some(index) = self.columns.get(column.index()) else { return false };
        let is_ordered = data_type.is_temporal() || data_type.is_integer();
        if !is_ordered || literal.value().is_null() || literal.value().data_type() != data_type {
            return false;
        }
        let fulfils = |piece: &Piece| {
            let [least, most] = bounds_of(piece, *index)?;
            Some(match binary.op() {
                Operator::Gt => least > *literal.value(),
                Operator::GtEq => least >= *literal.value(),
                Operator::Lt => most < *literal.value(),
                Operator::LtEq => most <= *literal.value(),
                _ => false,
            })
        };
        self.partitions.iter().flatten().all(|piece| fulfils(piece) == Some(true))
    }
}

/// Returns the least and the greatest value of a column among the rows of a piece, or bounds beyond those; none where some have no value.
fn bounds_of(piece: &Piece, column: usize) -> Option<[ScalarValue; 2]> {
    if column >= piece.segment.columns().schema().fields().len() || piece.segment.null_count(column) > 0 {
        return None;
    }
    if piece.segment.is_in_order(column) && piece.picked.is_none() {
        return piece.ends(column);
    }
    let bounds = piece.segment.bounds(column)?;
    Some([ScalarValue::try_from_array(bounds, 0).ok()?, ScalarValue::try_from_array(bounds, 1).ok()?])
}

/// Collects the values that a condition asks for, and returns the one column that it asks for them: `=`, IN, or several of those by OR.
fn symbols_of<'a>(condition: &'a Arc<dyn PhysicalExpr>, values: &mut Vec<&'a str>) -> Option<usize> {
    if let Some(list) = condition.downcast_ref::<InListExpr>().filter(|list| !list.negated()) {
        for item in list.list() {
            values.push(text_of(item)?);
        }
        return Some(list.expr().downcast_ref::<Column>()?.index());
    }
    let binary = condition.downcast_ref::<BinaryExpr>()?;
    match binary.op() {
        Operator::Eq => {
            let (column, literal) = match binary.left().downcast_ref::<Column>() {
                Some(column) => (column, binary.right()),
                None => (binary.right().downcast_ref::<Column>()?, binary.left()),
            };
            values.push(text_of(literal)?);
            Some(column.index())
        }
        Operator::Or => {
            let left = symbols_of(binary.left(), values)?;
            (symbols_of(binary.right(), values)? == left).then_some(left)
        }
        _ => None,
    }
}

/// Returns the text of a constant; none for what is no text, and for NULL, which no row is equal to.
fn text_of(constant: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    constant.downcast_ref::<Literal>()?.value().try_as_str()?
}
