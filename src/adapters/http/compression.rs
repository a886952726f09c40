//! Compresses responses on threads of their own.
//!
//! Compressing a result takes many times as long as sending it, and a body is polled by the thread that serves its
//! connection: three readers that ask for gzip would keep two threads from everybody else. So a body that is compressed is
//! polled elsewhere, and its pieces come over a channel of one; the system shares the cores out between the threads.

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::io;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;

/// A body of any kind.
pub type BoxedBody = UnsyncBoxBody<Bytes, io::Error>;

/// The threads that compress.
#[derive(Debug)]
pub struct CompressionThreads(Option<Runtime>);

impl CompressionThreads {
    /// Starts a thread for each core.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads =
            Builder::new_multi_thread().thread_name("compression").worker_threads(cores).enable_time().build()?;
        Ok(Self(Some(threads)))
    }

    /// Returns the threads' handle, to move bodies to.
    pub fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for CompressionThreads {
    fn drop(&mut self) {
        // Does not wait: this may be dropped on a thread that serves others.
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

/// Has `body` polled by `threads`. Dropping the result drops the body there.
pub fn moved(body: BoxedBody, threads: &Handle) -> BoxedBody {
    // The end is marked: a task that was dropped must not be taken for one that finished.
    let (sender, receiver) = mpsc::channel::<Option<io::Result<Frame<Bytes>>>>(1);
    threads.spawn(async move {
        let mut body = body;
        loop {
            // A client that is gone is noticed while nothing is compressed, too.
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = sender.closed() => return,
            };
            let is_last = !matches!(frame, Some(Ok(_)));
            if sender.send(frame).await.is_err() || is_last {
                return;
            }
        }
    });
    let frames = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(Ok(frame))) => Some((Ok(frame), Some(receiver))),
            Some(Some(Err(error))) => Some((Err(error), None)),
            Some(None) => None,
            None => Some((Err(io::Error::other("the server stops")), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
