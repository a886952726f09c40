//! Rules out segments that cannot match a filter, by the statistics of their columns.

use crate::domain::storage::Segment;
use arrow::array::{ArrayRef, BooleanArray, UInt64Array, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use std::collections::HashSet;
use std::sync::Arc;

/// Returns for every segment whether it may hold a row that passes all of `filters`; true when in doubt.
pub fn may_match(segments: &[Arc<Segment>], schema: &SchemaRef, filters: &[Expr], state: &dyn Session) -> Vec<bool> {
    let everything = || vec![true; segments.len()];
    let Some(filter) = conjunction(filters.to_vec()) else { return everything() };
    let decide = || {
        let columns = DFSchema::try_from(schema.as_ref().clone())?;
        let filter = state.create_physical_expr(filter, &columns)?;
        let predicate = PruningPredicateBuilder::new().with_file_schema(schema.clone()).try_build(filter)?;
        predicate.prune(&SegmentStatistics { segments, schema })
    };
    // A filter that statistics cannot decide is not an error: rows are filtered later in any case.
    decide().unwrap_or_else(|_| everything())
}

/// The statistics of the segments, in the shape that DataFusion asks for.
struct SegmentStatistics<'a> {
    segments: &'a [Arc<Segment>],
    schema: &'a SchemaRef,
}

impl SegmentStatistics<'_> {
    /// Returns the smallest (`end` 0) or largest (1) value of a column for every segment.
    fn bounds(&self, column: &Column, end: usize) -> Option<ArrayRef> {
        let index = self.schema.index_of(&column.name).ok()?;
        let unknown = new_null_array(self.schema.field(index).data_type(), 1);
        let values: Vec<ArrayRef> = self
            .segments
            .iter()
            .map(|segment| segment.bounds(index).map_or_else(|| unknown.clone(), |bounds| bounds.slice(end, 1)))
            .collect();
        concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>()).ok()
    }
}

impl PruningStatistics for SegmentStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, 0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, 1)
    }

    fn num_containers(&self) -> usize {
        self.segments.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let index = self.schema.index_of(&column.name).ok()?;
        let counts = self.segments.iter().map(|segment| segment.null_count(index) as u64);
        Some(Arc::new(UInt64Array::from_iter_values(counts)))
    }

    // Deleted rows are counted in, here as in the counts of nulls: both are bounds of the same rows.
    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(
            self.segments.iter().map(|segment| segment.physical_rows() as u64),
        )))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
