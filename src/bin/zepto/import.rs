//! `zepto import`: files into a table, as one stream: all of them or nothing.

use crate::args::Import;
use crate::files::{FileBatches, Input, inputs};
use crate::progress::Progress;
use crate::remote::Remote;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use zepto_flight::ports::{Append, BatchStream, Error, Result};

/// Batches that are read ahead.
const READ_AHEAD_BATCHES: usize = 4;

/// Runs `zepto import`.
///
/// # Errors
///
/// The files' and the server's.
pub async fn run(remote: &Remote, import: Import) -> Result<()> {
    let inputs = inputs(&import.files)?;
    let formats = inputs.iter().map(|input| import.format.map_or_else(|| input.format(), Ok));
    let formats = formats.collect::<Result<Vec<_>>>()?;
    let total: Option<u64> = inputs.iter().map(Input::bytes).sum();
    let mut files = inputs.into_iter().zip(formats);
    let Some((first, format)) = files.next() else { return Ok(()) };
    let FileBatches { schema, batches } = first.open(format)?;
    let progress = Arc::new(Mutex::new(Progress::new(total)));
    // Later files are opened when their turn comes; an error in one ends the stream.
    let all = batches.chain(files.flat_map({
        let schema = schema.clone();
        move |(input, format)| match input.open(format).and_then(|opened| check_same_columns(&schema, opened)) {
            Ok(opened) => opened.batches,
            Err(error) => Box::new(std::iter::once(Err(error))) as Box<dyn Iterator<Item = _> + Send>,
        }
    }));
    if import.dry_run {
        return dry_run(&schema, all, &import.table);
    }
    let observed = progress.clone();
    let all = all.inspect(move |batch| {
        if let Ok(batch) = batch {
            let bytes = batch.get_array_memory_size() as u64;
            observed.lock().unwrap_or_else(PoisonError::into_inner).add(batch.num_rows() as u64, bytes);
        }
    });
    let append = Append {
        table: import.table.clone(),
        if_missing: import.if_missing.into(),
        if_exists: import.if_exists.into(),
        ..Append::default()
    };
    let summary = remote.ingest.append(append, into_stream(schema, all)).await?;
    if let Some(progress) = Arc::into_inner(progress) {
        let made = if summary.table_created { "new table" } else { "table" };
        let place = format!("into {made} {:?}", import.table);
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish("imported", &place);
    }
    Ok(())
}

/// Checks that a file has the columns of the first: one stream has one schema.
fn check_same_columns(schema: &SchemaRef, opened: FileBatches) -> Result<FileBatches> {
    if opened.schema.fields() == schema.fields() {
        return Ok(opened);
    }
    Err(Error::mismatch("the files do not all have the same columns; import them one by one"))
}

/// Turns the batches into a stream. A thread of its own reads them, since reading a file blocks.
fn into_stream(schema: SchemaRef, batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static) -> BatchStream {
    let (sender, receiver) = mpsc::channel(READ_AHEAD_BATCHES);
    tokio::task::spawn_blocking(move || {
        for batch in batches {
            let failed = batch.is_err();
            if sender.blocking_send(batch.map(Some)).is_err() || failed {
                return;
            }
        }
        // The end is marked explicitly: a reader that panics must not be taken for one that has finished.
        let _ = sender.blocking_send(Ok(None));
    });
    let batches = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(Some(batch))) => Some((Ok(batch), Some(receiver))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(Error::invalid("a file is corrupt")), None)),
        }
    });
    BatchStream::new(schema, batches)
}

fn dry_run(schema: &SchemaRef, batches: impl Iterator<Item = Result<RecordBatch>>, table: &str) -> Result<()> {
    let mut rows = 0;
    for batch in batches {
        rows += batch?.num_rows();
    }
    let mut out = std::io::stdout().lock();
    let mut line = |text: String| writeln!(out, "{text}").map_err(|error| crate::output::output_error(&error));
    line(format!("{rows} rows would go into {table:?}, with these columns:"))?;
    for field in schema.fields() {
        line(format!("  {} {}", field.name(), field.data_type()))?;
    }
    Ok(())
}
