//! Arrow IPC streams.

use crate::adapters::formats::read::chunks::ChunkStream;
use crate::adapters::ipc::{DecodeLimits, StreamErrors, read_stream, strip_sql_metadata};
use crate::ports::BatchStream;

/// Reads an Arrow IPC stream. Returns once its schema has arrived.
///
/// # Errors
///
/// Those of the chunks, `InvalidQuery` for anything that is not an IPC stream, `LimitExceeded` beyond `limits`.
pub async fn read_arrow<S: ChunkStream>(chunks: S, limits: DecodeLimits) -> Result<BatchStream, S::Error> {
    // A body that ends too early is its sender's mistake, so the error stays what it is.
    let errors = StreamErrors { transport: Into::into, truncated: |error| error };
    read_stream(chunks, limits, errors).await.map(strip_sql_metadata)
}
