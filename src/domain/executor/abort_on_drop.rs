//! A task that ends with the future that waits for it.

use crate::ports::{Error, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Aborts its task when dropped.
#[derive(Debug)]
pub struct AbortOnDrop<T>(pub JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<Result<T>> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|joined| match joined {
            Ok(result) => result,
            // The runtime aborts its tasks only when it shuts down.
            Err(error) if error.is_cancelled() => Err(Error::stopping()),
            Err(error) => Err(Error::internal("internal error").with_source(error)),
        })
    }
}
