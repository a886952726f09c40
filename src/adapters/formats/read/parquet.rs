//! Parquet files, which have to be there whole.
//!
//! Checked first: codecs that this build does not have, and INT96, whose times reach further than the nanoseconds that
//! they are read as, and wrap (apache/arrow-rs reads Spark's 9999-12-31 as 1816). INT96 columns are read a second time,
//! as microseconds, and refused where the two differ.

use crate::adapters::formats::read::parquet_pages::page_sizes;
use crate::adapters::ipc::DecodeLimits;
use crate::ports::{BatchStream, Error, Result};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Schema, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::stream;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Most rows of a batch: a few bytes may stand for any number of equal values, so a batch is bounded by rows.
const BATCH_ROWS: usize = 8_192;

/// Bytes of a batch, if every row had the longest values of the dictionaries.
const BATCH_BYTES: u64 = 64 << 20;

/// Reads a Parquet file.
///
/// # Errors
///
/// `InvalidQuery` for anything that is not a Parquet file, `Unsupported` for a codec that is not built in, `LimitExceeded` beyond the limits.
pub fn read_parquet(file: Bytes, limits: DecodeLimits) -> Result<BatchStream> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).map_err(|error| not_parquet(&error))?;
    check_codecs(builder.metadata())?;
    let sizes = page_sizes(&file, builder.metadata())?;
    check_size(sizes.inflated, limits.inflated_bytes_max)?;
    let batch_rows = batch_rows(sizes.row);
    let batch_bytes = sizes.row.saturating_mul(batch_rows as u64);
    let memory = limits.memory.reserve(sizes.at_a_time.saturating_add(batch_bytes))?;
    let schema = builder.schema().clone();
    let mut int96 = Int96Check::new(&file, &builder, batch_rows)?;
    let mut reader = builder.with_batch_size(batch_rows).build().map_err(|error| not_parquet(&error))?;
    let mut failed = false;
    let batches = std::iter::from_fn(move || {
        // Kept for as long as pages are inflated and batches made.
        let _memory = &memory;
        let next = || {
            let batch = reader.next()?;
            Some(batch.and_then(|batch| match &mut int96 {
                Some(int96) => int96.check(batch),
                None => Ok(batch),
            }))
        };
        // The reader panics on some corrupt files.
        let next = (!failed).then(|| catch_unwind(AssertUnwindSafe(next)))?;
        let next = next.unwrap_or_else(|_| Some(Err(ArrowError::ParseError("it is corrupt".into()))))?;
        failed = next.is_err();
        Some(next.map_err(|error| match error {
            ArrowError::ComputeError(text) | ArrowError::ParseError(text) => {
                Error::invalid(format!("the Parquet file: {text}"))
            }
            other => Error::invalid(format!("the Parquet file: {other}")),
        }))
    });
    Ok(BatchStream::new(schema, stream::iter(batches)))
}

fn not_parquet(error: &ParquetError) -> Error {
    Error::invalid(format!("the body is not a Parquet file: {error}"))
}

fn check_size(inflated: u64, inflated_bytes_max: u64) -> Result<()> {
    if inflated > inflated_bytes_max {
        return Err(Error::limit(format!(
            "the file inflates to {inflated} bytes, more than {inflated_bytes_max} (inflated_bytes_max)"
        )));
    }
    Ok(())
}

/// Returns how many rows may be decoded at a time where the longest has so many bytes.
fn batch_rows(row_bytes: u64) -> usize {
    let rows = BATCH_BYTES / row_bytes.max(1);
    usize::try_from(rows).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
}

fn check_codecs(metadata: &ParquetMetaData) -> Result<()> {
    let mut codecs = metadata.row_groups().iter().flat_map(|group| group.columns()).map(|column| column.compression());
    let is_built_in = |codec: &Compression| {
        matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::LZ4_RAW | Compression::ZSTD(_))
    };
    match codecs.find(|codec| !is_built_in(codec)) {
        Some(codec) => Err(Error::unsupported(format!(
            "Parquet compressed with {} is not supported; zstd, snappy, lz4_raw and none are",
            codec.to_string().split('(').next().unwrap_or_default()
        ))),
        None => Ok(()),
    }
}

/// Reads the columns of INT96 a second time, as microseconds.
struct Int96Check {
    reader: ParquetRecordBatchReader,
    /// Their positions among the file's columns.
    columns: Vec<usize>,
}

impl Int96Check {
    fn new(file: &Bytes, builder: &ParquetRecordBatchReaderBuilder<Bytes>, batch_rows: usize) -> Result<Option<Self>> {
        let leaves = builder.parquet_schema();
        let is_int96 = |leaf: &usize| leaves.column(*leaf).physical_type() == Type::INT96;
        let mut columns: Vec<usize> =
            (0..leaves.num_columns()).filter(is_int96).map(|leaf| leaves.get_column_root_idx(leaf)).collect();
        columns.dedup();
        if columns.is_empty() {
            return Ok(None);
        }
        let schema = builder.schema();
        if columns.iter().any(|at| !matches!(schema.field(*at).data_type(), DataType::Timestamp(..))) {
            return Err(Error::unsupported("Parquet's INT96 within lists and structs is not supported"));
        }
        let field = |(at, field): (usize, &FieldRef)| match field.data_type() {
            DataType::Timestamp(_, zone) if columns.contains(&at) => {
                let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                Arc::new(Field::clone(field).with_data_type(data_type))
            }
            _ => field.clone(),
        };
        let coarse = Schema::new(schema.fields().iter().enumerate().map(field).collect::<Vec<_>>());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(coarse));
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options);
        let builder = builder.map_err(|error| not_parquet(&error))?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
        let reader = builder.with_projection(mask).with_batch_size(batch_rows).build();
        Ok(Some(Self { reader: reader.map_err(|error| not_parquet(&error))?, columns }))
    }

    /// Returns `batch` if its times agree with those read as microseconds.
    fn check(&mut self, batch: RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
        let corrupt = || ArrowError::ParseError("it is corrupt".into());
        let coarse = self.reader.next().ok_or_else(corrupt)??;
        if coarse.num_rows() != batch.num_rows() {
            return Err(corrupt());
        }
        for (at, coarse) in self.columns.iter().zip(coarse.columns()) {
            let column = batch.column(*at);
            let (Some(fine), Some(coarse)) = (
                column.as_primitive_opt::<TimestampNanosecondType>(),
                coarse.as_primitive_opt::<TimestampMicrosecondType>(),
            ) else {
                return Err(corrupt());
            };
            let differs = |(fine, coarse): (Option<i64>, Option<i64>)| fine.map(|ns| ns.div_euclid(1_000)) != coarse;
            if fine.iter().zip(coarse.iter()).any(differs) {
                let name = batch.schema_ref().field(*at).name().clone();
                let text =
                    format!("a time of column {name:?} lies beyond what nanoseconds since 1970 hold (1677 to 2262)");
                return Err(ArrowError::ComputeError(text));
            }
        }
        Ok(batch)
    }
}
