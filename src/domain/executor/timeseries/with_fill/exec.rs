//! WITH FILL as an operator: reads rows in their order and writes the missing ones between them, batch by batch.
//!
//! Invariant: the grid of values of a group begins at FROM, else at its first row; rows that do not lie on it stay where they are
//! and do not move it.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use crate::domain::executor::timeseries::with_fill::steps::{Cursor, Steps, Value};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{SortOptions, concat_batches, partition, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt};
use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;
use std::vec;

/// Most rows that one query may fill in.
const FILLED_ROWS_MAX: usize = 20_000_000;

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;

/// A column that orders the rows.
#[derive(Debug, Clone)]
pub struct FillOrder {
    /// Its position.
    pub index: usize,
    /// Its direction and the place of NULLs.
    pub options: SortOptions,
}

/// The operator.
#[derive(Debug)]
pub struct WithFill {
    filled: FillOrder,
    groups: Vec<FillOrder>,
    steps: Steps,
    ordering: LexOrdering,
}

/// The operator in a plan.
pub type WithFillExec = OperatorExec<WithFill>;

impl WithFill {
    /// Makes the operator over rows of `schema`; `groups` are the columns before the filled one.
    ///
    /// # Errors
    ///
    /// None in fact: there is always a column that orders.
    pub fn try_new(filled: FillOrder, groups: Vec<FillOrder>, steps: Steps, schema: &SchemaRef) -> Result<Self> {
        let sort = |order: &FillOrder| {
            let column = Column::new(schema.field(order.index).name(), order.index);
            PhysicalSortExpr::new(Arc::new(column), order.options)
        };
        let sorts = groups.iter().chain([&filled]).map(sort);
        match LexOrdering::new(sorts) {
            Some(ordering) => Ok(Self { filled, groups, steps, ordering }),
            None => internal_err!("WITH FILL has an order"),
        }
    }
}

