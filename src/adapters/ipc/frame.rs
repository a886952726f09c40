//! Messages as an IPC stream: each with its length before it, the end said in so many words.
//!
//! A stream that stops without [`END_OF_STREAM`] was cut off, and is an error.

use crate::adapters::ipc::decode::{DecodeLimits, Decoder};
use crate::adapters::ipc::encode::{Encoder, Message};
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::root_as_message;
use bytes::{Buf, Bytes, BytesMut};

const CONTINUATION: [u8; 4] = [0xff; 4];

/// The last eight bytes of an IPC stream.
pub const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// `message` as it stands in a stream: what precedes its body, and its body.
pub fn frame(message: Message) -> [Bytes; 2] {
    // The header ends on a multiple of eight, counted from the start of the frame.
    let padded = message.header.len().next_multiple_of(8);
    let mut head = BytesMut::with_capacity(8 + padded);
    head.extend_from_slice(&CONTINUATION);
    head.extend_from_slice(&u32::try_from(padded).unwrap_or(u32::MAX).to_le_bytes());
    head.extend_from_slice(&message.header);
    head.resize(8 + padded, 0);
    [head.freeze(), message.body]
}

/// A schema as a framed message: what Flight calls a schema, and `pyarrow.ipc.read_schema` reads.
pub fn encode_schema(schema: &Schema) -> Bytes {
    let [head, _] = frame(Encoder::new(schema, 0).1);
    head
}

/// The schema of a framed message.
///
/// # Errors
///
/// `InvalidQuery` where there is none.
pub fn decode_schema(bytes: Bytes) -> Result<SchemaRef> {
    let limits = DecodeLimits { message_bytes_max: bytes.len() as u64, inflated_bytes_max: 0 };
    let mut deframer = Deframer::new(limits);
    deframer.push(bytes);
    deframer.next_batch()?;
    deframer.schema().ok_or_else(|| Error::invalid("the bytes are no Arrow schema"))
}

/// Reads an IPC stream from pieces of any size.
#[derive(Debug)]
pub struct Deframer {
    decoder: Decoder,
    limits: DecodeLimits,
    waiting: BytesMut,
    ended: bool,
}

impl Deframer {
    /// A reader at the beginning of a stream.
    pub fn new(limits: DecodeLimits) -> Self {
        Self { decoder: Decoder::new(limits), limits, waiting: BytesMut::new(), ended: false }
    }

    /// The schema, once it came.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }

    /// Takes more of the stream.
    pub fn push(&mut self, bytes: impl Buf) {
        let mut bytes = bytes;
        self.waiting.reserve(bytes.remaining());
        while bytes.has_remaining() {
            let chunk = bytes.chunk();
            let taken = chunk.len();
            self.waiting.extend_from_slice(chunk);
            bytes.advance(taken);
        }
    }

    /// The next batch of what was pushed; none where it takes more to have one.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for what is no IPC stream, `LimitExceeded` for a message beyond the limits.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(message) = self.next_message()? {
            if let Some(batch) = self.decoder.decode(&message)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where something should.
    pub fn finish(&self) -> Result<()> {
        match (self.decoder.schema(), self.ended) {
            (Some(_), true) => Ok(()),
            (Some(_), false) => Err(Error::invalid("the Arrow stream was cut off before its end marker")),
            (None, _) => Err(Error::invalid("the Arrow stream has no schema")),
        }
    }

    fn next_message(&mut self) -> Result<Option<Message>> {
        if self.ended {
            return if self.waiting.is_empty() {
                Ok(None)
            } else {
                Err(Error::invalid("something follows the end of the Arrow stream"))
            };
        }
        let Some((prefix, header_bytes)) = self.header_bytes()? else { return Ok(None) };
        if header_bytes == 0 {
            self.waiting.advance(prefix);
            self.ended = true;
            return self.next_message();
        }
        let Some(header) = self.waiting.get(prefix..prefix + header_bytes) else { return Ok(None) };
        let body_bytes = root_as_message(header)
            .map_err(|error| Error::invalid(format!("the body is no Arrow IPC stream: {error}")))?
            .bodyLength();
        let body_bytes = usize::try_from(body_bytes)
            .map_err(|_| Error::invalid(format!("an Arrow message claims a body of {body_bytes} bytes")))?;
        self.check(header_bytes.saturating_add(body_bytes))?;
        let total = prefix + header_bytes + body_bytes;
        if self.waiting.len() < total {
            self.waiting.reserve(total - self.waiting.len());
            return Ok(None);
        }
        let mut message = self.waiting.split_to(total).freeze();
        message.advance(prefix);
        let header = message.split_to(header_bytes);
        Ok(Some(Message { header, body: message }))
    }

    /// Length of what precedes the next header, and of the header. Before Arrow 0.15 there was no continuation mark.
    fn header_bytes(&self) -> Result<Option<(usize, usize)>> {
        let Some((first, rest)) = self.waiting.split_first_chunk::<4>() else { return Ok(None) };
        let (prefix, length) = match *first {
            CONTINUATION => match rest.first_chunk::<4>() {
                Some(length) => (8, *length),
                None => return Ok(None),
            },
            length => (4, length),
        };
        let length = u32::from_le_bytes(length) as usize;
        self.check(length)?;
        Ok(Some((prefix, length)))
    }

    fn check(&self, bytes: usize) -> Result<()> {
        if bytes as u64 > self.limits.message_bytes_max {
            return Err(Error::limit(format!(
                "an Arrow message claims {bytes} bytes, more than {} (message_bytes_max); send smaller batches",
                self.limits.message_bytes_max
            )));
        }
        Ok(())
    }
}

/// One batch as a whole IPC stream, for values that travel in a header or handle.
///
/// # Errors
///
/// `Internal` for a column that IPC cannot carry.
pub fn encode_batch(batch: &RecordBatch) -> Result<Bytes> {
    let (mut encoder, schema) = Encoder::new(&batch.schema(), u64::MAX);
    let mut bytes = BytesMut::new();
    for message in [schema].into_iter().chain(encoder.encode(batch)?) {
        frame(message).iter().for_each(|part| bytes.extend_from_slice(part));
    }
    bytes.extend_from_slice(&END_OF_STREAM);
    Ok(bytes.freeze())
}

/// The batch of [`encode_batch`].
///
/// # Errors
///
/// `InvalidQuery` for bytes that are not one batch.
pub fn decode_batch(bytes: Bytes) -> Result<RecordBatch> {
    let bytes_max = bytes.len() as u64;
    let mut deframer = Deframer::new(DecodeLimits { message_bytes_max: bytes_max, inflated_bytes_max: bytes_max });
    deframer.push(bytes);
    let batch = deframer.next_batch()?.ok_or_else(|| Error::invalid("the Arrow stream has no batch"))?;
    match deframer.next_batch()? {
        None => deframer.finish().map(|()| batch),
        Some(_) => Err(Error::invalid("the Arrow stream has more than one batch")),
    }
}
