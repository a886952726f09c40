//! DoGet: batches out, as they come.

use crate::adapters::flight::grpc::{Pieces, flight_data};
use crate::adapters::flight::wire::status_from_error;
use crate::adapters::gate::Request as Admitted;
use crate::adapters::ipc::{Encoder, Encoding, Message};
use crate::ports::{BatchStream, Result};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use std::collections::VecDeque;

/// Where a stream is.
struct Sending {
    batches: BatchStream,
    encoder: Encoder,
    waiting: VecDeque<Message>,
    admitted: Admitted,
}

/// The messages of `batches`, the schema first. The request is logged when the last one was taken, or nobody wants it.
pub fn flight_stream(batches: BatchStream, admitted: Admitted, encoding: Encoding) -> Pieces {
    let (encoder, schema) = Encoder::new(&batches.schema(), encoding);
    let sending =
        Sending { batches: admitted.until_cut(batches), encoder, waiting: VecDeque::from([schema]), admitted };
    stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        let next = sending.next().await?;
        match sending.admitted.settle(next) {
            Ok(pieces) => Some((Ok(pieces), Some(sending))),
            Err(error) => Some((Err(status_from_error(&error)), None)),
        }
    })
    .boxed()
}

impl Sending {
    async fn next(&mut self) -> Option<Result<Vec<Bytes>>> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                self.admitted.sent(0, message.bytes() as u64);
                return Some(flight_data(&message));
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
