//! Fills gaps: reads all groups, and answers each with every bucket, group by group, in order of time; some groups at a time.

use crate::domain::executor::error::refused;
use crate::domain::executor::time_units::unit_ns;
use crate::domain::executor::timeseries::buckets::{Buckets, too_coarse};
use crate::domain::executor::timeseries::gaps::node::{Fill, Filled};
use crate::domain::executor::timeseries::keys::{KeyCodes, key_type};
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use crate::domain::storage::slice_bytes;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Most rows that filling may make.
const GRID_ROWS_MAX: usize = 20_000_000;

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;

/// What is filled, and how.
#[derive(Debug, Clone)]
pub struct GapPlan {
    /// The buckets.
    pub buckets: Buckets,
    /// Position of the bucket's start in the input.
    pub time: usize,
    /// Number of the group's columns.
    pub groups: usize,
    /// The aggregates, and the columns beside them.
    pub filled: Vec<Filled>,
    /// The first instant, and the one behind the last; those of the rows where none.
    pub bounds: [Option<i64>; 2],
}

/// The filling of gaps in a plan.
pub type GapFillExec = OperatorExec<GapPlan>;

impl Operator for GapPlan {
    const NAME: &'static str = "GapFillExec";

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "groups={}", self.groups)
    }

    fn run(&self, mut run: Run) -> Result<SendableRecordBatchStream> {
        let [mut input] = run.inputs()?;
        let Run { schema, memory, .. } = run;
        let (plan, made) = (self.clone(), schema.clone());
        let batches = stream::once(async move {
            let mut batches = Vec::new();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                let bytes = batch.columns().iter().map(|column| slice_bytes(column.as_ref())).sum::<u64>();
                memory.try_grow(2 * bytes as usize)?;
                batches.push(batch);
            }
            let all = concat_batches(&input.schema(), &batches)?;
            let groups = Groups::new(all, plan, &memory)?;
            let piece = memory.new_empty();
            Ok::<_, DataFusionError>(stream::try_unfold(
                (groups, 0, memory, piece),
                move |(mut groups, from, memory, piece)| {
                    let schema = made.clone();
                    async move {
                        if from == groups.ends.len() {
                            return Ok::<_, DataFusionError>(None);
                        }
                        // Others run between two pieces.
                        tokio::task::consume_budget().await;
                        let codes = groups.next_piece(from);
                        let (to, filled) = (codes.end, groups.fill(codes, &schema, &piece)?);
                        Ok(Some((filled, (groups, to, memory, piece))))
                    }
                },
            ))
        });
        let batches = batches.try_flatten().map_ok(|filled| {
            let rows = filled.num_rows();
            let slices = (0..rows).step_by(BATCH_ROWS).map(move |from| filled.slice(from, BATCH_ROWS.min(rows - from)));
            stream::iter(slices.map(Ok))
        });
        let batches = batches.try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// All rows by their groups, of which each is filled by itself.
struct Groups {
    all: RecordBatch,
    plan: GapPlan,
    times: Int64Array,
    /// The starts of all buckets within the bounds.
    starts: Vec<i64>,
    /// The rows of each group in their order, group by group.
    rows: Vec<u32>,
    /// Where the rows of each group end.
    ends: Vec<usize>,
}

/// Rows of the answer: of which group each is, when, and from which row it comes.
struct Grid {
    groups: Vec<u32>,
    times: Vec<Option<i64>>,
    rows: Vec<Option<u32>>,
    /// A row of the group.
    examples: Vec<u32>,
}

