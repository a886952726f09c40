//! Batches to messages, without copying values.
//!
//! A message is sent as the buffers of its columns, one after the other, with a flatbuffer before them: the values of a
//! fixed-width or string column are never copied. Parts that a slice needs rebuilt are: offsets that do not begin at
//! zero, bitmaps that begin within a byte. Compressed bodies have new buffers.

use crate::adapters::ipc::compact::retains_unused_values;
use crate::adapters::ipc::options::{Compression, Encoding};
use crate::adapters::ipc::split::{batch_bytes, split};
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use arrow::ipc::{CompressionType, MessageHeader, root_as_message};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the continuation marker and the length before every flatbuffer.
const PREFIX_BYTES: usize = 8;

/// Buffers shorter than this are joined: one more piece of a vectored write costs more than copying these.
const PIECE_BYTES_MIN: usize = 512;

/// One IPC message of a stream (Arrow Columnar Format, "Encapsulated message format").
#[derive(Debug, Clone)]
pub struct Message {
    head: Bytes,
    body: Vec<Bytes>,
}

impl Message {
    /// Returns the flatbuffer `Message`, padded with zeros.
    pub fn header(&self) -> Bytes {
        self.head.slice(PREFIX_BYTES..)
    }

    /// Returns the body as consecutive pieces.
    pub fn body(&self) -> &[Bytes] {
        &self.body
    }

    /// Returns the bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Returns the bytes of the whole message.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body_bytes()
    }

    /// Returns the whole message as consecutive pieces.
    pub fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        [self.head].into_iter().chain(self.body)
    }
}

/// Encodes the batches of one stream. A dictionary is sent once, and again when it changes.
pub struct Encoder {
    /// arrow's encoder; the error of a schema that IPC cannot carry is reported with the first batch.
    encoder: Result<StreamEncoder>,
    bytes_target: usize,
    has_begun: bool,
}

/// Bytes of a stream's first message, about: short, so that its reader can begin while the second is being sent.
const FIRST_BYTES: usize = 256 << 10;

impl Encoder {
    /// Creates an encoder, and returns it with the message of the schema, which goes first.
    pub fn new(schema: &Schema, encoding: Encoding) -> (Self, Message) {
        let bytes_target = usize::try_from(encoding.message_bytes_target).unwrap_or(usize::MAX);
        // arrow's encoder writes the schema only with the first batch, and a stream may have none.
        let encoder = stream_encoder(schema, encoding);
        // A target without limit means one message, so no short one goes first.
        (Self { encoder, bytes_target, has_begun: bytes_target == usize::MAX }, schema_message(schema))
    }

    /// Encodes `batch`; one without rows has no messages.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a schema that IPC cannot carry, `Internal` for a column that cannot be encoded.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Message>> {
        let encoder = self.encoder.as_mut().map_err(|error| error.clone())?;
        let mut messages = Vec::new();
        let first_rows = if self.has_begun { 0 } else { first_rows(batch) };
        self.has_begun |= batch.num_rows() > 0;
        let first = split(&batch.slice(0, first_rows), self.bytes_target);
        let rest = split(&batch.slice(first_rows, batch.num_rows() - first_rows), self.bytes_target);
        for piece in first.into_iter().chain(rest) {
            let buffers = encoder
                .encode(&piece)
                .map_err(|error| Error::internal("a batch could not be encoded").with_source(error))?;
            take_messages(buffers, &mut messages)?;
        }
        Ok(messages)
    }
}

/// Returns how many rows the short first message has: none where the batch is small, or where values that all rows share
/// would be sent twice.
fn first_rows(batch: &RecordBatch) -> usize {
    let bytes = batch_bytes(batch);
    if bytes <= 2 * FIRST_BYTES {
        return 0;
    }
    let rows = batch.num_rows() as u128 * FIRST_BYTES as u128 / bytes as u128;
    // Whole words of a bitmap, so that what follows begins at one.
    let rows = usize::try_from(rows).unwrap_or(0) / 64 * 64;
    if retains_unused_values(&batch.slice(0, rows)) { 0 } else { rows }
}

fn stream_encoder(schema: &Schema, encoding: Encoding) -> Result<StreamEncoder> {
    let compression = encoding.compression.map(|compression| match compression {
        Compression::Lz4 => CompressionType::LZ4_FRAME,
        Compression::Zstd => CompressionType::ZSTD,
    });
    IpcWriteOptions::default()
        .try_with_compression(compression)
        .and_then(|options| StreamEncoder::try_new_with_options(schema, options))
        .map_err(|error| Error::unsupported(format!("Arrow IPC cannot carry this result: {error}")))
}

/// Encodes a schema.
pub(super) fn schema_message(schema: &Schema) -> Message {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let message = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
    Message { head: framed(&message.ipc_message), body: Vec::new() }
}

/// Adds the prefix to a flatbuffer, and pads it to a multiple of eight.
fn framed(header: &[u8]) -> Bytes {
    let padded = header.len().next_multiple_of(8);
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + padded);
    head.put_slice(&[0xff; 4]);
    head.put_u32_le(u32::try_from(padded).unwrap_or(u32::MAX));
    head.put_slice(header);
    head.resize(PREFIX_BYTES + padded, 0);
    head.freeze()
}

