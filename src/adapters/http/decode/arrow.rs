//! Arrow IPC streams.

use crate::adapters::http::incoming::{Body, Failure};
use crate::adapters::ipc::{DecodeLimits, Deframer};
use crate::ports::{BatchStream, Error, Limits, Result};
use arrow::array::RecordBatch;
use futures::stream::{self, StreamExt};

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
    let batches = stream::unfold((Some(reading), first), |(reading, first)| async move {
        let mut reading = reading?;
        if let Some(batch) = first {
            return Some((Ok(batch), (Some(reading), None)));
        }
        let next = reading.next_batch().await.transpose()?;
        let rest = next.is_ok().then_some(reading);
        Some((next, (rest, None)))
    });
    Ok(BatchStream::new(schema, batches))
}

struct Reading {
    body: Body,
    deframer: Deframer,
}

impl Reading {
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
