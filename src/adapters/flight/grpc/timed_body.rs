//! A request's body that fails where its client stops sending.

use crate::ports::{MemoryAccount, Reservation};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

/// A body whose pieces each have to arrive in a time.
#[derive(Debug)]
pub struct TimedBody {
    body: Body,
    timeout: Option<Duration>,
    /// Memory of what has arrived, where whoever reads it keeps all of it.
    memory: Option<(MemoryAccount, Reservation)>,
    /// Runs while the next piece is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    /// Wraps a body; none: no limit.
    pub fn new(body: Body, timeout: Option<Duration>) -> Self {
        Self { body, timeout, memory: None, sleep: None }
    }

    /// Counts all that arrives in an account, until the body is dropped.
    pub fn counted_in(self, account: &MemoryAccount) -> Self {
        let memory = account.try_reserve(0).map(|nothing| (account.clone(), nothing));
        Self { memory, ..self }
    }
}

/// Makes the status of a body that did not arrive in time.
pub fn too_slow() -> Status {
    Status::deadline_exceeded("the client did not send for too long (body_timeout_ms)")
}

impl http_body::Body for TimedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let Self { body, timeout, memory, sleep } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            *sleep = None;
            if let (Some(Ok(frame)), Some((account, reserved))) = (&frame, memory) {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match account.reserve(bytes) {
                    Ok(more) => reserved.join(more),
                    Err(error) => return Poll::Ready(Some(Err(Status::resource_exhausted(error.message())))),
                }
            }
            return Poll::Ready(frame);
        }
        let Some(timeout) = *timeout else { return Poll::Pending };
        let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        sleep.as_mut().poll(cx).map(|()| Some(Err(too_slow())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
