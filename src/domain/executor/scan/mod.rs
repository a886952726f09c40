//! The table scan: reads the segments of one table state.
//!
//! Batches leave as they lie in memory: a projection picks columns, a long segment is handed out in slices, nothing is
//! copied, unless so many rows between others are deleted that copying the rest costs less than many small slices.
//! Partitions are runs of neighbouring segments, so one partition is the whole table in arrival order. Filters only serve
//! to leave out segments; DataFusion filters rows.
//!
//! Rows have two positions: one among the rows that are left, by which parts and limits count, and one among all rows of the
//! segment, deleted ones included, by which they lie in memory and by which row numbers count.

mod bounds;
mod conditions;
mod loading;
mod narrow;
mod output;
mod pieces;
mod symbols;

pub use conditions::NarrowScans;

use crate::domain::executor::prune::may_match;
use crate::domain::executor::scan::loading::loaded_slices;
use crate::domain::executor::scan::narrow::{narrowed, time_bounds};
use crate::domain::executor::scan::output::{CodedColumn, Output};
use crate::domain::executor::scan::pieces::{Piece, partition};
use crate::domain::executor::scan::symbols::{WantedSymbols, wanted_rows};
use crate::domain::sql::ROW_NUMBER;
use crate::domain::storage::{Segment, Table};
use crate::ports::Part;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::StreamExt;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Rows of one batch on its way through a plan: they fill a message of 2 MiB where a row has 32 bytes.
pub const BATCH_ROWS: usize = 65_536;

/// How a scan hands out NaNs that have a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nans {
    /// With all of their bits: for plans that compute nothing.
    AsStored,
    /// Without the sign, so that all NaNs compare, group and sort as one value.
    Unsigned,
}

/// A table as DataFusion reads it.
#[derive(Debug)]
pub struct SegmentTable {
    table: Arc<Table>,
    schema: SchemaRef,
    /// Positions of the rows that are read, without the deleted ones.
    wanted: Range<u64>,
    nans: Nans,
}

