//! The journal of a data directory: the port, over a reader at the start and a log from then on.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::{BLOCK, Disk};
use crate::adapters::disk::file::{FOLDER, NO_JOURNAL, number_of, path_of};
use crate::adapters::disk::journal_files::JournalFiles;
use crate::adapters::disk::log::Log;
use crate::adapters::disk::reader::{Base, End, Reader};
use crate::adapters::disk::spare::Spare;
use crate::adapters::disk::writer::{Before, Writer};
use crate::ports::{Entry, Error, Journal, JournalState, Lsn, OnDone, Recorded, Result};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};

/// How a journal uses its disk.
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// Groups that are written at the same time; 0: each commit is written by whoever appends it, before that returns.
    pub threads: usize,
    /// Bytes of the first file; each later one has twice as many.
    pub file_bytes_min: u64,
    /// Bytes of a file at most, unless one commit has more.
    pub file_bytes_max: u64,
    /// Bytes from which on no more commits are put to a group; twice as many are written with one call.
    pub group_bytes: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { threads: 3, file_bytes_min: 256 << 10, file_bytes_max: 64 << 20, group_bytes: 4 << 20 }
    }
}

/// A store's name and where its commits begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId {
    /// The store's own number.
    pub store: u128,
    /// The number before that of its first commit.
    pub before: u64,
}

/// Takes commits down in files.
#[derive(Debug)]
pub struct DiskJournal {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    id: StoreId,
    options: JournalOptions,
    /// There once everything was read.
    log: OnceLock<(Arc<Log>, Arc<Spare>)>,
    files: OnceLock<Arc<JournalFiles>>,
    /// The buffer of a journal without threads.
    staging: Mutex<Option<AlignedBuffer>>,
}

impl DiskJournal {
    /// Makes the journal of a store.
    pub fn new(disk: Arc<dyn Disk>, id: StoreId, options: JournalOptions) -> Self {
        let shared =
            Shared { disk, id, options, log: OnceLock::new(), files: OnceLock::new(), staging: Mutex::default() };
        Self { shared: Arc::new(shared), threads: Arc::default() }
    }
}

impl Journal for DiskJournal {
    fn recorded(&self, after: Option<Lsn>) -> Result<Recorded> {
        let Shared { disk, id, .. } = self.shared.as_ref();
        disk.create_folder(FOLDER).and_then(|()| disk.sync_folder("")).map_err(|error| unwritable(&error))?;
        let base = after.map_or(id.before, |after| after.0);
        let reader = Reader::open(disk.clone(), id.store, Base { lsn: base, is_checkpoint: after.is_some() })?;
        let entries = Entries { reader: Some(reader), shared: self.shared.clone(), threads: self.threads.clone() };
        Ok(Recorded { before: Lsn(base), entries: Box::new(entries) })
    }

    fn append(&self, entry: Entry, on_done: OnDone) {
        let Some((log, spare)) = self.shared.log.get() else {
            return on_done(Err(Error::internal("the journal was not read to its end")));
        };
        log.append(entry, on_done);
        if self.shared.options.threads == 0 {
            let mut staging = self.shared.staging.lock().unwrap_or_else(PoisonError::into_inner);
            log.drain(staging.get_or_insert_with(|| self.shared.options.staging()));
            if let Err(error) = spare.prepare(self.shared.disk.as_ref()) {
                tracing::debug!(%error, "the next file of the journal could not be made");
            }
        }
    }

    fn trim(&self, upto: Lsn) -> Result<()> {
        let Some(files) = self.shared.files.get() else { return Ok(()) };
        self.remove_before(files, upto)
            .map_err(|error| Error::unavailable(format!("files of the journal could not be removed: {error}")))
    }

    fn state(&self) -> JournalState {
        let (Some((log, spare)), Some(files)) = (self.shared.log.get(), self.shared.files.get()) else {
            return JournalState::default();
        };
        JournalState { bytes: files.bytes() + spare.ready_bytes(), is_failed: log.is_failed() }
    }
}

impl DiskJournal {
    fn remove_before(&self, files: &JournalFiles, upto: Lsn) -> io::Result<()> {
        let disk = &self.shared.disk;
        let numbers = files.before(upto.0);
        for number in &numbers {
            match disk.remove(&path_of(*number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => files.forget(*number),
            }
        }
        if numbers.is_empty() { Ok(()) } else { disk.sync_folder(FOLDER) }
    }
}

impl Drop for DiskJournal {
    /// Writes what came, and says in the journal that all of it is there.
    fn drop(&mut self) {
        let Some((log, spare)) = self.shared.log.get() else { return };
        log.stop();
        spare.stop();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads what was taken down, and has the journal go on after it.
struct Entries {
    reader: Option<Reader>,
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.as_mut()?.next_entry() {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                let reader = self.reader.take()?;
                self.go_on(&reader).map_err(|error| unwritable(&error)).err().map(Err)
            }
            Err(error) => {
                self.reader = None;
                Some(Err(error))
            }
        }
    }
}

impl Entries {
    fn go_on(&self, reader: &Reader) -> io::Result<()> {
        let Shared { disk, id, options, log, .. } = self.shared.as_ref();
        let End { number, offset, lsn, time_us, highest, turns, torn_bytes } = reader.end();
        if torn_bytes > 0 {
            tracing::warn!(file = path_of(number), offset, torn_bytes, "a commit that was interrupted is cut off");
        }
        // What was made ready and not used, and what was abandoned: its space may be what is missing.
        let kept: BTreeSet<u64> = reader.kept().chain(reader.empty()).collect();
        for name in disk.list(FOLDER)? {
            if number_of(&name).is_some_and(|number| !kept.contains(&number)) {
                disk.remove(&format!("{FOLDER}/{name}"))?;
            }
        }
        disk.sync_folder(FOLDER)?;
        let before = Before { number, end: offset, lsn, turns };
        let spare = Arc::new(Spare::new(highest + 1, options.file_bytes_min, options.file_bytes_max));
        let files = Arc::new(JournalFiles::new(reader.files()));
        let writer = Writer::begin(disk.clone(), spare.clone(), id.store, before, files.clone())?;
        let _ = self.shared.files.set(files);
        if disk.len(NO_JOURNAL).is_ok() {
            disk.remove(NO_JOURNAL)?;
            disk.sync_folder(FOLDER)?;
        }
        if let Some(empty) = reader.empty() {
            disk.remove(&path_of(empty))?;
            disk.sync_folder(FOLDER)?;
        }
        let made = Arc::new(Log::new(writer, spare.clone(), lsn, time_us, options.group_bytes as u64));
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..options.threads {
            let (log, options) = (made.clone(), *options);
            threads.push(Builder::new().name("journal".into()).spawn(move || log.run(&mut options.staging()))?);
        }
        if options.threads > 0 {
            let (spare, disk) = (spare.clone(), disk.clone());
            threads.push(Builder::new().name("journal-files".into()).spawn(move || spare.keep_ready(disk.as_ref()))?);
        } else {
            spare.prepare(disk.as_ref())?;
        }
        log.set((made, spare)).map_err(|_| io::Error::other("the journal was read twice"))
    }
}

impl JournalOptions {
    fn staging(&self) -> AlignedBuffer {
        AlignedBuffer::new((2 * self.group_bytes).next_multiple_of(BLOCK))
    }
}

fn unwritable(error: &io::Error) -> Error {
    Error::unavailable(format!("the data directory cannot be written: {error}"))
}
