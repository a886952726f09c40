//! Reading the journal: which files belong to it, which of their records count, and where it ends.
//!
//! The file that was begun last is the last one; each names the one before it and where that ends, so every end is known but the
//! last. There, the first record that cannot be read is the end, for one of two reasons: a crash interrupted the write of something
//! that was not acknowledged, or something acknowledged was damaged. Which of the two, a later record tells: one that was written
//! when the missing number was already durable. Then the journal refuses to be read, rather than to forget; and so it does wherever
//! else anything is missing.

use crate::adapters::disk::device::{BLOCK, Disk};
use crate::adapters::disk::entry_codec::read_effects;
use crate::adapters::disk::file::{FIRST_RECORD, FOLDER, FileHeader, NO_JOURNAL, number_of, path_of};
use crate::adapters::disk::journal_files::JournalFile;
use crate::adapters::disk::record::{HEADER_BYTES, Header, Kind};
use crate::ports::{Durability, Entry, Error, Lsn, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Where a journal ends, and what is to be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The last file; 0 where there is none.
    pub number: u64,
    /// Where its records end.
    pub offset: u64,
    /// The number of the last commit.
    pub lsn: u64,
    /// When it was made.
    pub time_us: i64,
    /// The highest number that any file has, used or not.
    pub highest: u64,
    /// How many files were begun.
    pub turns: u64,
    /// Bytes at the end that were cut off, because a crash interrupted their write.
    pub torn_bytes: u64,
}

/// What a journal is read on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The commit before the first that is needed.
    pub lsn: u64,
    /// Whether a checkpoint has it and all before it, so that the journal may have been trimmed up to there.
    pub is_checkpoint: bool,
}

/// Reads a journal, file by file.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    /// The files that are still to be read, each with where it ends; the last one's end is to be found.
    files: VecDeque<(FileHeader, Option<u64>)>,
    /// All of them.
    kept: Vec<JournalFile>,
    /// The last file, where nothing was written to it.
    empty: Option<u64>,
    /// Files without a header, which may be damaged.
    unused: Vec<u64>,
    current: Option<OpenFile>,
    end: End,
    base: Base,
}

#[derive(Debug)]
struct OpenFile {
    header: FileHeader,
    end: Option<u64>,
    bytes: Bytes,
    offset: usize,
}

/// A record whose hashes are right.
#[derive(Debug)]
struct FoundRecord {
    header: Header,
    offset: usize,
    bytes: usize,
    /// Where its head is, from its own beginning.
    head: Range<usize>,
    /// Where its body is.
    body: Range<usize>,
}

impl Reader {
    /// Finds the files of the journal of `store`, which is read on from `base`.
    ///
    /// # Errors
    ///
    /// `Unavailable` where they cannot be read, `Internal` where one is missing.
    pub fn open(disk: Arc<dyn Disk>, store: u128, base: Base) -> Result<Self> {
        let names = disk.list(FOLDER).map_err(|error| read_failed(FOLDER, error))?;
        let (mut used, mut unused) = (BTreeMap::new(), Vec::new());
        let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        for number in &numbers {
            let block =
                disk.read(&path_of(*number), BLOCK as u64).map_err(|error| read_failed(&path_of(*number), error))?;
            match FileHeader::of_file(&block) {
                Some(header) if header.number != *number || header.store != store => {
                    return Err(damaged(&path_of(*number), 0, "it belongs to another place or store"));
                }
                Some(header) => {
                    used.insert(header.turn, header);
                }
                None => unused.push(*number),
            }
        }
        let highest = numbers.last().copied().unwrap_or(0);
        let turns = used.keys().next_back().map_or(0, |turn| turn + 1);
        let end = End { number: 0, offset: 0, lsn: base.lsn, time_us: i64::MIN, highest, turns, torn_bytes: 0 };
        let files = chain(&used, base)?;
        if base.is_checkpoint && files.is_empty() && disk.len(NO_JOURNAL).is_err() {
            return Err(damaged(FOLDER, 0, "there is a checkpoint, and no journal after it"));
        }
        let listed = |(header, end): &(FileHeader, Option<u64>)| {
            let length = || disk.len(&path_of(header.number));
            let bytes = end.map_or_else(length, Ok).map_err(|error| read_failed(&path_of(header.number), error))?;
            Ok(JournalFile { number: header.number, first_lsn: header.first_lsn, bytes })
        };
        let kept = files.iter().map(listed).collect::<Result<_>>()?;
        Ok(Self { base, disk, files, kept, empty: None, unused, current: None, end })
    }

