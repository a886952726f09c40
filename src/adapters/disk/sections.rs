//! Bytes of several kinds one after the other: what a head in JSON names, in its order.
//!
//! Schemas and rows are Arrow IPC streams, ids of rows pairs of little-endian u64.

use crate::adapters::ipc::{DecodeLimits, Deframer, END_OF_STREAM, Encoder, Encoding};
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// Bytes of one of them.
pub type Section = u64;

/// Sections as they are written, in pieces, those of columns where they lie.
#[derive(Default)]
pub struct Body {
    pieces: Vec<Bytes>,
}

impl Body {
    /// Returns the pieces.
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    fn push(&mut self, piece: Bytes) -> Section {
        let bytes = piece.len() as u64;
        self.pieces.push(piece);
        bytes
    }

    /// Adds ids of rows.
    pub fn ids(&mut self, ids: &[Range<u64>]) -> Section {
        self.push(ids_to_bytes(ids))
    }

    /// Adds rows of a schema.
    ///
    /// # Errors
    ///
    /// `Unsupported` for columns that Arrow IPC cannot carry.
    pub fn stream(&mut self, schema: &Schema, batches: &[RecordBatch]) -> Result<Section> {
        let (mut encoder, head) = Encoder::new(schema, Encoding::plain(u64::MAX));
        let mut bytes: u64 = head.into_pieces().map(|piece| self.push(piece)).sum();
        for batch in batches {
            for message in encoder.encode(batch)? {
                bytes += message.into_pieces().map(|piece| self.push(piece)).sum::<u64>();
            }
        }
        Ok(bytes + self.push(Bytes::from_static(&END_OF_STREAM)))
    }
}

/// Sections as they are read.
pub struct Sections(Bytes);

impl Sections {
    /// Reads the sections of `bytes`.
    pub fn of(bytes: Bytes) -> Self {
        Self(bytes)
    }

    fn take(&mut self, bytes: Section) -> Result<Bytes> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.0.len());
        Ok(self.0.split_to(bytes.ok_or_else(|| unreadable("its body is too short"))?))
    }

    /// Takes ids of rows.
    ///
    /// # Errors
    ///
    /// `Internal` for anything else.
    pub fn ids(&mut self, bytes: Section) -> Result<Vec<Range<u64>>> {
        ids_of_bytes(&self.take(bytes)?)
    }

    /// Takes rows and their schema.
    ///
    /// # Errors
    ///
    /// `Internal` for anything else.
    pub fn stream(&mut self, bytes: Section) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let mut deframer = Deframer::new(DecodeLimits::none());
        deframer.push(self.take(bytes)?);
        let mut batches = Vec::new();
        while let Some(batch) = deframer.next_batch().map_err(|error| unreadable(error.message()))? {
            batches.push(batch);
        }
        deframer.finish().map_err(|error| unreadable(error.message()))?;
        let schema = deframer.schema().ok_or_else(|| unreadable("a stream has no schema"))?;
        Ok((schema, batches))
    }
}

/// Returns runs of ids as bytes.
pub fn ids_to_bytes(ids: &[Range<u64>]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(ids.len() * 16);
    for run in ids {
        bytes.put_u64_le(run.start);
        bytes.put_u64_le(run.end);
    }
    bytes.freeze()
}

/// Returns runs of ids from bytes.
///
/// # Errors
///
/// `Internal` for anything else.
pub fn ids_of_bytes(bytes: &[u8]) -> Result<Vec<Range<u64>>> {
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(unreadable("ids of rows come in pairs"));
    }
    let half = |pair: &[u8; 16], from: usize| u64::from_le_bytes(std::array::from_fn(|at| pair[from + at]));
    Ok(pairs.iter().map(|pair| half(pair, 0)..half(pair, 8)).collect())
}

/// Makes the error for bytes that are something else.
pub fn unreadable(why: &str) -> Error {
    Error::internal(format!("it was written by another version or is damaged: {why}"))
}