/// Groups the buffers of a stream into messages. A buffer belongs to one message, and to its head or its body.
fn take_messages(buffers: Vec<Buffer>, messages: &mut Vec<Message>) -> Result<()> {
    let broken = || Error::internal("arrow's encoder wrote something else than messages");
    let mut buffers = buffers.into_iter().filter(|buffer| !buffer.is_empty()).peekable();
    while buffers.peek().is_some() {
        let mut head = BytesMut::new();
        let mut wanted = PREFIX_BYTES;
        while head.len() < wanted {
            head.extend_from_slice(&buffers.next().ok_or_else(broken)?);
            if let Some(length) = head.get(4..PREFIX_BYTES).and_then(|length| <[u8; 4]>::try_from(length).ok()) {
                wanted = PREFIX_BYTES + u32::from_le_bytes(length) as usize;
            }
        }
        let header = root_as_message(&head[PREFIX_BYTES..]).map_err(|_| broken())?;
        let mut left = usize::try_from(header.bodyLength()).map_err(|_| broken())?;
        let is_schema = header.header_type() == MessageHeader::Schema;
        let mut body = Joined::default();
        while left > 0 {
            let buffer = buffers.next().ok_or_else(broken)?;
            left = left.checked_sub(buffer.len()).ok_or_else(broken)?;
            body.push(buffer);
        }
        if !is_schema {
            messages.push(Message { head: head.freeze(), body: body.finish() });
        }
    }
    Ok(())
}

/// Consecutive pieces, short ones joined.
#[derive(Default)]
struct Joined {
    pieces: Vec<Bytes>,
    short: BytesMut,
}

impl Joined {
    fn push(&mut self, buffer: Buffer) {
        if buffer.len() < PIECE_BYTES_MIN {
            self.short.extend_from_slice(&buffer);
        } else {
            self.flush();
            self.pieces.push(Bytes::from_owner(SharedBuffer(buffer)));
        }
    }

    fn flush(&mut self) {
        if !self.short.is_empty() {
            self.pieces.push(self.short.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.pieces
    }
}

/// Keeps the column alive until its bytes are sent.
struct SharedBuffer(Buffer);

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("bytes_target", &self.bytes_target).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::ipc::{Compression, Encoder, Encoding};
    use arrow::array::{
        Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    };
    use std::ops::Range;
    use std::sync::Arc;

    const PLAIN: Encoding = Encoding { message_bytes_target: 2 << 20, compression: None };

    fn batch() -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from_iter_values(0..10_000))),
            ("x", Arc::new(Float64Array::from_iter_values((0..10_000).map(f64::from)))),
            ("s", Arc::new(StringArray::from_iter_values((0..10_000).map(|n| format!("symbol {n}"))))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn addresses(bytes: &[u8]) -> Range<usize> {
        let range = bytes.as_ptr_range();
        range.start as usize..range.end as usize
    }

    /// Whether what `wanted` addresses leaves from where it lies.
    fn leaves_in_place(pieces: &[Range<usize>], wanted: Range<usize>) -> bool {
        pieces.iter().any(|piece| piece.start <= wanted.start && wanted.end <= piece.end)
    }

    #[test]
    fn values_and_strings_leave_from_where_they_lie() {
        for batch in [batch(), batch().slice(1_001, 7_003)] {
            let (mut encoder, _) = Encoder::new(&batch.schema(), PLAIN);
            let [message] = encoder.encode(&batch).unwrap().try_into().unwrap();
            let pieces: Vec<_> = message.body().iter().map(|piece| addresses(piece)).collect();
            for column in &batch.columns()[..2] {
                let data = column.to_data();
                let values = &data.buffers()[0].as_slice()[data.offset() * 8..(data.offset() + data.len()) * 8];
                assert!(leaves_in_place(&pieces, addresses(values)));
            }
            let strings: &StringArray = batch.column(2).as_any().downcast_ref().unwrap();
            let offsets = strings.value_offsets();
            let used = offsets[0] as usize..offsets[strings.len()] as usize;
            assert!(leaves_in_place(&pieces, addresses(&strings.value_data()[used])));
        }
    }

    #[test]
    fn a_long_stream_begins_with_a_short_message() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200_000));
        let long = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let (mut encoder, _) = Encoder::new(&long.schema(), PLAIN);
        let mut bytes = |batch: &RecordBatch| -> Vec<usize> {
            encoder.encode(batch).unwrap().iter().map(super::Message::body_bytes).collect()
        };
        assert!(bytes(&long.slice(0, 0)).is_empty(), "no rows, no beginning");
        assert_eq!(bytes(&long), [262_144, 1_600_000 - 262_144]);
        assert_eq!(bytes(&long), [1_600_000], "once");
        // A dictionary of which the first rows use little would go twice.
        let keys = Int32Array::from_iter_values(0..200_000);
        let values = Arc::new(Int64Array::from_iter_values(0..200_000));
        let coded: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
        let coded = RecordBatch::try_from_iter([("n", coded)]).unwrap();
        let (mut encoder, _) = Encoder::new(&coded.schema(), PLAIN);
        assert_eq!(encoder.encode(&coded).unwrap().len(), 2, "the dictionary and the rows");
    }

    #[test]
    fn a_compressed_body_is_smaller() {
        let bytes = |compression| {
            let (mut encoder, _) = Encoder::new(&batch().schema(), Encoding { compression, ..PLAIN });
            encoder.encode(&batch()).unwrap().iter().map(super::Message::bytes).sum::<usize>()
        };
        for compression in [Compression::Lz4, Compression::Zstd] {
            assert!(bytes(Some(compression)) < bytes(None));
        }
    }
}
