//! An Arrow IPC stream that arrives in chunks, as batches.

use crate::adapters::ipc::decode::DecodeLimits;
use crate::adapters::ipc::frame::Deframer;
use crate::ports::{BatchSource, BatchStream, Error, Result};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{Stream, StreamExt};

/// How a reader reports a stream that does not reach its end.
#[derive(Debug)]
pub struct StreamErrors<E> {
    /// Converts the error of a chunk that did not arrive.
    pub transport: fn(E) -> Error,
    /// Converts the error of a stream that ends before its end marker.
    pub truncated: fn(Error) -> Error,
}

/// Reads a stream. Returns once its schema has arrived.
///
/// # Errors
///
/// Those of the chunks, and those of [`Deframer`].
pub async fn read_stream<E: From<Error> + 'static>(
    mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static,
    limits: DecodeLimits,
    errors: StreamErrors<E>,
) -> Result<BatchStream, E> {
    let mut deframer = Deframer::new(limits);
    // The chunk that ends the schema may hold the first batch, too.
    let mut first = None;
    let schema = loop {
        if let Some(schema) = deframer.schema() {
            break schema;
        }
        let Some(chunk) = chunks.next().await else {
            let empty = deframer.finish().err().unwrap_or_else(|| Error::invalid("the Arrow stream is empty"));
            return Err((errors.truncated)(empty).into());
        };
        deframer.push(chunk?);
        first = deframer.next_batch()?;
    };
    Ok(BatchStream::from_source(schema, first, StreamReader { chunks, deframer, errors }))
}

struct StreamReader<S, E> {
    chunks: S,
    deframer: Deframer,
    errors: StreamErrors<E>,
}

#[async_trait]
impl<E: 'static, S: Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static> BatchSource for StreamReader<S, E> {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.deframer.next_batch()? {
                return Ok(Some(batch));
            }
            match self.chunks.next().await {
                Some(chunk) => self.deframer.push(chunk.map_err(self.errors.transport)?),
                None => return self.deframer.finish().map(|()| None).map_err(self.errors.truncated),
            }
        }
    }
}
