//! A queue of received bytes, from which messages are taken in one piece.
//!
//! Chunks of any size are kept as they arrived, and what a message takes from them is copied once, into memory aligned as
//! arrow needs it, so that no column is moved again. Short chunks are joined, or a client that sends byte by byte would
//! fill memory with their handles.

use arrow::buffer::{Buffer, MutableBuffer};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Chunks shorter than this are joined.
const PIECE_BYTES_MIN: usize = 4 << 10;

/// Chunks in the order of their arrival.
#[derive(Debug, Default)]
pub struct Rope {
    pieces: VecDeque<Bytes>,
    /// Short ones, which arrived last.
    short: BytesMut,
    bytes: usize,
}

impl Rope {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends a chunk.
    pub fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < PIECE_BYTES_MIN {
            self.short.extend_from_slice(&piece);
        } else {
            self.join();
            self.pieces.push_back(piece);
        }
    }

    fn join(&mut self) {
        if !self.short.is_empty() {
            self.pieces.push_back(self.short.split().freeze());
        }
    }

    /// Returns the first `N` bytes without removing them; `None` where there are fewer.
    pub fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        self.first(N).try_into().ok()
    }

    /// Returns up to so many bytes from the beginning without removing them.
    pub fn first(&self, bytes: usize) -> Vec<u8> {
        let all = self.pieces.iter().flat_map(|piece| piece.iter()).chain(&self.short);
        all.take(bytes).copied().collect()
    }

    /// Removes and returns the first `bytes`; `None` where there are fewer.
    pub fn take(&mut self, bytes: usize) -> Option<Bytes> {
        self.join();
        if let Some(first) = self.pieces.front_mut().filter(|first| first.len() > bytes) {
            self.bytes -= bytes;
            return Some(first.split_to(bytes));
        }
        let mut whole = Vec::with_capacity(bytes.min(self.bytes));
        self.take_each(bytes, |part| whole.extend_from_slice(part))?;
        Some(whole.into())
    }

    /// Removes the first `bytes`, and returns them as a buffer that is aligned for any column; `None` where there are fewer.
    pub fn take_aligned(&mut self, bytes: usize) -> Option<Buffer> {
        let mut whole = MutableBuffer::with_capacity(bytes.min(self.bytes));
        self.take_each(bytes, |part| whole.extend_from_slice(part))?;
        Some(whole.into())
    }

    fn take_each(&mut self, bytes: usize, mut take: impl FnMut(&[u8])) -> Option<()> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        self.join();
        let mut left = bytes;
        while left > 0 {
            let first = self.pieces.front_mut()?;
            let part = left.min(first.len());
            take(&first[..part]);
            left -= part;
            first.advance(part);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::ipc::Rope;
    use arrow::alloc::ALIGNMENT;
    use bytes::Bytes;

    #[test]
    fn what_went_in_comes_out_whatever_the_pieces() {
        let all: Vec<u8> = (0..=255).collect();
        for piece_bytes in [1, 3, 7, 100, 256] {
            let mut rope = Rope::default();
            all.chunks(piece_bytes).for_each(|piece| rope.push(Bytes::copy_from_slice(piece)));
            assert_eq!(rope.peek::<4>(), Some([0, 1, 2, 3]));
            assert_eq!(rope.take(0).unwrap().len(), 0);
            assert_eq!(rope.take(10).unwrap(), all[..10]);
            let buffer = rope.take_aligned(200).unwrap();
            assert_eq!(buffer.as_slice(), &all[10..210]);
            assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!((rope.len(), rope.take(47)), (46, None));
            assert_eq!(rope.take(46).unwrap(), all[210..]);
            assert!(rope.is_empty() && rope.peek::<1>().is_none());
        }
    }
}
