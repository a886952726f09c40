//! BACKUP: all files of a checkpoint, as rows, for whoever asked to write them down.
//!
//! What is handed out is a data directory of the moment at which it was asked for: a flush, then the files of that checkpoint, which stay
//! for as long as somebody reads them. The server writes to no path that a client names: it writes nothing at all.

use crate::domain::engine::Inner;
use crate::domain::engine::statements::{Operation, Request};
use crate::ports::{BatchStream, Description, Error, Result, StatementKind, Store, StoreFile};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use std::sync::Arc;

/// Bytes of a file in one row.
const ROW_BYTES: u64 = 1 << 20;

/// `BACKUP`
pub struct Backup;

#[async_trait]
impl Operation for Backup {
    async fn describe(self: Box<Self>, _: &Arc<Inner>, _: Request) -> Result<Description> {
        Ok(Description::new(StatementKind::Read, schema(), None))
    }

    async fn execute(self: Box<Self>, engine: &Arc<Inner>, request: Request) -> Result<BatchStream> {
        if request.query.snapshot.is_some() {
            return Err(Error::invalid("a backup is of the present state, not of a snapshot"));
        }
        if request.is_later_part() {
            return Ok(BatchStream::empty(schema()));
        }
        let (store, files, pinned) = engine.begin_backup().await?;
        let rows = files.into_iter().flat_map(rows_of).collect::<Vec<_>>().into_iter();
        let state = (rows, store, pinned);
        let batches = stream::try_unfold(state, |(mut rows, store, pinned)| async move {
            let Some(row) = rows.next() else { return Ok(None) };
            let reading = store.clone();
            let read = tokio::task::spawn_blocking(move || row.batch(reading.as_ref())).await;
            let batch = read.map_err(|error| Error::internal("a backup was interrupted").with_source(error))??;
            Ok(Some((batch, (rows, store, pinned))))
        });
        Ok(BatchStream::new(schema(), batches))
    }
}

/// Part of a file.
struct Row {
    file: Arc<StoreFile>,
    offset: u64,
}

/// Divides a file into rows; an empty one is a row, too.
fn rows_of(file: StoreFile) -> Vec<Row> {
    let file = Arc::new(file);
    let offsets = (0..file.bytes.max(1)).step_by(ROW_BYTES as usize);
    offsets.map(|offset| Row { file: file.clone(), offset }).collect()
}

impl Row {
    fn batch(&self, store: &dyn Store) -> Result<RecordBatch> {
        let StoreFile { path, bytes, content } = self.file.as_ref();
        let length = ROW_BYTES.min(bytes - self.offset);
        let part: Bytes = match content {
            Some(content) => content.slice(self.offset as usize..(self.offset + length) as usize),
            None => store.read_file(path, self.offset, length)?,
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![path.as_str()])),
            Arc::new(UInt64Array::from(vec![self.offset])),
            Arc::new(BinaryArray::from(vec![part.as_ref()])),
        ];
        RecordBatch::try_new(schema(), columns)
            .map_err(|error| Error::internal("a backup's rows could not be made").with_source(error))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("offset", DataType::UInt64, false),
        Field::new("bytes", DataType::Binary, false),
    ]))
}
