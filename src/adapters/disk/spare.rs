//! Files that are made ready before they are needed.
//!
//! Writing a file's zeros takes as long as some hundred commits, so the next file is made while the one before it is filled. That
//! is also where a full disk is noticed: before any commit depends on the space. Files begin small and double, so that a server that
//! keeps little writes little.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::{BLOCK, Disk, DiskFile};
use crate::adapters::disk::file::{FOLDER, path_of};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long to wait before a file that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of a file that is worth being made.
const BYTES_LEAST: u64 = 4 * BLOCK as u64;

/// The next file.
#[derive(Debug)]
pub struct Spare {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: u64,
}

#[derive(Debug)]
struct State {
    ready: Option<Made>,
    next_number: u64,
    next_bytes: u64,
    is_making: bool,
    is_stopped: bool,
}

/// A file of zeros.
#[derive(Debug)]
pub struct Made {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Its number.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
}

impl Spare {
    /// Makes files from number `next_number` on, the first of `bytes_min`, later ones of up to `bytes_max` bytes.
    pub fn new(next_number: u64, bytes_min: u64, bytes_max: u64) -> Self {
        let state = State { ready: None, next_number, next_bytes: bytes_min, is_making: false, is_stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), bytes_max }
    }

    /// Takes a file of at least so many bytes: the one that is ready, else one that is made now. Of one that is longer than any other,
    /// only the beginning and the last `reserve_bytes` are there: the rest comes as it is written, or it would be written twice.
    pub fn take(&self, disk: &dyn Disk, bytes: u64, reserve_bytes: u64) -> io::Result<Made> {
        let mut state = self.lock();
        while state.is_making {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(made) = state.ready.take_if(|made| made.bytes >= bytes) {
            self.changed.notify_all();
            return Ok(made);
        }
        if bytes > state.next_bytes {
            let (number, bytes) = (state.next_number, bytes.next_multiple_of(BLOCK as u64));
            state.next_number += 1;
            drop(state);
            let file = make(disk, number, BLOCK as u64)?;
            let zeros = AlignedBuffer::new(reserve_bytes.next_multiple_of(BLOCK as u64).min(bytes) as usize);
            let reserved = file.write_at(zeros.as_slice(), bytes - zeros.as_slice().len() as u64, true);
            if let Err(error) = reserved {
                disk.remove(&path_of(number))?;
                return Err(error);
            }
            return Ok(Made { file, number, bytes });
        }
        // On a disk that is almost full a short file will do.
        let mut length = state.next_bytes;
        loop {
            match self.make(disk, state, length) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && length / 2 >= bytes.max(BYTES_LEAST) => {
                    length = (length / 2).next_multiple_of(BLOCK as u64);
                    state = self.lock();
                }
                made => {
                    made?;
                    let made = self.lock().ready.take();
                    self.changed.notify_all();
                    return made.ok_or_else(|| io::Error::other("a file that was made is gone"));
                }
            }
        }
    }

    /// Makes the next file ready, unless it is.
    pub fn prepare(&self, disk: &dyn Disk) -> io::Result<()> {
        let state = self.lock();
        if state.ready.is_none() && !state.is_making {
            let length = state.next_bytes;
            self.make(disk, state, length)?;
        }
        Ok(())
    }

    /// Returns the length of the file that is ready; 0 where none is.
    pub fn ready_bytes(&self) -> u64 {
        self.lock().ready.as_ref().map_or(0, |made| made.bytes)
    }

    /// Keeps one file ready until [`Spare::stop`].
    pub fn keep_ready(&self, disk: &dyn Disk) {
        let mut has_failed = false;
        loop {
            let mut state = self.lock();
            while !state.is_stopped && (state.ready.is_some() || has_failed) {
                let waited = self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                has_failed = has_failed && !waited.1.timed_out();
            }
            if state.is_stopped {
                return;
            }
            drop(state);
            if let Err(error) = self.prepare(disk) {
                tracing::warn!(%error, "the next file of the journal could not be made; it is tried again");
                has_failed = true;
            }
        }
    }

    /// Has [`Spare::keep_ready`] return.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Makes the next file ready, without holding the lock.
    fn make(&self, disk: &dyn Disk, mut state: MutexGuard<'_, State>, bytes: u64) -> io::Result<()> {
        let number = state.next_number;
        state.next_number += 1;
        state.is_making = true;
        drop(state);
        let made = make(disk, number, bytes);
        let mut state = self.lock();
        state.is_making = false;
        self.changed.notify_all();
        state.ready = Some(Made { file: made?, number, bytes });
        state.next_bytes = (bytes * 2).min(self.bytes_max);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(disk: &dyn Disk, number: u64, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(&path_of(number), bytes)?;
    disk.sync_folder(FOLDER)?;
    Ok(file)
}
