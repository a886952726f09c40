//! Memory that a disk takes as it is: it begins at a whole block.

use crate::adapters::disk::device::BLOCK;

/// Memory that begins at a whole block.
#[derive(Debug)]
pub struct AlignedBuffer {
    memory: Vec<u8>,
    from: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// Makes a buffer of so many zeros.
    pub fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK];
        let from = memory.as_ptr().align_offset(BLOCK);
        Self { memory, from, bytes }
    }

    /// Returns its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.bytes]
    }

    /// Returns its bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.bytes]
    }
}
