//! The store of results that wait for their tickets.
//!
//! GetFlightInfo promises an exact number of rows. If only running the query tells, its result is stored for the DoGet
//! that follows, so that no query runs twice. Results stay in memory up to a limit for all of them together, go to
//! spool files beyond it, and expire some time after their last use. A ticket may be redeemed any number of times.

use crate::adapters::ipc::{DecodeLimits, Deframer, END_OF_STREAM, Encoder, Encoding, Message};
use crate::adapters::serving::ExpiringMap;
use crate::ports::{BatchStream, Error, ErrorKind, Limits, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, StreamExt};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::{NamedTempFile, TempPath};
use tokio::task::spawn_blocking;

/// Bytes read from a spool file at once.
const READ_BYTES: usize = 1 << 20;

/// Least bytes that a stored result counts for: a thousand empty ones are not free either.
const BYTES_MIN: u64 = 4 << 10;

/// Most results that are stored at the same time.
const RESULTS_MAX: usize = 100_000;

/// All stored results of a server.
#[derive(Debug)]
pub struct ResultStore {
    results: ExpiringMap<Arc<StoredResult>>,
    memory: Arc<AtomicU64>,
    disk: Arc<AtomicU64>,
    memory_max: u64,
    disk_max: u64,
    message_bytes_target: u64,
}

/// One result, and the memory and disk that it takes.
#[derive(Debug)]
struct StoredResult {
    schema: SchemaRef,
    rows: Rows,
    _memory: ByteGauge,
    _disk: ByteGauge,
}

#[derive(Debug)]
enum Rows {
    Memory(Vec<RecordBatch>),
    /// A file that is opened only when it is read: thousands of them may wait.
    Spool(TempPath),
}

/// Bytes that count against a common total until they are dropped.
#[derive(Debug)]
struct ByteGauge {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl ByteGauge {
    fn new(used: &Arc<AtomicU64>) -> Self {
        Self { used: used.clone(), bytes: 0 }
    }

    /// Adds bytes, and returns whether the total is at most `max` then. The caller gives them back by dropping or
    /// `release`.
    fn grow(&mut self, bytes: u64, max: u64) -> bool {
        // Added before the comparison: two results that grow at once must not both pass it.
        let used = self.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.bytes += bytes;
        used <= max
    }

    fn release(&mut self) {
        self.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::AcqRel);
    }
}

impl Drop for ByteGauge {
    fn drop(&mut self) {
        self.release();
    }
}

impl ResultStore {
    /// Creates an empty store.
    pub fn new(limits: &Limits) -> Self {
        Self {
            results: ExpiringMap::new(limits.ticket_ttl(), RESULTS_MAX),
            memory: Arc::default(),
            disk: Arc::default(),
            memory_max: limits.held_bytes_max,
            disk_max: limits.spool_bytes_max,
            message_bytes_target: limits.message_bytes_target,
        }
    }

