//! What the readers of arriving bodies take: a stream of chunks with an error of the protocol's own.

use crate::ports::Error;
use bytes::Bytes;
use futures::stream::Stream;

/// The chunks of a body, in order, of any size.
///
/// Errors that occur before the schema is known are returned unchanged, so that a protocol keeps its own status for
/// them; later ones become an [`Error`] of the stream of batches.
pub trait ChunkStream: Stream<Item = Result<Bytes, <Self as ChunkStream>::Error>> + Unpin + Send + 'static {
    /// Error of a chunk that did not arrive.
    type Error: From<Error> + Into<Error> + Send + 'static;
}

impl<S, E> ChunkStream for S
where
    S: Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static,
    E: From<Error> + Into<Error> + Send + 'static,
{
    type Error = E;
}