/// Returns the columns of `table`, with [`ROW_NUMBER`] as the last one if `numbered`.
pub fn scan_schema(table: &Table, numbered: bool) -> SchemaRef {
    if !numbered {
        return table.schema().clone();
    }
    let mut fields = table.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(ROW_NUMBER, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

impl SegmentTable {
    /// Makes the provider of `table`, or of that part of its rows, with [`ROW_NUMBER`] as its last column if
    /// `numbered`.
    pub fn new(table: Arc<Table>, numbered: bool, part: Option<Part>, nans: Nans) -> Self {
        let schema = scan_schema(&table, numbered);
        let wanted = match part {
            Some(part) => part.rows_of(table.rows()),
            None => 0..table.rows(),
        };
        Self { table, schema, wanted, nans }
    }

    /// Picks the segments that may hold rows for `filters`, up to `limit` rows if every row counts.
    fn pieces(&self, state: &dyn Session, filters: &[Expr], limit: Option<usize>) -> Vec<Piece> {
        let segments = self.table.segments();
        let may_match = may_match(segments, self.table.schema(), filters, state);
        let times = time_bounds(filters, self.table.schema());
        // With filters the scan cannot know which rows count for the limit.
        let mut left = if filters.is_empty() { limit.unwrap_or(usize::MAX) } else { usize::MAX };
        let (mut first_row, mut first_left) = (0, 0);
        let mut pieces = Vec::new();
        for (segment, may_match) in segments.iter().zip(may_match) {
            let segment_rows = segment.rows() as u64;
            let within = |row: u64| row.clamp(first_left, first_left + segment_rows) - first_left;
            let (from, to) = (within(self.wanted.start) as usize, within(self.wanted.end) as usize);
            let rows = to.saturating_sub(from).min(left);
            if may_match && rows > 0 {
                let range = physical_range(segment, from..from + rows);
                let (range, rows) = match segment.mask() {
                    None => {
                        let range = narrowed(segment, range, &times);
                        (range.clone(), range.len())
                    }
                    Some(_) => (range, rows),
                };
                // A piece has a first and a last row.
                if rows > 0 {
                    pieces.push(Piece { segment: segment.clone(), first_row, range, rows, picked: None });
                }
                left = left.saturating_sub(rows);
            }
            first_left += segment_rows;
            first_row += segment.physical_rows() as u64;
        }
        pieces
    }
}

/// Returns where in a segment those of its rows lie that are left, counted without the deleted ones.
fn physical_range(segment: &Segment, rows: Range<usize>) -> Range<usize> {
    match segment.mask() {
        None => rows,
        // Behind the last row, rather than at the next one that is left.
        Some(mask) => mask.position(rows.start)..mask.position(rows.end - 1) + 1,
    }
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let partitions = partition(self.pieces(state, filters, limit), state.config().target_partitions());
        Ok(Arc::new(ScanExec::new(self.table.clone(), schema, columns, partitions, self.nans)))
    }
}

/// The physical scan.
#[derive(Debug)]
pub struct ScanExec {
    table: Arc<Table>,
    columns: Vec<usize>,
    /// Columns of text that are handed out by their codes.
    coded: Vec<CodedColumn>,
    /// The symbols whose rows alone are read.
    wanted: Option<WantedSymbols>,
    partitions: Vec<Vec<Piece>>,
    nans: Nans,
    /// Rows of one batch at most.
    batch_rows: usize,
    properties: Arc<PlanProperties>,
}

impl ScanExec {
    fn new(table: Arc<Table>, schema: SchemaRef, columns: Vec<usize>, partitions: Vec<Vec<Piece>>, nans: Nans) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (coded, wanted, batch_rows) = (Vec::new(), None, BATCH_ROWS);
        Self { table, columns, coded, wanted, partitions, nans, batch_rows, properties: Arc::new(properties) }
    }

    /// Returns the same scan over other rows of the table.
    fn with_partitions(&self, partitions: Vec<Vec<Piece>>) -> Self {
        let scan = Self::new(self.table.clone(), self.schema(), self.columns.clone(), partitions, self.nans);
        Self { coded: self.coded.clone(), wanted: self.wanted.clone(), batch_rows: self.batch_rows, ..scan }
    }

    /// Returns the same scan with batches as large as segments: for who keeps them all.
    pub fn in_whole_segments(&self) -> Self {
        Self { batch_rows: usize::MAX, ..self.with_partitions(self.partitions.clone()) }
    }

    /// Returns the same scan with column `at` of its own once more behind the others, as a dictionary by codes; none where
    /// the column has no codes.
    pub fn with_codes(&self, at: usize) -> Option<Self> {
        self.coded(at, self.schema().fields().len())
    }

    /// Returns the same scan with codes in the place of column `at`, which so is not read; none where the column has none.
    pub fn with_codes_alone(&self, at: usize) -> Option<Self> {
        self.coded(at, at)
    }

    fn coded(&self, at: usize, place: usize) -> Option<Self> {
        let column = *self.columns.get(at)?;
        let symbols = self.table.symbols(column)?;
        let dictionary = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(symbols.value_type()));
        let field = Arc::new(Field::new(format!("__zepto_code_{place}"), dictionary, true));
        let mut fields = self.schema().fields().to_vec();
        match fields.get_mut(place) {
            Some(known) => *known = field,
            None => fields.push(field),
        }
        let (schema, columns) = (Arc::new(Schema::new(fields)), self.columns.clone());
        let made = Self::new(self.table.clone(), schema, columns, self.partitions.clone(), self.nans);
        let coded = CodedColumn { column, place, values: symbols.values(), symbols };
        let coded = self.coded.iter().cloned().chain([coded]).collect();
        Some(Self { coded, wanted: self.wanted.clone(), batch_rows: self.batch_rows, ..made })
    }

    /// Returns the values of the column that is read by its codes last.
    pub fn symbols(&self) -> Option<ArrayRef> {
        self.coded.last().map(|coded| coded.values.clone())
    }

    /// Returns whether there are more rows than one core should read alone.
    pub fn has_many_rows(&self) -> bool {
        self.rows(None) > BATCH_ROWS
    }

    /// Returns how many rows it looks at.
    pub fn rows_max(&self) -> usize {
        self.rows(None)
    }

    fn rows(&self, partition: Option<usize>) -> usize {
        let all = self.partitions.iter().enumerate();
        let chosen = all.filter(|(index, _)| partition.is_none_or(|wanted| wanted == *index));
        chosen.flat_map(|(_, pieces)| pieces).map(|piece| piece.rows).sum()
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments: usize = self.partitions.iter().map(Vec::len).sum();
        let partitions = self.partitions.len();
        write!(f, "ScanExec: segments={segments}, rows={}, partitions={partitions}", self.rows(None))?;
        match &self.wanted {
            Some(wanted) => write!(f, ", symbols={}", wanted.count()),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let output = Output {
            schema: schema.clone(),
            columns: self.columns.clone(),
            coded: self.coded.clone(),
            nans: self.nans,
        };
        let pieces = self.partitions[partition].clone();
        if let Some(wanted) = &self.wanted {
            let batches = wanted_rows(pieces, wanted.clone(), output);
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)));
        }
        let batches = loaded_slices(pieces, output.read_columns(), self.batch_rows);
        let batches = batches.map(move |slice| slice?.batch(&output));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        let rows = self.rows(args.partition());
        statistics.num_rows = match &self.wanted {
            None => Precision::Exact(rows),
            // Which side of a join is kept, and how it is shared out, hangs on it.
            Some(wanted) => Precision::Inexact((rows as f64 * wanted.share()).ceil() as usize),
        };
        if args.partition().is_none() {
            for (at, statistics) in statistics.column_statistics.iter_mut().enumerate() {
                if let Some([least, most]) = self.bounds(at) {
                    (statistics.min_value, statistics.max_value) = (Precision::Exact(least), Precision::Exact(most));
                }
            }
        }
        Ok(Arc::new(statistics))
    }
}