impl Operator for WithFill {
    const NAME: &'static str = "WithFillExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filled={}, groups={}", self.filled.index, self.groups.len())
    }

    fn ordering(&self) -> Option<LexOrdering> {
        Some(self.ordering.clone())
    }

    fn run(&self, mut run: Run) -> Result<SendableRecordBatchStream> {
        let ([input], schema) = (run.inputs()?, run.schema);
        let filler = Filler {
            filled: self.filled.clone(),
            groups: self.groups.iter().map(|group| group.index).collect(),
            steps: self.steps.clone(),
            schema: schema.clone(),
            rows: None,
            cursor: None,
            is_group_open: false,
            made: 0,
        };
        let batches = stream::try_unfold((filler, input, false), |(mut filler, mut input, mut is_over)| async move {
            loop {
                if let Some(batch) = filler.next(is_over)? {
                    return Ok(Some((batch, (filler, input, is_over))));
                }
                if is_over {
                    return Ok(None);
                }
                match input.next().await {
                    Some(batch) => filler.add(batch?)?,
                    None => is_over = true,
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// A batch that is being read. Its first row is the last one of the batch before, if there was one.
struct Rows {
    batch: RecordBatch,
    values: Vec<Option<Value>>,
    /// Where groups begin, but for the first.
    starts: Peekable<vec::IntoIter<usize>>,
    /// The next row.
    at: usize,
}

struct Filler {
    filled: FillOrder,
    groups: Vec<usize>,
    steps: Steps,
    schema: SchemaRef,
    rows: Option<Rows>,
    /// The next value of the group's grid; none before its first row.
    cursor: Option<Cursor>,
    /// Whether values up to TO are still missing in the group.
    is_group_open: bool,
    /// Rows that were filled in.
    made: usize,
}

/// The rows of a batch in the making: which row each is, or of which row's group.
#[derive(Default)]
struct Made {
    rows: Vec<Option<u32>>,
    groups: Vec<u32>,
    values: Vec<Value>,
}

impl Filler {
    /// Takes the next rows of the input; those before have been answered.
    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (batch, at) = match self.rows.take() {
            Some(before) => {
                let last = before.batch.slice(before.batch.num_rows() - 1, 1);
                (concat_batches(&batch.schema(), [&last, &batch])?, 1)
            }
            None => {
                self.open_group();
                (batch, 0)
            }
        };
        let values = self.steps.values(batch.column(self.filled.index))?;
        let keys: Vec<ArrayRef> = self.groups.iter().map(|group| batch.column(*group).clone()).collect();
        let starts: Vec<usize> = match keys.is_empty() {
            true => Vec::new(),
            false => partition(&keys)?.ranges().iter().skip(1).map(|range| range.start).collect(),
        };
        let starts = starts.into_iter().peekable();
        self.rows = Some(Rows { batch, values, starts, at });
        Ok(())
    }

    fn open_group(&mut self) {
        self.cursor = self.steps.from.map(|from| self.steps.begin(from));
        self.is_group_open = true;
    }

    /// Makes the next batch; none where it needs more input first, or where all is done.
    fn next(&mut self, is_over: bool) -> Result<Option<RecordBatch>> {
        let Some(mut rows) = self.rows.take() else { return Ok(None) };
        let mut made = Made::default();
        while rows.at < rows.values.len() && made.rows.len() < BATCH_ROWS {
            self.step(&mut rows, &mut made)?;
        }
        if rows.at == rows.values.len() && is_over && self.is_group_open {
            self.close_group(rows.at - 1, &mut made)?;
        }
        let batch = if made.rows.is_empty() { None } else { Some(self.batch(&rows.batch, &made)?) };
        self.rows = Some(rows);
        Ok(batch)
    }

    /// Answers the next row, or as many missing ones before it as a batch takes.
    fn step(&mut self, rows: &mut Rows, made: &mut Made) -> Result<()> {
        if rows.starts.peek() == Some(&rows.at) {
            if self.is_group_open && !self.close_group(rows.at - 1, made)? {
                return Ok(());
            }
            rows.starts.next();
            self.open_group();
        }
        let Some(value) = rows.values[rows.at] else {
            // What is missing comes before what no grid has behind it: NULL and NaN.
            if self.is_behind(rows) && self.is_group_open && !self.close_group(rows.at, made)? {
                return Ok(());
            }
            made.row(rows.at, Value::Whole(0));
            rows.at += 1;
            return Ok(());
        };
        let mut cursor = self.cursor.unwrap_or_else(|| self.steps.begin(value));
        while let Some(missing) = cursor.value.filter(|missing| self.is_missing(*missing, Some(value))) {
            if made.rows.len() >= BATCH_ROWS {
                self.cursor = Some(cursor);
                return Ok(());
            }
            self.make(missing, rows.at, made)?;
            self.steps.advance(&mut cursor);
        }
        if cursor.value == Some(value) {
            self.steps.advance(&mut cursor);
        }
        self.cursor = Some(cursor);
        made.row(rows.at, value);
        rows.at += 1;
        Ok(())
    }

    /// Returns whether the next row, which has no value of a grid, stands behind those that have one: NULL as it is asked for, NaN as the
    /// greatest of numbers.
    fn is_behind(&self, rows: &Rows) -> bool {
        let SortOptions { nulls_first, descending } = self.filled.options;
        match rows.batch.column(self.filled.index).is_null(rows.at) {
            true => !nulls_first,
            false => !descending,
        }
    }

    /// Returns whether a value is to be filled in before another one.
    fn is_missing(&self, value: Value, before: Option<Value>) -> bool {
        let ends = before.into_iter().chain(self.steps.to);
        ends.into_iter().all(|end| self.steps.is_before(value, end))
    }

    /// Fills in what is missing up to TO; returns whether that is all.
    fn close_group(&mut self, row: usize, made: &mut Made) -> Result<bool> {
        if let (Some(mut cursor), Some(_)) = (self.cursor, self.steps.to) {
            while let Some(missing) = cursor.value.filter(|missing| self.is_missing(*missing, None)) {
                if made.rows.len() >= BATCH_ROWS {
                    self.cursor = Some(cursor);
                    return Ok(false);
                }
                self.make(missing, row, made)?;
                self.steps.advance(&mut cursor);
            }
        }
        self.is_group_open = false;
        Ok(true)
    }

    fn make(&mut self, value: Value, row: usize, made: &mut Made) -> Result<()> {
        self.made += 1;
        if self.made > FILLED_ROWS_MAX {
            return Err(refused(format!("WITH FILL would make more than {FILLED_ROWS_MAX} rows; take a larger STEP")));
        }
        made.rows.push(None);
        made.groups.push(row as u32);
        made.values.push(value);
        Ok(())
    }

    fn batch(&self, batch: &RecordBatch, made: &Made) -> Result<RecordBatch> {
        let rows = UInt32Array::from(made.rows.clone());
        let groups = UInt32Array::from(made.groups.clone());
        let column = |(at, column): (usize, &ArrayRef)| {
            if at == self.filled.index {
                // Rows that were there keep what they had, NULL and NaN as well.
                let kept = take(column, &rows, None)?;
                let filled = self.steps.column(&made.values)?;
                let is_kept = arrow::compute::is_not_null(&rows)?;
                return Ok(zip(&is_kept, &kept, &filled)?);
            }
            if column.is_empty() {
                return Ok(new_null_array(column.data_type(), rows.len()));
            }
            let of = if self.groups.contains(&at) { &groups } else { &rows };
            Ok(take(column, of, None)?)
        };
        let columns = batch.columns().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl Made {
    fn row(&mut self, row: usize, value: Value) {
        self.rows.push(Some(row as u32));
        self.groups.push(row as u32);
        self.values.push(value);
    }
}
