//! Which files the journal has, so that those before a checkpoint can go.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The files in use, the oldest first.
#[derive(Debug, Default)]
pub struct JournalFiles(Mutex<Vec<JournalFile>>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalFile {
    /// Its number.
    pub number: u64,
    /// The first commit that it may have.
    pub first_lsn: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl JournalFiles {
    /// Makes a list of files, the oldest first.
    pub fn new(files: Vec<JournalFile>) -> Self {
        Self(Mutex::new(files))
    }

    /// Notes that another file is begun.
    pub fn push(&self, file: JournalFile) {
        self.lock().push(file);
    }

    /// Notes that a file is gone.
    pub fn forget(&self, number: u64) {
        self.lock().retain(|file| file.number != number);
    }

    /// Notes that a file became shorter.
    pub fn shorten(&self, number: u64, bytes: u64) {
        self.lock().iter_mut().filter(|file| file.number == number).for_each(|file| file.bytes = bytes);
    }

    /// Returns the numbers of the files all of whose commits are at most `upto`, the oldest first: never the last file.
    pub fn before(&self, upto: u64) -> Vec<u64> {
        let files = self.lock();
        let over = files.windows(2).take_while(|pair| pair[1].first_lsn <= upto.saturating_add(1));
        over.map(|pair| pair[0].number).collect()
    }

    /// Returns their bytes.
    pub fn bytes(&self) -> u64 {
        self.lock().iter().map(|file| file.bytes).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JournalFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::disk::journal_files::{JournalFile, JournalFiles};

    #[test]
    fn a_file_may_go_once_the_next_begins_before_what_is_needed() {
        let file = |number, first_lsn| JournalFile { number, first_lsn, bytes: 10 };
        let files = JournalFiles::new(vec![file(1, 1), file(4, 11), file(2, 21)]);
        assert_eq!((files.before(9), files.before(10), files.before(100)), (vec![], vec![1], vec![1, 4]));
        files.forget(1);
        files.shorten(4, 5);
        assert_eq!((files.before(100), files.bytes()), (vec![4], 15));
    }
}
