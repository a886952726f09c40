//! A stream of record batches with its schema.
//!
//! The schema is known before the first batch, so an empty result still has one. Every batch has exactly that schema:
//! whoever makes a stream sees to it. An error ends the stream; nothing follows it.

use crate::ports::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Record batches that share one schema, produced as they are polled.
///
/// Dropping the stream stops whatever produces it.
pub struct BatchStream {
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Whatever finds batches one after the other, such as a reader of messages.
#[async_trait]
pub trait BatchSource: Send + 'static {
    /// The next batch; none at the end.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>>;
}

impl BatchStream {
    /// `first`, where there is one, and then what `source` finds, up to its first error.
    pub fn from_source(schema: SchemaRef, first: Option<RecordBatch>, source: impl BatchSource) -> Self {
        let batches = stream::unfold((Some(source), first), |(source, first)| async move {
            let mut source = source?;
            if let Some(batch) = first {
                return Some((Ok(batch), (Some(source), None)));
            }
            let next = source.next_batch().await.transpose()?;
            let rest = next.is_ok().then_some(source);
            Some((next, (rest, None)))
        });
        Self::new(schema, batches)
    }

    /// A stream of `batches`, each of which has `schema`.
    pub fn new(schema: SchemaRef, batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> Self {
        Self { schema, batches: batches.boxed() }
    }

    /// A stream of batches that are there already.
    pub fn from_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self::new(schema, stream::iter(batches.into_iter().map(Ok)))
    }

    /// A stream of no batches.
    pub fn empty(schema: SchemaRef) -> Self {
        Self::from_batches(schema, Vec::new())
    }

    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// All batches at once.
    ///
    /// # Errors
    ///
    /// The stream's own.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.batches.try_collect().await
    }
}

impl Stream for BatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_next_unpin(cx)
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}
