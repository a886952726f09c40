//! A group: records that are written together, with one system call and one sync.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::BLOCK;
use crate::adapters::disk::entry_codec::Content;
use crate::adapters::disk::record::{HEADER_BYTES, Header, Kind, content_hash};
use crate::adapters::disk::writer::Place;
use crate::ports::{Durability, Effect, Entry, Result};
use std::io;

/// Commits that are about to be written.
#[derive(Debug, Default)]
pub struct Group {
    records: Vec<Record>,
    bytes: u64,
    /// The strongest level that one of them asks for.
    pub durability: Option<Durability>,
    /// Whether all of them only take something away.
    pub only_takes_away: bool,
    /// Whether it is a mark.
    pub is_mark: bool,
}

#[derive(Debug)]
struct Record {
    header: Header,
    content: Content,
}

impl Group {
    /// Makes an empty group.
    pub fn new() -> Self {
        Self { only_takes_away: true, ..Self::default() }
    }

    /// Makes a group of a mark after commit `lsn`.
    pub fn mark(lsn: u64, time_us: i64) -> Self {
        let mut mark = Self { durability: Some(Durability::Fsync), is_mark: true, ..Self::new() };
        mark.push(Kind::Mark, lsn, time_us, Content { head: Vec::new(), body: Vec::new() });
        mark
    }

    /// Adds a commit.
    ///
    /// # Errors
    ///
    /// `Unsupported` for columns that cannot be written down.
    pub fn add(&mut self, entry: &Entry) -> Result<()> {
        let content = Content::of(&entry.effects)?;
        self.durability = self.durability.max(Some(entry.durability));
        let takes_away = |effect: &Effect| matches!(effect, Effect::Erase { .. } | Effect::Drop { .. });
        self.only_takes_away &= entry.effects.iter().all(takes_away);
        self.push(Kind::Entry, entry.lsn.0, entry.time_us, content);
        Ok(())
    }

    fn push(&mut self, kind: Kind, lsn: u64, time_us: i64, content: Content) {
        let header = Header {
            kind,
            salt: 0,
            lsn,
            synced_lsn: 0,
            time_us,
            head_bytes: u32::try_from(content.head.len()).unwrap_or(u32::MAX),
            body_bytes: content.body_bytes(),
            content_hash: content_hash(&content.head, content.body.iter().map(AsRef::as_ref)),
        };
        self.bytes += header.record_bytes().map_or(u64::MAX / 4, |bytes| bytes as u64);
        self.records.push(Record { header, content });
    }

    /// Returns whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns its bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.next_multiple_of(BLOCK as u64)
    }

    /// Returns the number of its first commit.
    pub fn first_lsn(&self) -> u64 {
        self.records.first().map_or(0, |record| record.header.lsn)
    }

    /// Returns the number of its last commit.
    pub fn last_lsn(&self) -> u64 {
        self.records.last().map_or(0, |record| record.header.lsn)
    }

    /// Writes its headers as they are in a file with `salt`, when `synced_lsn` is known to be durable.
    pub fn seal(&mut self, salt: u64, synced_lsn: u64) {
        for record in &mut self.records {
            (record.header.salt, record.header.synced_lsn) = (salt, synced_lsn);
        }
    }

    /// Writes the group; durable when this returns where `is_synced`. What does not fit into `staging` goes in several writes.
    pub fn write(&self, place: &Place, staging: &mut AlignedBuffer, is_synced: bool) -> io::Result<()> {
        let is_single = self.bytes() <= staging.as_slice().len() as u64;
        let (mut filled, mut offset) = (0, place.offset);
        let mut put = |mut bytes: &[u8]| -> io::Result<()> {
            while !bytes.is_empty() {
                let room = &mut staging.as_mut_slice()[filled..];
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                (filled, bytes) = (filled + count, &bytes[count..]);
                if filled == staging.as_slice().len() && !is_single {
                    place.file.write_at(staging.as_slice(), offset, false)?;
                    (filled, offset) = (0, offset + filled as u64);
                }
            }
            Ok(())
        };
        for Record { header, content } in &self.records {
            put(&header.to_bytes())?;
            put(&content.head)?;
            put(padding(content.head.len() as u64, HEADER_BYTES))?;
            content.body.iter().try_for_each(|piece| put(piece))?;
            put(padding(header.body_bytes, HEADER_BYTES))?;
        }
        put(padding(self.bytes, BLOCK))?;
        if filled > 0 {
            place.file.write_at(&staging.as_slice()[..filled], offset, is_synced && is_single)?;
        }
        if is_synced && !is_single { place.file.sync().map_err(io::Error::other) } else { Ok(()) }
    }
}

/// Returns the zeros between so many bytes and the next multiple.
fn padding(bytes: u64, multiple: usize) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    &ZEROS[..(bytes.next_multiple_of(multiple as u64) - bytes) as usize]
}
