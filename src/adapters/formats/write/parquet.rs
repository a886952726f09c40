//! Rows as a Parquet file, row group by row group. The footer, without which no reader takes the file, comes at the end.

use crate::ports::{Error, Result};
use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of one row group.
const GROUP_ROWS: usize = 131_072;

/// Bytes of one row group, about: a group is in memory until it is complete.
const GROUP_BYTES: usize = 16 << 20;

/// Writes the rows of one result.
pub struct ParquetWriter {
    /// `None` once the file has ended.
    writer: Option<ArrowWriter<PendingBytes>>,
    pending: PendingBytes,
}

/// Bytes that were written and are not taken yet.
#[derive(Debug, Clone, Default)]
struct PendingBytes(Arc<Mutex<Vec<u8>>>);

impl PendingBytes {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl io::Write for PendingBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ParquetWriter {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a type that Parquet does not have.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let pending = PendingBytes::default();
        let unsupported_by_parquet = |error| Error::unsupported(format!("Parquet cannot hold this result: {error}"));
        if schema.fields().iter().any(|field| has_union(field.data_type())) {
            return Err(Error::unsupported("Parquet cannot hold this result: it has no unions"));
        }
        probe(schema).map_err(unsupported_by_parquet)?;
        let writer =
            ArrowWriter::try_new(pending.clone(), schema.clone(), Some(properties)).map_err(unsupported_by_parquet)?;
        Ok(Self { writer: Some(writer), pending })
    }

    /// Writes the rows of `batch`, and returns the bytes that are ready to send.
    ///
    /// # Errors
    ///
    /// `Internal` for a column that cannot be written.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        if let Some(writer) = &mut self.writer {
            writer.write(batch).map_err(write_error)?;
            if writer.in_progress_size() > GROUP_BYTES {
                writer.flush().map_err(write_error)?;
            }
        }
        Ok(self.pending.take())
    }

    /// Ends the file, and returns its last bytes.
    ///
    /// # Errors
    ///
    /// As for [`ParquetWriter::rows`].
    pub fn end(&mut self) -> Result<Bytes> {
        if let Some(writer) = self.writer.take() {
            writer.close().map_err(write_error)?;
        }
        Ok(self.pending.take())
    }
}

/// Returns whether a type is, or holds, a union: the writer panics on one.
fn has_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_union(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_union(field.data_type())),
        DataType::Dictionary(_, values) => has_union(values),
        DataType::RunEndEncoded(_, values) => has_union(values.data_type()),
        _ => false,
    }
}

/// Writes a row of nulls to a sink: the writer refuses some types only with their first row, when the status is sent.
fn probe(schema: &SchemaRef) -> std::result::Result<(), ParquetError> {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    let mut writer = ArrowWriter::try_new(io::sink(), schema, None)?;
    writer.write(&row)?;
    writer.close().map(|_| ())
}

fn write_error(error: ParquetError) -> Error {
    Error::internal("a result could not be written as Parquet").with_source(error)
}
