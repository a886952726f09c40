//! Where the next group of records goes: the file in use, and the one after it.
//!
//! A group never spans files. One that does not fit goes to the next file, which was made ready while this one was filled; only a
//! group longer than that waits for a file of its own. A file is begun when all groups of the one before it are durable,
//! because its header says where that one ends.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::{BLOCK, Disk, DiskFile};
use crate::adapters::disk::file::{FIRST_RECORD, FOLDER, FileHeader, path_of};
use crate::adapters::disk::journal_files::{JournalFile, JournalFiles};
use crate::adapters::disk::spare::Spare;
use std::io;
use std::sync::Arc;

/// Bytes at the end of a file for groups that only take away: a full disk must not keep anybody from deleting.
const RESERVE_BYTES: u64 = 64 << 10;

/// The file in use.
#[derive(Debug)]
pub struct Writer {
    disk: Arc<dyn Disk>,
    spare: Arc<Spare>,
    store: u128,
    file: Arc<dyn DiskFile>,
    header: FileHeader,
    /// Where the next group goes.
    offset: u64,
    bytes: u64,
    files: Arc<JournalFiles>,
    /// Whether groups were written that nothing has synced.
    pub is_dirty: bool,
}

/// Where a group is to be written.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// The place in it.
    pub offset: u64,
}

/// What came before a file that is begun.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// The file before; 0 for none.
    pub number: u64,
    /// Where it ends.
    pub end: u64,
    /// The last commit in it.
    pub lsn: u64,
    /// How many files were begun, whether they still count or not.
    pub turns: u64,
}

impl Writer {
    /// Begins a file after those that are there.
    pub fn begin(
        disk: Arc<dyn Disk>,
        spare: Arc<Spare>,
        store: u128,
        before: Before,
        files: Arc<JournalFiles>,
    ) -> io::Result<Self> {
        let begun = begin_file(disk.as_ref(), &spare, store, before, 0)?;
        files.push(begun.listed());
        Ok(Self {
            files,
            disk,
            spare,
            store,
            file: begun.file,
            header: begun.header,
            offset: FIRST_RECORD,
            bytes: begun.bytes,
            is_dirty: false,
        })
    }

    /// Returns the salt of the file in use.
    pub fn salt(&self) -> u64 {
        self.header.salt
    }

    /// Returns whether a group of so many bytes has room in the file.
    pub fn has_room(&self, bytes: u64, only_takes_away: bool) -> bool {
        let reserve = if only_takes_away { 0 } else { reserve_bytes(self.bytes) };
        self.offset + bytes + reserve <= self.bytes
    }

    /// Takes the place of a group, which has room.
    pub fn place(&mut self, bytes: u64) -> Place {
        let place = Place { file: self.file.clone(), offset: self.offset };
        self.offset += bytes.next_multiple_of(BLOCK as u64);
        place
    }

    /// Takes back the place of the last group, which was not written.
    pub fn give_back(&mut self, place: &Place) {
        self.offset = place.offset;
    }

    /// Goes on in the next file, in which a group of so many bytes has room. All groups before are written.
    pub fn next_file(&mut self, last_lsn: u64, bytes: u64) -> io::Result<()> {
        self.go_on(
            Before { number: self.header.number, end: self.offset, lsn: last_lsn, turns: self.header.turn + 1 },
            bytes,
        )
    }

    /// Goes on in the next file, as if nothing had been written to this one from `end` on, which never counts again.
    pub fn abandon_from(&mut self, end: u64, last_lsn: u64) -> io::Result<()> {
        let FileHeader { number, previous, previous_end, .. } = self.header;
        // What is given up may be the very space that is missing.
        self.file.shorten(end)?;
        self.files.shorten(number, end);
        if end > FIRST_RECORD || previous == 0 {
            return self.go_on(Before { number, end, lsn: last_lsn, turns: self.header.turn + 1 }, 0);
        }
        // Nothing of this file counts: without it there is more space.
        self.go_on(Before { number: previous, end: previous_end, lsn: last_lsn, turns: self.header.turn + 1 }, 0)?;
        self.disk.remove(&path_of(number))?;
        self.files.forget(number);
        self.disk.sync_folder(FOLDER)
    }

    fn go_on(&mut self, before: Before, bytes: u64) -> io::Result<()> {
        if self.is_dirty {
            // The next file says that all of this one is there.
            self.file.sync().map_err(io::Error::other)?;
            self.is_dirty = false;
        }
        let begun = begin_file(self.disk.as_ref(), &self.spare, self.store, before, bytes)?;
        self.files.push(begun.listed());
        (self.file, self.header, self.bytes) = (begun.file, begun.header, begun.bytes);
        (self.offset, self.is_dirty) = (FIRST_RECORD, false);
        Ok(())
    }
}

/// Returns how much of a file is for groups that only take away.
fn reserve_bytes(file_bytes: u64) -> u64 {
    RESERVE_BYTES.min(file_bytes / 4)
}

/// Returns how long a file is in which a group of so many bytes has room.
fn file_bytes(group_bytes: u64) -> u64 {
    let used = FIRST_RECORD + group_bytes;
    used + RESERVE_BYTES.min(used / 3 + 1)
}

struct Begun {
    file: Arc<dyn DiskFile>,
    header: FileHeader,
    bytes: u64,
}

impl Begun {
    fn listed(&self) -> JournalFile {
        JournalFile { number: self.header.number, first_lsn: self.header.first_lsn, bytes: self.bytes }
    }
}

/// Begins a file with room for so many bytes: its header is durable when this returns.
fn begin_file(disk: &dyn Disk, spare: &Spare, store: u128, before: Before, bytes: u64) -> io::Result<Begun> {
    let made = spare.take(disk, file_bytes(bytes), RESERVE_BYTES)?;
    let header = FileHeader {
        store,
        salt: uuid::Uuid::new_v4().as_u64_pair().0,
        number: made.number,
        turn: before.turns,
        first_lsn: before.lsn + 1,
        previous: before.number,
        previous_end: before.end,
    };
    let mut block = AlignedBuffer::new(BLOCK);
    block.as_mut_slice().copy_from_slice(&header.to_block());
    // Whatever the reason is, the header may be there: then what is still written to the file before it would not count. So this is
    // never the kind of error after which everything is as it was.
    made.file.write_at(block.as_slice(), 0, true).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Begun { file: made.file, header, bytes: made.bytes })
}
