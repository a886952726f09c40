//! An Arrow IPC stream that comes in pieces, as batches.

use crate::adapters::ipc::{DecodeLimits, Deframer};
use crate::ports::{BatchSource, BatchStream, Error, Result};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{Stream, StreamExt};

/// What the reader of a stream makes of its ends.
#[derive(Debug)]
pub struct Ends<E> {
    /// What a piece that did not come is to whoever reads the batches.
    pub lost: fn(E) -> Error,
    /// What a stream that ends too early is.
    pub cut_off: fn(Error) -> Error,
}

/// The batches of a stream, of which as much is read now as has its schema.
///
/// # Errors
///
/// Those of the pieces, and those of [`Deframer`].
pub async fn read_stream<E: From<Error> + 'static>(
    mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static,
    limits: DecodeLimits,
    ends: Ends<E>,
) -> Result<BatchStream, E> {
    let mut deframer = Deframer::new(limits);
    let mut first = None;
    let schema = loop {
        if let Some(schema) = deframer.schema() {
            break schema;
        }
        let Some(piece) = pieces.next().await else {
            let empty = deframer.finish().err().unwrap_or_else(|| Error::invalid("the Arrow stream is empty"));
            return Err((ends.cut_off)(empty).into());
        };
        deframer.push(piece?);
        first = deframer.next_batch()?;
    };
    Ok(BatchStream::from_source(schema, first, Reading { pieces, deframer, ends }))
}

struct Reading<S, E> {
    pieces: S,
    deframer: Deframer,
    ends: Ends<E>,
}

#[async_trait]
impl<E: 'static, S: Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static> BatchSource for Reading<S, E> {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.deframer.next_batch()? {
                return Ok(Some(batch));
            }
            match self.pieces.next().await {
                Some(piece) => self.deframer.push(piece.map_err(self.ends.lost)?),
                None => return self.deframer.finish().map(|()| None).map_err(self.ends.cut_off),
            }
        }
    }
}
