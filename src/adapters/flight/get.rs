//! DoGet: batches out, as they come.

use crate::adapters::flight::wire::{flight_data, status_from_error};
use crate::adapters::gate::Request as Admitted;
use crate::adapters::ipc::{Encoder, Message};
use crate::ports::{BatchStream, Result};
use arrow_flight::FlightData;
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use tonic::Status;

/// Where a stream is.
struct Sending {
    batches: BatchStream,
    encoder: Encoder,
    waiting: VecDeque<Message>,
    admitted: Admitted,
}

/// The messages of `batches`, the schema first. The request is logged when the last one was taken, or nobody wants it.
pub fn flight_stream(
    batches: BatchStream,
    admitted: Admitted,
    bytes_target: u64,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let (encoder, schema) = Encoder::new(&batches.schema(), bytes_target);
    let sending =
        Sending { batches: admitted.until_cut(batches), encoder, waiting: VecDeque::from([schema]), admitted };
    stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        let next = sending.next().await?;
        match sending.admitted.settle(next) {
            Ok(message) => {
                sending.admitted.sent(0, (message.header.len() + message.body.len()) as u64);
                Some((Ok(flight_data(message)), Some(sending)))
            }
            Err(error) => Some((Err(status_from_error(&error)), None)),
        }
    })
    .boxed()
}

impl Sending {
    async fn next(&mut self) -> Option<Result<Message>> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(Ok(message));
            }
            match self.batches.next().await {
                None => {
                    self.admitted.done();
                    return None;
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(batch)) => match self.encoder.encode(&batch) {
                    Ok(messages) => {
                        self.admitted.sent(batch.num_rows() as u64, 0);
                        self.waiting.extend(messages);
                    }
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}
