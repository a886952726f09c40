//! The store of results that wait for their tickets.
//!
//! GetFlightInfo promises an exact number of rows. If only running the query tells, its result is stored for the DoGet
//! that follows, so that no query runs twice. Results stay in memory up to a limit for all of them together, go to
//! spool files beyond it, and expire some time after their last use. A ticket may be redeemed any number of times.
//!
//! A spool file has no name: the system frees its space when the process ends, however it ends.

use crate::adapters::ipc::{DecodeLimits, Deframer, END_OF_STREAM, Encoder, Encoding, Message, batch_bytes, compact};
use crate::adapters::serving::ExpiringMap;
use crate::adapters::serving::ServerOptions;
use crate::ports::{BatchStream, Error, ErrorKind, MemoryAccount, Reservation, Result};
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, StreamExt};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::spawn_blocking;

/// Bytes read from a spool file at once.
const READ_BYTES: usize = 1 << 20;

/// Bytes beyond its own that a stored batch may keep alive in any case.
const KEPT_BYTES: usize = 64 << 10;

/// Least bytes that a stored result counts for: a thousand empty ones are not free either.
const BYTES_MIN: u64 = 4 << 10;

/// Most results that are stored at the same time.
const RESULTS_MAX: usize = 100_000;

/// Most spool files at the same time: each takes a file descriptor.
const SPOOLS_MAX: u64 = 1_000;

/// All stored results of a server.
#[derive(Debug)]
pub struct ResultStore {
    results: ExpiringMap<Arc<StoredResult>>,
    memory: Arc<AtomicU64>,
    disk: Arc<AtomicU64>,
    spools: Arc<AtomicU64>,
    account: MemoryAccount,
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
    _reserved: Vec<Reservation>,
    _disk: ByteGauge,
    _spools: ByteGauge,
}

#[derive(Debug)]
enum Rows {
    Memory(Vec<RecordBatch>),
    /// An IPC stream.
    Spool(Arc<File>),
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
    pub fn new(options: &ServerOptions) -> Self {
        let limits = &options.limits;
        Self {
            results: ExpiringMap::new(limits.ticket_ttl(), RESULTS_MAX),
            memory: Arc::default(),
            disk: Arc::default(),
            spools: Arc::default(),
            account: options.memory.clone(),
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
        let (mut spools, mut reserved) = (ByteGauge::new(&self.spools), Vec::new());
        let mut fits = memory.grow(BYTES_MIN, self.memory_max);
        let (mut kept, mut rows) = (Vec::new(), 0);
        let mut spool = None;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            if spool.is_none() {
                let batch = with_own_memory(batch);
                let bytes = batch_bytes(&batch) as u64;
                fits = fits && memory.grow(bytes, self.memory_max);
                // Where the account has no room either, the result goes to a file like one that is too large.
                fits = fits && self.account.try_reserve(bytes).map(|memory| reserved.push(memory)).is_some();
                kept.push(batch);
                if fits {
                    continue;
                }
                // Beyond the limit: the batches so far go to a file, and so does the rest.
                if !spools.grow(1, SPOOLS_MAX) {
                    return Err(Error::limit(format!(
                        "{SPOOLS_MAX} results are stored in files already; send the query as a ticket"
                    )));
                }
                spool = Some(self.spool(Spool::create(&schema, self.message_bytes_target)?, kept.split_off(0)).await?);
                memory.release();
                reserved.clear();
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
            Some(spool) => Rows::Spool(Arc::new(spool.finish()?)),
            None => Rows::Memory(kept),
        };
        let result = Arc::new(StoredResult {
            schema,
            rows: rows_kept,
            _memory: memory,
            _reserved: reserved,
            _disk: disk,
            _spools: spools,
        });
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
            // The stream holds the result, so that its memory counts for as long as there is a reader.
            Rows::Memory(batches) => {
                let (schema, count) = (result.schema.clone(), batches.len());
                let rest = stream::iter((0..count).map(move |at| match &result.rows {
                    Rows::Memory(batches) => Ok(batches[at].clone()),
                    Rows::Spool(_) => Err(Error::internal("a stored result has moved")),
                }));
                Ok(BatchStream::new(schema, rest))
            }
            Rows::Spool(file) => {
                let (schema, file) = (result.schema.clone(), file.clone());
                Ok(BatchStream::new(schema, read_spool(file).inspect(move |_| _ = &result)))
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

/// Copies rows that are a small part of what they would keep alive, such as those of a LIMIT.
fn with_own_memory(batch: RecordBatch) -> RecordBatch {
    if batch.get_array_memory_size() <= 4 * batch_bytes(&batch) + KEPT_BYTES {
        return batch;
    }
    let rows = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
    take_record_batch(&batch, &rows).map(|batch| compact(&batch)).unwrap_or(batch)
}

/// A spool file that is being written: an IPC stream.
struct Spool {
    file: BufWriter<File>,
    encoder: Encoder,
    bytes: u64,
}

impl Spool {
    fn create(schema: &SchemaRef, bytes_target: u64) -> Result<Self> {
        let file = tempfile::tempfile().map_err(spool_failed)?;
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

    fn finish(mut self) -> Result<File> {
        self.write_bytes(&END_OF_STREAM)?;
        self.file.into_inner().map_err(|error| spool_failed(error.into_error()))
    }
}

fn spool_failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::limit("the disk has no room for the result; send the query as a ticket").with_source(error)
        }
        _ => Error::internal("a spool file could not be used").with_source(error),
    }
}

/// Reads the batches of a spool file one at a time.
fn read_spool(file: Arc<File>) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    // The file is our own, so its messages need no limit.
    let deframer = Deframer::new(DecodeLimits::new(u64::MAX, 0));
    let beginning = SpoolReader { file, offset: 0, deframer };
    stream::try_unfold(beginning, |reader| async move {
        let read = spawn_blocking(move || reader.next_batch());
        read.await.map_err(|error| Error::internal("a spool file could not be read").with_source(error))?
    })
}

/// Reads a spool file from its beginning. The file is shared with other readers, so each keeps its own place.
struct SpoolReader {
    file: Arc<File>,
    offset: u64,
    deframer: Deframer,
}

impl SpoolReader {
    /// Reads the next batch; none at the end.
    fn next_batch(mut self) -> Result<Option<(RecordBatch, Self)>> {
        loop {
            if let Some(batch) = self.deframer.next_batch()? {
                return Ok(Some((batch, self)));
            }
            let mut piece = vec![0; READ_BYTES];
            match self.file.read_at(&mut piece, self.offset).map_err(spool_failed)? {
                0 => return self.deframer.finish().map(|()| None),
                read => {
                    self.offset += read as u64;
                    piece.truncate(read);
                    self.deframer.push(piece.into());
                }
            }
        }
    }
}