    /// Stores all of `batches`, and returns the id of the result and its number of rows.
    ///
    /// # Errors
    ///
    /// Those of the stream, and `LimitExceeded` if there is no room.
    pub async fn put(&self, mut batches: BatchStream) -> Result<(u128, u64)> {
        let schema = batches.schema();
        let mut memory = ByteGauge::new(&self.memory);
        let mut disk = ByteGauge::new(&self.disk);
        let mut fits = memory.grow(BYTES_MIN, self.memory_max);
        let (mut kept, mut rows) = (Vec::new(), 0);
        let mut spool = None;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            if spool.is_none() {
                fits = fits && memory.grow(batch.get_array_memory_size() as u64, self.memory_max);
                kept.push(batch);
                if fits {
                    continue;
                }
                // Beyond the limit: the batches so far go to a file, and so does the rest.
                spool = Some(self.spool(Spool::create(&schema, self.message_bytes_target)?, kept.split_off(0)).await?);
                memory.release();
            } else if let Some(open) = spool.take() {
                spool = Some(self.spool(open, vec![batch]).await?);
            }
            let grown = spool.as_ref().map_or(0, |spool| spool.bytes - disk.bytes);
            if !disk.grow(grown, self.disk_max) {
                return Err(Error::limit(format!(
                    "stored results would take more than {} bytes of disk (spool_bytes_max); send the query as a ticket",
                    self.disk_max
                )));
            }
        }
        let rows_kept = match spool {
            Some(spool) => Rows::Spool(spool.finish()?.into_temp_path()),
            None => Rows::Memory(kept),
        };
        let result = Arc::new(StoredResult { schema, rows: rows_kept, _memory: memory, _disk: disk });
        let id = uuid::Uuid::new_v4().as_u128();
        if !self.results.insert(id, result) {
            let full =
                format!("{RESULTS_MAX} results are stored for their tickets already; send the query as a ticket");
            return Err(Error::limit(full));
        }
        Ok((id, rows))
    }

    async fn spool(&self, mut spool: Spool, batches: Vec<RecordBatch>) -> Result<Spool> {
        let written = spawn_blocking(move || {
            for batch in &batches {
                spool.write(batch)?;
            }
            Ok(spool)
        });
        written.await.map_err(|error| Error::internal("a result could not be spooled").with_source(error))?
    }

    /// Returns the batches of a stored result.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not stored, or has expired.
    pub fn get(&self, id: u128) -> Result<BatchStream> {
        let result = self.results.with(id, |result| result.clone()).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the ticket's result is no longer stored; ask for a new ticket")
        })?;
        match &result.rows {
            Rows::Memory(batches) => Ok(BatchStream::from_batches(result.schema.clone(), batches.clone())),
            Rows::Spool(file) => {
                let file = File::open(file).map_err(spool_failed)?;
                Ok(BatchStream::new(result.schema.clone(), read_spool(file)))
            }
        }
    }

    /// Removes a result.
    pub fn remove(&self, id: u128) {
        self.results.remove(id);
    }

    /// Removes expired results again and again; never returns.
    pub async fn expire(&self) {
        self.results.expire().await;
    }
}

/// A spool file that is being written: an IPC stream.
struct Spool {
    file: BufWriter<NamedTempFile>,
    encoder: Encoder,
    bytes: u64,
}

impl Spool {
    fn create(schema: &SchemaRef, bytes_target: u64) -> Result<Self> {
        let file = NamedTempFile::with_prefix("zepto-result-").map_err(spool_failed)?;
        let (encoder, first) = Encoder::new(schema, Encoding::plain(bytes_target));
        let mut spool = Self { file: BufWriter::new(file), encoder, bytes: 0 };
        spool.append(first)?;
        Ok(spool)
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for message in self.encoder.encode(batch)? {
            self.append(message)?;
        }
        Ok(())
    }

    fn append(&mut self, message: Message) -> Result<()> {
        message.into_pieces().try_for_each(|piece| self.write_bytes(&piece))
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(spool_failed)
    }

    fn finish(mut self) -> Result<NamedTempFile> {
        self.write_bytes(&END_OF_STREAM)?;
        self.file.into_inner().map_err(|error| spool_failed(error.into_error()))
    }
}

fn spool_failed(error: std::io::Error) -> Error {
    Error::internal("a spool file could not be used").with_source(error)
}

/// Reads the batches of a spool file one at a time.
fn read_spool(file: File) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    // The file is our own, so its messages need no limit.
    let deframer = Deframer::new(DecodeLimits { message_bytes_max: u64::MAX, inflated_bytes_max: 0 });
    stream::try_unfold((file, deframer), |(file, deframer)| async move {
        let read = spawn_blocking(move || read_batch(file, deframer));
        read.await.map_err(|error| Error::internal("a spool file could not be read").with_source(error))?
    })
}

type SpoolItem = Option<(RecordBatch, (File, Deframer))>;

fn read_batch(mut file: File, mut deframer: Deframer) -> Result<SpoolItem> {
    loop {
        if let Some(batch) = deframer.next_batch()? {
            return Ok(Some((batch, (file, deframer))));
        }
        let mut piece = Vec::with_capacity(READ_BYTES);
        match Read::take(&mut file, READ_BYTES as u64).read_to_end(&mut piece).map_err(spool_failed)? {
            0 => return deframer.finish().map(|()| None),
            _ => deframer.push(piece.into()),
        }
    }
}
