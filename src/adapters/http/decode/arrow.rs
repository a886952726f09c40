//! Arrow IPC streams.

use crate::adapters::http::incoming::{Body, Failure};
use crate::adapters::ipc::{DecodeLimits, Deframer};
use crate::ports::{BatchSource, BatchStream, Error, Limits, Result};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;

/// The batches of an Arrow body.
pub async fn batches(body: Body, limits: &Limits) -> Result<BatchStream, Failure> {
    let mut reading = Reading { body, deframer: Deframer::new(DecodeLimits::from(limits)) };
    let mut first = None;
    while reading.deframer.schema().is_none() {
        let Some(piece) = reading.body.next().await else { break };
        reading.deframer.push(piece?);
        first = reading.deframer.next_batch()?;
    }
    let Some(schema) = reading.deframer.schema() else {
        return Err(reading
            .deframer
            .finish()
            .map_or_else(Failure::from, |()| Error::invalid("the body is empty").into()));
    };
    Ok(BatchStream::from_source(schema, first, reading))
}

struct Reading {
    body: Body,
    deframer: Deframer,
}

#[async_trait]
impl BatchSource for Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.deframer.next_batch()? {
                return Ok(Some(batch));
            }
            match self.body.next().await {
                Some(piece) => self.deframer.push(piece.map_err(Failure::into_error)?),
                None => return self.deframer.finish().map(|()| None),
            }
        }
    }
}
