//! Arrow IPC streams.

use crate::adapters::http::incoming::{Body, Failure};
use crate::adapters::ipc::{DecodeLimits, Ends, read_stream, strip_sql_metadata};
use crate::ports::{BatchStream, Limits};

/// The batches of an Arrow body.
pub async fn batches(body: Body, limits: &Limits) -> Result<BatchStream, Failure> {
    // A body that ends too early is a mistake of its sender's.
    let ends = Ends { lost: Failure::into_error, cut_off: |error| error };
    read_stream(body, DecodeLimits::from(limits), ends).await.map(strip_sql_metadata)
}
