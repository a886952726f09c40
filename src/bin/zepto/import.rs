//! `zepto import`: files into a table, as one stream, so all of them or nothing.

use crate::args::Import;
use crate::files::{Batches, Source, sources};
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
const AHEAD: usize = 4;

/// Runs `zepto import`.
///
/// # Errors
///
/// The files' and the server's.
pub async fn run(remote: &Remote, import: Import) -> Result<()> {
    let sources = sources(&import.files)?;
    let formats = sources.iter().map(|source| import.format.map_or_else(|| source.format(), Ok));
    let formats = formats.collect::<Result<Vec<_>>>()?;
    let total: Option<u64> = sources.iter().map(Source::bytes).sum();
    let mut files = sources.into_iter().zip(formats);
    let Some((first, format)) = files.next() else { return Ok(()) };
    let Batches { schema, batches } = first.open(format)?;
    let progress = Arc::new(Mutex::new(Progress::new(total)));
    // How much of the file a batch stands for: its own share, since readers read ahead.
    let all = batches.chain(files.flat_map({
        let schema = schema.clone();
        move |(source, format)| match source.open(format).and_then(|opened| same(&schema, opened)) {
            Ok(opened) => opened.batches,
            Err(error) => Box::new(std::iter::once(Err(error))) as Box<dyn Iterator<Item = _> + Send>,
        }
    }));
    if import.dry_run {
        return dry_run(&schema, all, &import.table);
    }
    let heard = progress.clone();
    let all = all.inspect(move |batch| {
        if let Ok(batch) = batch {
            let bytes = batch.get_array_memory_size() as u64;
            heard.lock().unwrap_or_else(PoisonError::into_inner).add(batch.num_rows() as u64, bytes);
        }
    });
    let append = Append {
        table: import.table.clone(),
        if_missing: import.if_missing.into(),
        if_exists: import.if_exists.into(),
        ..Append::default()
    };
    let summary = remote.ingest.append(append, streamed(schema, all)).await?;
    if let Some(progress) = Arc::into_inner(progress) {
        let made = if summary.table_created { "new table" } else { "table" };
        let place = format!("into {made} {:?}", import.table);
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).done("imported", &place);
    }
    Ok(())
}

/// Files of one import have the same columns: one stream has one schema.
fn same(schema: &SchemaRef, opened: Batches) -> Result<Batches> {
    if opened.schema.fields() == schema.fields() {
        return Ok(opened);
    }
    Err(Error::mismatch("the files do not all have the same columns; import them one by one"))
}

/// The batches as a stream; a thread of its own reads them, for reading a file waits.
fn streamed(schema: SchemaRef, batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static) -> BatchStream {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        for batch in batches {
            let failed = batch.is_err();
            if sender.blocking_send(batch.map(Some)).is_err() || failed {
                return;
            }
        }
        // The end is said in so many words: a reader that panics must not be taken for one that has finished.
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
    let mut line = |text: String| writeln!(out, "{text}").map_err(|error| crate::output::unwritten(&error));
    line(format!("{rows} rows would go into {table:?}, with these columns:"))?;
    for field in schema.fields() {
        line(format!("  {} {}", field.name(), field.data_type()))?;
    }
    Ok(())
}