    /// Returns where the journal ends, once all of it was read.
    pub fn end(&self) -> End {
        self.end
    }

    /// Returns the numbers of the files that the journal is read from.
    pub fn kept(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().map(|file| file.number)
    }

    /// Returns the files that the journal is read from, the oldest first.
    pub fn files(&self) -> Vec<JournalFile> {
        self.kept.clone()
    }

    /// Returns the number of the last file, where nothing was written to it: it only says where the one before it ends, until the next
    /// one says so.
    pub fn empty(&self) -> Option<u64> {
        self.empty
    }

    /// Reads the next commit; none at the end.
    ///
    /// # Errors
    ///
    /// `Internal` where something acknowledged is damaged or missing, with the place.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            if self.current.is_none() {
                let Some((header, end)) = self.files.pop_front() else {
                    // Commits that were acknowledged in memory may be in the checkpoint and not here.
                    self.end.lsn = self.end.lsn.max(self.base.lsn);
                    self.check_unused()?;
                    return Ok(None);
                };
                self.current = Some(self.open_file(header, end)?);
            }
            let Some(file) = &mut self.current else { continue };
            match file.next_record(&mut self.end, self.base)? {
                Some(entry) => return Ok(Some(entry)),
                None => {
                    // A file that nothing was written to is not gone on from: a thousand starts would leave as many.
                    if self.end.offset == FIRST_RECORD && self.files.is_empty() {
                        let FileHeader { previous, previous_end, .. } = file.header;
                        self.end = End { number: previous, offset: previous_end, ..self.end };
                        self.empty = self.kept.pop().map(|file| file.number);
                    }
                    self.current = None;
                }
            }
        }
    }

    fn open_file(&mut self, header: FileHeader, end: Option<u64>) -> Result<OpenFile> {
        let path = path_of(header.number);
        // The first file of a journal that was trimmed begins somewhere before the checkpoint, and no commit between two files is needed
        // that the checkpoint has.
        let is_covered = self.base.is_checkpoint && header.first_lsn <= self.base.lsn + 1;
        let is_first = self.end.number == 0;
        if header.first_lsn != self.end.lsn + 1 && !(is_covered && (is_first || header.first_lsn > self.end.lsn)) {
            let found = header.first_lsn;
            return Err(damaged(
                &path,
                0,
                &format!("it begins at commit {found}, and {} is missing", self.end.lsn + 1),
            ));
        }
        let bytes = self.disk.read(&path, end.unwrap_or(u64::MAX)).map_err(|error| read_failed(&path, error))?;
        self.end = End { number: header.number, offset: FIRST_RECORD, lsn: header.first_lsn - 1, ..self.end };
        Ok(OpenFile { header, end, bytes: bytes.into(), offset: FIRST_RECORD as usize })
    }

    /// Checks that no file has lost its header together with commits that are needed.
    fn check_unused(&self) -> Result<()> {
        for number in &self.unused {
            let path = path_of(*number);
            let bytes = self.disk.read(&path, u64::MAX).map_err(|error| read_failed(&path, error))?;
            let lost = blocks(&bytes, BLOCK).find(|(_, header)| header.lsn > self.end.lsn);
            if let Some((offset, header)) = lost {
                let why = format!("it has commit {} and no header", header.lsn);
                return Err(damaged(&path, offset, &why));
            }
        }
        Ok(())
    }
}

/// Puts the used files, which are given by their turns, in order from the first to the last, each with where it ends. Those that
/// no other one names never counted.
fn chain(used: &BTreeMap<u64, FileHeader>, base: Base) -> Result<VecDeque<(FileHeader, Option<u64>)>> {
    let mut files = VecDeque::new();
    let (mut next, mut end) = (used.values().next_back().copied(), None);
    while let Some(header) = next {
        files.push_front((header, end));
        if header.previous == 0 {
            break;
        }
        let before = used.range(..header.turn).map(|(_, before)| before);
        let previous = before.rev().find(|before| before.number == header.previous);
        match previous {
            Some(previous) => (next, end) = (Some(*previous), Some(header.previous_end)),
            // It was trimmed.
            None if base.is_checkpoint && header.first_lsn <= base.lsn + 1 => break,
            None => return Err(damaged(&path_of(header.previous), 0, "it is missing or has lost its header")),
        }
    }
    Ok(files)
}

