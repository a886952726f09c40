//! Messages as an IPC stream: each with its length before it, and an explicit end marker.
//!
//! A stream that stops without [`END_OF_STREAM`] was truncated, and is an error.

use crate::adapters::ipc::decode::{DecodeLimits, Decoder};
use crate::adapters::ipc::encode::{Encoder, schema_message};
use crate::adapters::ipc::options::Encoding;
use crate::adapters::ipc::rope::Rope;
use crate::ports::{Error, Reservation, Result};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::root_as_message;
use bytes::{Bytes, BytesMut};

const CONTINUATION: [u8; 4] = [0xff; 4];

/// First bytes of files that are sent by mistake: Arrow files (`ARROW1`), Feather version 1, Parquet.
const FILE_MAGICS: [[u8; 4]; 3] = [*b"ARRO", *b"FEA1", *b"PAR1"];

/// The last eight bytes of an IPC stream.
pub const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Encoding with one message, whatever its size.
const SINGLE_MESSAGE: Encoding = Encoding { message_bytes_target: u64::MAX, compression: None };

/// Encodes a schema as a framed message: what Flight calls a schema, and `pyarrow.ipc.read_schema` reads.
pub fn encode_schema(schema: &Schema) -> Bytes {
    schema_message(schema).into_pieces().flatten().collect()
}

/// Decodes the schema of a framed message.
///
/// # Errors
///
/// `InvalidQuery` for anything else.
pub fn decode_schema(bytes: Bytes) -> Result<SchemaRef> {
    let limits = DecodeLimits::new(bytes.len() as u64, 0);
    let mut deframer = Deframer::new(limits);
    deframer.push(bytes);
    deframer.next_batch()?;
    deframer.schema().ok_or_else(|| Error::invalid("the bytes are not an Arrow schema"))
}

/// Decodes an IPC stream from chunks of any size.
#[derive(Debug)]
pub struct Deframer {
    decoder: Decoder,
    limits: DecodeLimits,
    waiting: Rope,
    /// A header whose body has not arrived, and the bytes of that body.
    begun: Option<(Bytes, usize)>,
    /// Memory of the message that is arriving, until the next one begins: by then it is counted where it went.
    reserved: Option<Reservation>,
    /// Whether the length of a header is known that has not arrived.
    header_begun: bool,
    ended: bool,
}

impl Deframer {
    /// Creates a reader at the beginning of a stream.
    pub fn new(limits: DecodeLimits) -> Self {
        Self {
            decoder: Decoder::new(limits.clone()),
            limits,
            reserved: None,
            header_begun: false,
            waiting: Rope::default(),
            begun: None,
            ended: false,
        }
    }

    /// Returns the schema, once it has arrived.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }

    /// Adds a chunk of the stream.
    pub fn push(&mut self, bytes: Bytes) {
        self.waiting.push(bytes);
    }

