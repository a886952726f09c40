//! Columns on their way into memory, where they are not: read by other threads, one segment ahead of the one that is handed out.
//!
//! A scan of what is in memory does not come by here: nothing is waited for, and no thread is changed.

use crate::domain::executor::error::to_datafusion;
use crate::domain::executor::scan::pieces::{Piece, Slice, slices};
use crate::domain::storage::{LoadedColumns, Segment};
use datafusion::common::{DataFusionError, Result};
use futures::stream::{self, Stream, StreamExt};
use std::sync::Arc;

/// Of so many parts of the memory, how many may be in use for a segment to be read while another one is handed out.
const AHEAD_SHARE: (u64, u64) = (10, 8);

/// Returns columns of a segment, by another thread where they have to be read.
///
/// # Errors
///
/// Those of the store, and `ResourcesExhausted` where there is no memory for them.
pub async fn loaded(segment: &Arc<Segment>, columns: &[usize]) -> Result<LoadedColumns> {
    if segment.columns().are_in_memory(columns) {
        return segment.columns().load(columns).map_err(to_datafusion);
    }
    let (segment, columns) = (segment.clone(), columns.to_vec());
    let read = tokio::task::spawn_blocking(move || segment.columns().load(&columns));
    read.await.map_err(|error| DataFusionError::External(Box::new(error)))?.map_err(to_datafusion)
}

/// Divides pieces into batches of so many rows, each of which has its `columns` in memory.
pub fn loaded_slices(
    pieces: Vec<Piece>,
    columns: Vec<usize>,
    batch_rows: usize,
) -> impl Stream<Item = Result<Slice>> + Send {
    let columns: Arc<[usize]> = columns.into();
    let is_memory_short = pieces.first().is_some_and(|piece| {
        let account = piece.segment.account();
        account.used() > (account.bytes_max() / AHEAD_SHARE.0).saturating_mul(AHEAD_SHARE.1)
    });
    let load = move |piece: Piece| {
        let columns = columns.clone();
        async move { loaded(&piece.segment, &columns).await.map(|loaded| (piece, Arc::new(loaded))) }
    };
    let pieces = stream::iter(pieces).map(load).buffered(if is_memory_short { 1 } else { 2 });
    pieces.flat_map(move |loaded| {
        let slices: Box<dyn Iterator<Item = Result<Slice>> + Send> = match loaded {
            Ok((piece, columns)) => Box::new(slices(piece, columns, batch_rows).map(Ok)),
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        stream::iter(slices)
    })
}
