//! One file of the journal: its name, its header, and how it is told from what lay there before.
//!
//! Files are numbered in the order in which they were made, and written with zeros before they are used, so that a commit neither
//! makes them longer nor waits for the file system's own journal. A file is used from the moment that its header is durable; the header
//! names the file before it and where that one ends. Records behind that end never were: a commit that was refused stays
//! refused, whatever of it reached the disk.

use crate::adapters::disk::device::BLOCK;
use twox_hash::XxHash3_64;

/// Folder of the files.
pub const FOLDER: &str = "journal";

/// A file that says of a copy that there is no journal to go on from: else one that is missing would be a loss.
pub const NO_JOURNAL: &str = "journal/none";

/// Where the first record of a file begins.
pub const FIRST_RECORD: u64 = BLOCK as u64;

const MAGIC: [u8; 8] = *b"zeptojf1";
const USED_BYTES: usize = 72;

/// What a file's first block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The store that it belongs to.
    pub store: u128,
    /// What its records carry, so that they are told from those of other uses of the same blocks.
    pub salt: u64,
    /// Its own number, which is its name: files are named when they are made, and not used in that order.
    pub number: u64,
    /// How many files were begun before it.
    pub turn: u64,
    /// The commit that its first record would have.
    pub first_lsn: u64,
    /// The file before it; 0 for the first of all.
    pub previous: u64,
    /// Where the records of the file before it end.
    pub previous_end: u64,
}

impl FileHeader {
    /// Writes the header as the block that it fills.
    pub fn to_block(self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&MAGIC);
        block[8..24].copy_from_slice(&self.store.to_le_bytes());
        let fields = [self.salt, self.number, self.turn, self.first_lsn, self.previous, self.previous_end];
        for (at, field) in fields.into_iter().enumerate() {
            block[24 + at * 8..32 + at * 8].copy_from_slice(&field.to_le_bytes());
        }
        let hash = XxHash3_64::oneshot(&block[..USED_BYTES]);
        block[USED_BYTES..USED_BYTES + 8].copy_from_slice(&hash.to_le_bytes());
        block
    }

    /// Reads a header; none where a file does not begin with a whole one.
    pub fn of_file(bytes: &[u8]) -> Option<Self> {
        let used = bytes.get(..USED_BYTES)?;
        let number = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        if used[..8] != MAGIC || number(USED_BYTES)? != XxHash3_64::oneshot(used) {
            return None;
        }
        Some(Self {
            store: u128::from_le_bytes(used[8..24].try_into().ok()?),
            salt: number(24)?,
            number: number(32)?,
            turn: number(40)?,
            first_lsn: number(48)?,
            previous: number(56)?,
            previous_end: number(64)?,
        })
    }
}

/// Returns the path of a file.
pub fn path_of(number: u64) -> String {
    format!("{FOLDER}/{number:010}.wal")
}

/// Returns the number of the file with this name; none for anything else.
pub fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".wal").filter(|digits| digits.len() >= 10)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::adapters::disk::file::{FileHeader, number_of, path_of};

    #[test]
    fn a_header_is_read_as_it_was_written_or_not_at_all() {
        let header = FileHeader {
            store: u128::MAX - 5,
            salt: 1,
            number: 2,
            turn: 7,
            first_lsn: 3,
            previous: 1,
            previous_end: 8192,
        };
        let block = header.to_block();
        assert_eq!(FileHeader::of_file(&block), Some(header));
        for byte in 0..80 {
            let mut damaged = block;
            damaged[byte] ^= 0x10;
            assert_eq!(FileHeader::of_file(&damaged), None, "byte {byte}");
        }
        assert_eq!((FileHeader::of_file(&[0; 4096]), FileHeader::of_file(&block[..79])), (None, None));
    }

    #[test]
    fn names_and_numbers_are_one_to_one() {
        assert_eq!(path_of(12), "journal/0000000012.wal");
        assert_eq!(number_of("0000000012.wal"), Some(12));
        assert_eq!((number_of("12.wal"), number_of("0000000012.tmp"), number_of("000000001x.wal")), (None, None, None));
    }
}
