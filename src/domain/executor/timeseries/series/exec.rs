//! Runs aggregates by code: each partition by a task of its own, put together in the order of the partitions.

use crate::domain::executor::timeseries::buckets::Buckets;
use crate::domain::executor::timeseries::keys::Times;
use crate::domain::executor::timeseries::operator::{Operator, OperatorExec, Run};
use crate::domain::executor::timeseries::series::kind::Kind;
use crate::domain::executor::timeseries::series::partial::Partial;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, UInt32Type};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;

/// What is grouped by, and aggregated.
#[derive(Debug, Clone)]
pub struct SeriesPlan {
    /// Position of the symbol's codes in the input; none where all rows are one group, or grouped by bucket alone.
    pub code: Option<usize>,
    /// The values of the codes.
    pub symbols: Option<ArrayRef>,
    /// The time, and its buckets.
    pub bucket: Option<(Arc<dyn PhysicalExpr>, Buckets)>,
    /// Whether the symbol comes before the bucket in the answer.
    pub symbol_first: bool,
    /// The aggregates: their kinds and arguments.
    pub aggregates: Vec<(Kind, Vec<Arc<dyn PhysicalExpr>>)>,
}

/// Aggregates by code in a plan.
pub type SeriesAggregateExec = OperatorExec<SeriesPlan>;

impl Operator for SeriesPlan {
    const NAME: &'static str = "SeriesAggregateExec";

    const READS_PARTITIONS: bool = true;

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.aggregates.iter().map(|(kind, _)| *kind).collect();
        write!(f, "by code={}, by bucket={}, {kinds:?}", self.code.is_some(), self.bucket.is_some())
    }

    fn run(&self, run: Run) -> Result<SendableRecordBatchStream> {
        let Run { inputs, schema, memory, .. } = run;
        let (plan, made) = (self.clone(), schema.clone());
        let all = async move {
            let mut tasks = Vec::with_capacity(inputs.len());
            for input in inputs {
                tasks.push(SpawnedTask::spawn(partial(input, plan.clone(), memory.new_empty())));
            }
            let mut whole: Option<Part> = None;
            for task in tasks {
                let part = match task.join_unwind().await {
                    Ok(part) => part?,
                    Err(_) => return internal_err!("an aggregate stopped"),
                };
                whole = Some(match whole {
                    None => part,
                    Some(mut whole) => {
                        whole.partial.merge(&part.partial);
                        whole.memory.try_resize(whole.partial.bytes())?;
                        tokio::task::consume_budget().await;
                        whole
                    }
                });
            }
            let Some(whole) = whole else { return Ok((RecordBatch::new_empty(made), memory)) };
            // A number of eight bytes and what says that it is NULL, for each column.
            memory.try_grow(whole.partial.groups.met().len() * 9 * made.fields().len())?;
            Ok::<_, DataFusionError>((whole.finish(&plan, &made)?, memory))
        };
        let batches = stream::once(all).map_ok(|(all, memory)| {
            let rows = all.num_rows();
            let slices = (0..rows).step_by(BATCH_ROWS).map(move |from| {
                let _held = &memory;
                Ok(all.slice(from, BATCH_ROWS.min(rows - from)))
            });
            stream::iter(slices)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.try_flatten())))
    }
}

/// The groups and states of one partition, and the memory that they take.
struct Part {
    partial: Partial,
    memory: MemoryReservation,
}

async fn partial(mut input: SendableRecordBatchStream, plan: SeriesPlan, memory: MemoryReservation) -> Result<Part> {
    let codes = plan.symbols.as_ref().map_or(1, |symbols| symbols.len() + 1);
    let kinds: Vec<Kind> = plan.aggregates.iter().map(|(kind, _)| *kind).collect();
    let mut partial = Partial::new(&kinds, codes, plan.bucket.as_ref().map(|(_, buckets)| *buckets));
    while let Some(batch) = input.next().await {
        let batch = batch?;
        let codes = codes_of(&batch, plan.code, codes)?;
        let args = plan.aggregates.iter().map(|(kind, args)| arguments(*kind, args, &batch));
        let args = args.collect::<Result<Vec<_>>>()?;
        let times = match &plan.bucket {
            Some((time, _)) => {
                let column = time.evaluate(&batch)?.into_array(batch.num_rows())?;
                Some(Times::new(&column, &DataType::Timestamp(TimeUnit::Nanosecond, None))?)
            }
            None => None,
        };
        partial.add(&codes, times.as_ref(), &args)?;
        memory.try_resize(partial.bytes())?;
    }
    partial.close();
    memory.try_resize(partial.bytes())?;
    Ok(Part { partial, memory })
}

fn arguments(kind: Kind, args: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let columns = args.iter().map(|arg| arg.evaluate(batch)?.into_array(batch.num_rows()));
    let mut columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
    if let (Kind::First | Kind::Last, Some(time)) = (kind, columns.get_mut(1)) {
        *time = cast(time, &DataType::Int64)?;
    }
    Ok(columns)
}

/// Returns the code of each row, of `codes`; NULL has the last one.
///
/// # Errors
///
/// `Internal` where the column has none.
pub fn codes_of(batch: &RecordBatch, code: Option<usize>, codes: usize) -> Result<Cow<'_, [u32]>> {
    let Some(code) = code else { return Ok(vec![0; batch.num_rows()].into()) };
    let Some(dictionary) = batch.column(code).as_any_dictionary_opt() else {
        return internal_err!("a symbol came without its codes");
    };
    let keys = dictionary.keys().as_primitive::<UInt32Type>();
    let null = (codes - 1) as u32;
    Ok(match keys.null_count() {
        0 => Cow::Borrowed(keys.values()),
        _ => keys.iter().map(|key| key.unwrap_or(null)).collect::<Vec<_>>().into(),
    })
}

impl Part {
    fn finish(self, plan: &SeriesPlan, schema: &SchemaRef) -> Result<RecordBatch> {
        let Partial { groups, rows, states, .. } = self.partial;
        let met = groups.met();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        if let Some(symbols) = &plan.symbols {
            let null = symbols.len() as u32;
            let picks: UInt32Array = met.iter().map(|(_, code)| (*code != null).then_some(*code)).collect();
            columns.push(take(symbols, &picks, None)?);
        }
        if plan.bucket.is_some() {
            let starts: ArrayRef = Arc::new(met.iter().map(|(start, _)| *start).collect::<Int64Array>());
            let starts = cast(&starts, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
            columns.insert(if plan.symbol_first { columns.len() } else { 0 }, starts);
        }
        let count = met.len();
        for states in states {
            columns.push(states.finish(&rows)?);
        }
        // Text goes out in the column's own form, and a time in its unit.
        let typed = columns.iter().zip(schema.fields()).map(|(column, field)| typed(column, field.data_type()));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(schema.clone(), typed.collect::<Result<_>>()?, &options)?)
    }
}

fn typed(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column.clone());
    }
    if let (DataType::Timestamp(..), DataType::Timestamp(unit, Some(zone))) = (column.data_type(), data_type) {
        // The same instants: a cast that meets a zone would read them as local times.
        let instants = cast(column, &DataType::Timestamp(*unit, None))?;
        let instants = cast(&instants, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        let instants: ArrayRef = Arc::new(instants);
        return Ok(cast(&instants, &DataType::Timestamp(*unit, Some(zone.clone())))?);
    }
    Ok(cast(column, data_type)?)
}