impl OpenFile {
    /// Reads the next commit that is not in a checkpoint, and moves `end` behind it; none at the file's end.
    fn next_record(&mut self, end: &mut End, base: Base) -> Result<Option<Entry>> {
        loop {
            let Some(record) = self.record(end.lsn) else {
                self.check_end(end)?;
                return Ok(None);
            };
            self.offset = record.offset + record.bytes;
            let Header { kind, lsn, time_us, .. } = record.header;
            *end = End { offset: (self.offset as u64).next_multiple_of(BLOCK as u64), lsn, time_us, ..*end };
            if kind == Kind::Entry && lsn > base.lsn {
                return self.entry(record).map(Some);
            }
        }
    }

    /// Finds the record that follows: right behind the last one, or at the next block.
    fn record(&self, last_lsn: u64) -> Option<FoundRecord> {
        let places = [self.offset, self.offset.next_multiple_of(BLOCK)];
        // What was written behind a known end never counted.
        let before_end = |offset: &usize| self.end.is_none_or(|known| (*offset as u64) < known);
        places.into_iter().filter(before_end).find_map(|offset| {
            let rest = self.bytes.get(offset..)?;
            let header = Header::of_bytes(rest).filter(|header| header.salt == self.header.salt)?;
            let fits = match header.kind {
                Kind::Entry => header.lsn == last_lsn + 1,
                Kind::Mark => header.lsn == last_lsn,
            };
            let bytes = header.record_bytes().filter(|bytes| fits && *bytes <= rest.len())?;
            let (head, body) = header.content(rest)?;
            Some(FoundRecord { header, offset, bytes, head, body })
        })
    }

    fn entry(&self, record: FoundRecord) -> Result<Entry> {
        let FoundRecord { header, offset, head, body, .. } = record;
        let record = self.bytes.slice(offset..);
        let effects = read_effects(&record[head], record.slice(body)).map_err(|error| {
            damaged(&path_of(self.header.number), offset, &format!("commit {}: {}", header.lsn, error.message()))
        })?;
        Ok(Entry { lsn: Lsn(header.lsn), time_us: header.time_us, durability: Durability::Fsync, effects })
    }

    /// Tells an interrupted write from damage, where a record cannot be read.
    fn check_end(&self, end: &mut End) -> Result<()> {
        let (path, missing) = (path_of(self.header.number), end.lsn + 1);
        if let Some(known) = self.end {
            let reached = self.offset.next_multiple_of(BLOCK) as u64;
            let why = format!("its records go on to byte {known}, and commit {missing} cannot be read");
            return if reached == known { Ok(()) } else { Err(damaged(&path, self.offset, &why)) };
        }
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let ours = |header: &Header| header.salt == self.header.salt && header.lsn >= missing;
        let from = self.offset;
        for (offset, header) in blocks(rest, HEADER_BYTES).filter(|(_, header)| ours(header)) {
            if header.synced_lsn >= missing {
                let at = from + offset;
                let why = format!(
                    "commit {missing} cannot be read, and was durable when the record at byte {at} was written"
                );
                return Err(damaged(&path, self.offset, &why));
            }
        }
        let last = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        end.torn_bytes = last as u64;
        Ok(())
    }
}

/// Finds headers at every multiple of `step`.
fn blocks(bytes: &[u8], step: usize) -> impl Iterator<Item = (usize, Header)> {
    let offsets = (0..bytes.len()).step_by(step);
    offsets.filter_map(|offset| Some((offset, Header::of_bytes(&bytes[offset..])?)))
}

/// Makes the error for a journal that cannot be trusted.
fn damaged(path: &str, offset: usize, why: &str) -> Error {
    Error::internal(format!(
        "the journal is damaged: {path}, byte {offset}: {why}; restore the directory from a backup"
    ))
}

fn read_failed(path: &str, error: io::Error) -> Error {
    Error::unavailable(format!("{path} cannot be read: {error}")).with_source(error)
}
