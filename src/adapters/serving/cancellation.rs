//! Cuts off work and streams when a token is cancelled.
//!
//! A server that stops and a query that is cancelled need the same: the caller gets an error instead of the rest.

use crate::ports::{BatchStream, Error, Result};
use futures::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;

/// Runs `work` until it ends or `token` is cancelled.
///
/// # Errors
///
/// Those of `work`, and `error()` if the token is cancelled first.
pub async fn or_cancelled<T>(
    token: &CancellationToken,
    error: fn() -> Error,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        // The token goes first: work that is ready at once must not run for a query that was cancelled already.
        biased;
        () = token.cancelled() => Err(error()),
        done = work => done,
    }
}

/// Passes `batches` on until they end or `token` is cancelled; then the last item is `error()`.
///
/// `guard` is dropped with the stream, or at its end.
pub fn until_cancelled<G: Send + 'static>(
    batches: BatchStream,
    token: CancellationToken,
    guard: G,
    error: fn() -> Error,
) -> BatchStream {
    let schema = batches.schema();
    let batches = stream::unfold(Some((batches, token, guard)), move |running| async move {
        let (mut batches, token, guard) = running?;
        let next = tokio::select! {
            biased;
            () = token.cancelled() => Some(Err(error())),
            next = batches.next() => next,
        }?;
        // An error ends the stream, and lets go of the guard at once.
        let rest = next.is_ok().then_some((batches, token, guard));
        Some((next, rest))
    });
    BatchStream::new(schema, batches)
}
