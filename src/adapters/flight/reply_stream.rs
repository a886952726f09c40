//! The messages of a reply: batches, encoded as they are read.

use crate::adapters::flight::call::{RpcResult, with_request_id};
use crate::adapters::flight::grpc::outgoing::{ReplyMessages, flight_data};
use crate::adapters::flight::wire::status_from_error;
use crate::adapters::ipc::{Encoder, Encoding, Message};
use crate::adapters::serving::AdmittedRequest;
use crate::ports::{BatchStream, Result};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use std::collections::VecDeque;

/// Answers a call with batches, or with the error that there is instead.
///
/// # Errors
///
/// The error of `result`, as a status.
pub fn stream_reply(
    mut admitted: AdmittedRequest,
    result: Result<(BatchStream, Encoding)>,
) -> RpcResult<ReplyMessages> {
    match result {
        Ok((batches, encoding)) => {
            let response = with_request_id(&admitted, ());
            Ok(response.map(|()| reply_stream(batches, admitted, encoding)))
        }
        Err(error) => Err(status_from_error(&admitted.fail(error))),
    }
}

/// A reply that is being sent.
struct ReplyStream {
    batches: BatchStream,
    encoder: Encoder,
    waiting: VecDeque<Message>,
    admitted: AdmittedRequest,
}

/// Encodes the messages of `batches`, the schema first.
///
/// The request is logged when the last message was taken, or when the client goes away.
fn reply_stream(batches: BatchStream, admitted: AdmittedRequest, encoding: Encoding) -> ReplyMessages {
    let (encoder, schema) = Encoder::new(&batches.schema(), encoding);
    let batches = admitted.until_shutdown(batches);
    let reply = ReplyStream { batches, encoder, waiting: VecDeque::from([schema]), admitted };
    stream::unfold(Some(reply), |reply| async move {
        let mut reply = reply?;
        let next = reply.next().await?;
        match reply.admitted.finish(next) {
            Ok(pieces) => Some((Ok(pieces), Some(reply))),
            Err(error) => Some((Err(status_from_error(&error)), None)),
        }
    })
    .boxed()
}

impl ReplyStream {
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