impl Groups {
    fn new(all: RecordBatch, plan: GapPlan, memory: &MemoryReservation) -> Result<Self> {
        let keys: Vec<_> = (0..plan.groups).filter(|column| *column != plan.time).collect();
        let types = keys.iter().map(|key| key_type(all.column(*key).data_type())).collect::<Vec<_>>();
        let safe = vec![true; types.len()];
        let columns: Vec<_> = keys.iter().map(|key| all.column(*key).clone()).collect();
        let codes = KeyCodes::new(types, safe)?.codes(&columns, all.num_rows())?;
        let nanoseconds = cast(all.column(plan.time), &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
        let times = cast(&nanoseconds, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        let starts = starts(&times, &plan)?;
        let count = codes.iter().max().map_or(0, |code| *code as usize + 1);
        let rows_max = count.saturating_mul(starts.len()).saturating_add(all.num_rows());
        if rows_max > GRID_ROWS_MAX {
            return Err(refused(format!(
                "{count} groups of {} buckets would be filled, more than {GRID_ROWS_MAX} rows; widen the buckets or narrow the bounds",
                starts.len()
            )));
        }
        memory.try_grow(8 * starts.len() + 16 * all.num_rows() + 8 * count)?;
        let (rows, ends) = rows_by_code(&codes, count);
        Ok(Self { all, plan, times, starts, rows, ends })
    }

    /// Returns the next groups that make a batch together, or one that makes several.
    fn next_piece(&self, from: usize) -> Range<usize> {
        let (mut to, mut rows) = (from, 0);
        while to < self.ends.len() && rows < BATCH_ROWS {
            rows += self.starts.len() + self.ends[to] - self.begin(to);
            to += 1;
        }
        from..to
    }

    fn begin(&self, group: usize) -> usize {
        if group == 0 { 0 } else { self.ends[group - 1] }
    }

    /// Answers groups; `memory` holds what the last ones took.
    fn fill(&mut self, groups: Range<usize>, schema: &SchemaRef, memory: &MemoryReservation) -> Result<RecordBatch> {
        let rows_max = self.ends[groups.end - 1] - self.begin(groups.start) + groups.len() * self.starts.len();
        memory.try_resize(rows_max * (32 + 16 * self.plan.filled.len()))?;
        let mut grid = Grid {
            groups: Vec::with_capacity(rows_max),
            times: Vec::with_capacity(rows_max),
            rows: Vec::with_capacity(rows_max),
            examples: Vec::with_capacity(rows_max),
        };
        for code in groups {
            let range = self.begin(code)..self.ends[code];
            let group = &mut self.rows[range];
            let time = |row: &u32| self.times.is_valid(*row as usize).then(|| self.times.value(*row as usize));
            // Groups mostly come in order of time.
            if !group.is_sorted_by_key(time) {
                group.sort_by_key(time);
            }
            merge(&mut grid, code as u32, group, &self.times, &self.starts);
        }
        let (all, plan) = (&self.all, &self.plan);
        let mut columns = Vec::with_capacity(schema.fields().len());
        let rows: UInt32Array = grid.rows.iter().copied().collect();
        let examples = UInt32Array::from(std::mem::take(&mut grid.examples));
        for column in 0..plan.groups {
            columns.push(match column == plan.time {
                true => times_of(&grid.times, all.column(column).data_type())?,
                false => take(all.column(column), &examples, None)?,
            });
        }
        for (filled, field) in plan.filled.iter().zip(&schema.fields()[plan.groups..]) {
            columns.push(fill_column(all.column(filled.column), &filled.fill, &grid, &rows, field.data_type())?);
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

fn times_of(times: &[Option<i64>], data_type: &DataType) -> Result<ArrayRef> {
    let nanoseconds: ArrayRef = Arc::new(times.iter().copied().collect::<Int64Array>());
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    if unit_ns(data_type).is_some_and(|unit_ns| times.iter().flatten().any(|time| time % unit_ns != 0)) {
        return Err(too_coarse());
    }
    let nanoseconds = cast(&nanoseconds, &DataType::Timestamp(TimeUnit::Nanosecond, zone))?;
    Ok(cast(&nanoseconds, data_type)?)
}

/// Returns rows by their codes, in their order, and where the rows of each code end; every code has some.
fn rows_by_code(codes: &[u32], count: usize) -> (Vec<u32>, Vec<usize>) {
    let mut places = vec![0; count];
    codes.iter().for_each(|code| places[*code as usize] += 1);
    let mut start = 0;
    for place in &mut places {
        start += std::mem::replace(place, start);
    }
    let mut rows = vec![0; codes.len()];
    for (row, code) in codes.iter().enumerate() {
        let place = &mut places[*code as usize];
        rows[*place] = row as u32;
        *place += 1;
    }
    (rows, places)
}

/// Adds a group: its rows, in order of time, and the buckets in which it has none.
fn merge(grid: &mut Grid, code: u32, rows: &[u32], times: &Int64Array, starts: &[i64]) {
    let mut starts = starts.iter().copied().peekable();
    let example = rows[0];
    let mut push = |time, row| {
        grid.groups.push(code);
        grid.examples.push(example);
        grid.times.push(time);
        grid.rows.push(row);
    };
    for row in rows {
        let at = *row as usize;
        let time = times.is_valid(at).then(|| times.value(at));
        while let Some(start) = starts.next_if(|start| time.is_some_and(|time| *start < time)) {
            push(Some(start), None);
        }
        starts.next_if(|start| time == Some(*start));
        push(time, Some(*row));
    }
    starts.for_each(|start| push(Some(start), None));
}

/// Returns the starts of all buckets within the bounds.
fn starts(times: &Int64Array, plan: &GapPlan) -> Result<Vec<i64>> {
    let first = plan.bounds[0].or_else(|| arrow::compute::min(times));
    let end = plan.bounds[1].or_else(|| arrow::compute::max(times).map(|last| last.saturating_add(1)));
    let (Some(first), Some(end)) = (first, end) else { return Ok(Vec::new()) };
    let mut starts = Vec::new();
    let mut next = if first < end { plan.buckets.start_ns(first) } else { None };
    while let Some(start) = next.filter(|start| *start < end) {
        if starts.len() >= GRID_ROWS_MAX {
            return Err(refused(format!(
                "more than {GRID_ROWS_MAX} buckets lie between the bounds; widen the buckets or narrow the bounds"
            )));
        }
        starts.push(start);
        next = plan.buckets.next_ns(start).filter(|next| *next > start);
    }
    Ok(starts)
}

fn fill_column(
    column: &ArrayRef,
    fill: &Fill,
    grid: &Grid,
    rows: &UInt32Array,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let plain = take(column, rows, None)?;
    match fill {
        Fill::Null => Ok(plain),
        Fill::Zero => constant(&plain, &ScalarValue::new_zero(data_type)?, grid),
        Fill::Constant(value) => constant(&plain, &value.cast_to(data_type)?, grid),
        Fill::Previous => {
            let mut last: Option<(u32, u32)> = None;
            let previous = grid.groups.iter().zip(&grid.rows).map(|(group, row)| {
                last = row.filter(|row| column.is_valid(*row as usize)).map(|row| (*group, row)).or(last);
                last.filter(|(of, _)| of == group).map(|(_, row)| row)
            });
            Ok(take(column, &previous.collect::<UInt32Array>(), None)?)
        }
        Fill::Linear => {
            let numbers = cast(&plain, &DataType::Float64)?;
            let filled: ArrayRef = Arc::new(lines(numbers.as_primitive::<Float64Type>(), grid));
            Ok(cast(&filled, data_type)?)
        }
    }
}

/// Puts `value` where a bucket has no rows.
fn constant(plain: &ArrayRef, value: &ScalarValue, grid: &Grid) -> Result<ArrayRef> {
    let is_missing: BooleanArray = grid.rows.iter().map(|row| Some(row.is_none())).collect();
    Ok(zip(&is_missing, &value.to_scalar()?, plain)?)
}

/// Puts numbers on the line between the ones around them, within a group; nothing before the first or after the last.
fn lines(numbers: &Float64Array, grid: &Grid) -> Float64Array {
    let mut filled: Vec<Option<f64>> = numbers.iter().collect();
    let mut before: Option<usize> = None;
    for at in 0..filled.len() {
        if before.is_some_and(|before| grid.groups[before] != grid.groups[at]) {
            before = None;
        }
        let (Some(right), Some(right_time)) = (numbers.is_valid(at).then(|| numbers.value(at)), grid.times[at]) else {
            continue;
        };
        if let Some(from) = before
            && let Some(left_time) = grid.times[from]
        {
            let left = numbers.value(from);
            let span = (i128::from(right_time) - i128::from(left_time)) as f64;
            let times = &grid.times[from + 1..at];
            for (filled, time) in filled[from + 1..at].iter_mut().zip(times) {
                let passed = time.map_or(0.0, |time| (i128::from(time) - i128::from(left_time)) as f64);
                *filled = Some(left + (right - left) * (passed / span));
            }
        }
        before = Some(at);
    }
    filled.into_iter().collect()
}