    /// Returns the next batch; `None` where more of the stream is needed.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for anything that is not an IPC stream, `LimitExceeded` for a message beyond the limits.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some((header, body)) = self.next_message()? {
            if let Some(batch) = self.decoder.decode(&header, body)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Checks that the stream is complete.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` where it has no schema or no end marker.
    pub fn finish(&self) -> Result<()> {
        match (self.decoder.schema(), self.ended) {
            (Some(_), true) => Ok(()),
            (Some(_), false) => Err(Error::invalid("the Arrow stream was cut off before its end marker")),
            (None, _) => Err(Error::invalid("the Arrow stream has no schema")),
        }
    }

    fn next_message(&mut self) -> Result<Option<(Bytes, Buffer)>> {
        if self.begun.is_none() {
            self.begun = self.next_header()?;
        }
        let Some((header, body_bytes)) = self.begun.take() else { return Ok(None) };
        match self.waiting.take_aligned(body_bytes) {
            Some(body) => Ok(Some((header, body))),
            None => {
                self.begun = Some((header, body_bytes));
                Ok(None)
            }
        }
    }

    fn next_header(&mut self) -> Result<Option<(Bytes, usize)>> {
        if self.ended {
            return if self.waiting.is_empty() {
                Ok(None)
            } else {
                Err(Error::invalid("there is data after the end of the Arrow stream"))
            };
        }
        let Some((prefix, header_bytes)) = self.header_bytes()? else { return Ok(None) };
        if !self.header_begun {
            self.reserved = None;
            self.reserved = Some(self.limits.memory.reserve(header_bytes as u64)?);
            self.header_begun = true;
        }
        if self.waiting.len() < prefix + header_bytes {
            return Ok(None);
        }
        self.header_begun = false;
        self.waiting.take(prefix);
        if header_bytes == 0 {
            self.ended = true;
            return self.next_header();
        }
        let Some(header) = self.waiting.take(header_bytes) else { return Ok(None) };
        let body_bytes = root_as_message(&header)
            .map_err(|error| Error::invalid(format!("the body is not an Arrow IPC stream: {error}")))?
            .bodyLength();
        let body_bytes = usize::try_from(body_bytes)
            .map_err(|_| Error::invalid(format!("an Arrow message claims a body of {body_bytes} bytes")))?;
        // Before the body is waited for: it is memory.
        self.check(header_bytes.saturating_add(body_bytes))?;
        let body = self.limits.memory.reserve(body_bytes as u64)?;
        match &mut self.reserved {
            Some(reserved) => reserved.join(body),
            None => self.reserved = Some(body),
        }
        Ok(Some((header, body_bytes)))
    }

    /// Returns the length of the prefix of the next header, and of the header. Before Arrow 0.15 there was no
    /// continuation marker.
    fn header_bytes(&self) -> Result<Option<(usize, usize)>> {
        let Some(first) = self.waiting.peek::<4>() else { return Ok(None) };
        let is_first = self.decoder.schema().is_none();
        if is_first && FILE_MAGICS.contains(&first) {
            return Err(Error::invalid("this is a file (Arrow, Feather or Parquet); send an Arrow IPC stream"));
        }
        let (prefix, length) = match first {
            CONTINUATION => match self.waiting.peek::<8>() {
                Some([_, _, _, _, length @ ..]) => (8, length),
                None => return Ok(None),
            },
            length => (4, length),
        };
        let length = u32::from_le_bytes(length) as usize;
        // A schema is never that long, so these bytes are not a length.
        if is_first && prefix == 4 && self.check(length).is_err() {
            return Err(Error::invalid("the bytes are not an Arrow IPC stream"));
        }
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

/// Encodes one batch as a complete IPC stream, for values in a header or handle.
///
/// # Errors
///
/// `Internal` for a column that IPC cannot carry.
pub fn encode_batch(batch: &RecordBatch) -> Result<Bytes> {
    let (mut encoder, schema) = Encoder::new(&batch.schema(), SINGLE_MESSAGE);
    let mut bytes = BytesMut::new();
    for message in [schema].into_iter().chain(encoder.encode(batch)?) {
        message.into_pieces().for_each(|piece| bytes.extend_from_slice(&piece));
    }
    bytes.extend_from_slice(&END_OF_STREAM);
    Ok(bytes.freeze())
}

/// Decodes the batch of [`encode_batch`].
///
/// # Errors
///
/// `InvalidQuery` for bytes that are not one batch.
pub fn decode_batch(bytes: Bytes) -> Result<RecordBatch> {
    let bytes_max = bytes.len() as u64;
    let mut deframer = Deframer::new(DecodeLimits::new(bytes_max, bytes_max));
    deframer.push(bytes);
    let Some(batch) = deframer.next_batch()? else {
        // A batch without rows has no message.
        deframer.finish()?;
        let schema = deframer.schema().ok_or_else(|| Error::invalid("the Arrow stream has no schema"))?;
        return Ok(RecordBatch::new_empty(schema));
    };
    match deframer.next_batch()? {
        None => deframer.finish().map(|()| batch),
        Some(_) => Err(Error::invalid("the Arrow stream has more than one batch")),
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::ipc::{decode_batch, encode_batch};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    #[test]
    fn a_batch_stays_one_whatever_its_size() {
        for rows in [0, 1, 500_000] {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
            let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
            assert_eq!(decode_batch(encode_batch(&batch).unwrap()).unwrap(), batch);
        }
    }
}
