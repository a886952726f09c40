//! Records of the journal: a header of fixed length, a head and a body.
//!
//! ```text
//! header 64 bytes: magic u32 · version u8 · kind u8 · 0 u16 · salt u64 · lsn u64 · synced_lsn u64 · time_us i64
//!                · head_bytes u32 · header_hash u32 · body_bytes u64 · content_hash u64, all little-endian
//! head           JSON (`entry_codec.rs`), padded with zeros to 64 bytes
//! body           Arrow IPC streams and row ids, padded with zeros to 64 bytes
//! ```
//!
//! Both hashes are XXH3-64, `header_hash` its lower half with the field itself zero; `content_hash` is of head and body, without
//! their padding. The salt is the file's: what an earlier use of the same blocks left behind has another one. `synced_lsn` is
//! the highest number that was known to be durable, with all before it, when the record was written: a record that claims more than what can
//! be read proves that something durable is gone.

use std::hash::Hasher;
use std::ops::Range;
use twox_hash::XxHash3_64;

/// Bytes of a header; heads and bodies begin at a multiple of it.
pub const HEADER_BYTES: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"zjr1");
const VERSION: u8 = 1;

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Entry,
    /// Nothing but its `synced_lsn`: written when nothing else comes, so that damage to the last commit is told from a write
    /// that a crash interrupted.
    Mark,
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record is for.
    pub kind: Kind,
    /// The file's salt.
    pub salt: u64,
    /// The commit's number; of a mark, the last one's before it.
    pub lsn: u64,
    /// The highest number known to be durable.
    pub synced_lsn: u64,
    /// When the commit was made.
    pub time_us: i64,
    /// Bytes of the head.
    pub head_bytes: u32,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Hash of head and body.
    pub content_hash: u64,
}

impl Header {
    /// Writes the header down.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_lsn.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.time_us.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.head_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.content_hash.to_le_bytes());
        let hash = lower_half(&bytes);
        bytes[44..48].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    /// Reads a header; none where the bytes are not one of this version, whole.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut bytes: [u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let hash = u32_at(&bytes, 44);
        bytes[44..48].fill(0);
        if u32_at(&bytes, 0) != MAGIC || bytes[4] != VERSION || hash != lower_half(&bytes) {
            return None;
        }
        let kind = [Kind::Entry, Kind::Mark].into_iter().find(|kind| *kind as u8 == bytes[5])?;
        Some(Self {
            kind,
            salt: u64_at(&bytes, 8),
            lsn: u64_at(&bytes, 16),
            synced_lsn: u64_at(&bytes, 24),
            time_us: u64_at(&bytes, 32).cast_signed(),
            head_bytes: u32_at(&bytes, 40),
            body_bytes: u64_at(&bytes, 48),
            content_hash: u64_at(&bytes, 56),
        })
    }

    /// Returns the bytes of the whole record, padding included; none where no record is that long.
    pub fn record_bytes(&self) -> Option<usize> {
        let body = usize::try_from(self.body_bytes).ok()?.checked_next_multiple_of(HEADER_BYTES)?;
        (HEADER_BYTES + (self.head_bytes as usize).next_multiple_of(HEADER_BYTES)).checked_add(body)
    }

    /// Returns where the head and the body are in the record that `bytes` begin with, where both are whole.
    pub fn content(&self, bytes: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let head_bytes = self.head_bytes as usize;
        let body_from = HEADER_BYTES + head_bytes.next_multiple_of(HEADER_BYTES);
        let body = body_from..body_from.checked_add(usize::try_from(self.body_bytes).ok()?)?;
        let head = HEADER_BYTES..HEADER_BYTES + head_bytes;
        let hash = content_hash(bytes.get(head.clone())?, [bytes.get(body.clone())?]);
        (hash == self.content_hash).then_some((head, body))
    }
}

/// Returns the hash of a head and the pieces of its body.
pub fn content_hash<'a>(head: &[u8], body: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = XxHash3_64::new();
    hash.write(head);
    body.into_iter().for_each(|piece| hash.write(piece));
    hash.finish()
}

fn lower_half(bytes: &[u8]) -> u32 {
    XxHash3_64::oneshot(bytes) as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use crate::adapters::disk::record::{HEADER_BYTES, Header, Kind, content_hash};

    #[test]
    fn a_header_is_read_as_it_was_written_or_not_at_all() {
        let (head, body) = (b"{}", b"rows");
        let header = Header {
            kind: Kind::Entry,
            salt: 1,
            lsn: 2,
            synced_lsn: 1,
            time_us: -4,
            head_bytes: 2,
            body_bytes: 4,
            content_hash: content_hash(head, [&body[..2], &body[2..]]),
        };
        let mut record = header.to_bytes().to_vec();
        record.extend_from_slice(head);
        record.resize(2 * HEADER_BYTES, 0);
        record.extend_from_slice(body);
        record.resize(3 * HEADER_BYTES, 0);
        assert_eq!(Header::of_bytes(&record), Some(header));
        assert_eq!(header.record_bytes(), Some(record.len()));
        assert_eq!(header.content(&record), Some((64..66, 128..132)));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::of_bytes(&damaged), None, "bit {bit}");
        }
        for at in [64, 65, 128, 131] {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert_eq!(header.content(&damaged), None, "byte {at}");
        }
        assert_eq!(header.content(&record[..131]), None, "cut off");
    }
}
