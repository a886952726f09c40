//! Messages from untrusted senders to batches.
//!
//! arrow checks what a message says about its arrays. Checked here is what arrow does not check: the rows that a message
//! claims without bytes for them, and the bytes that its buffers claim to inflate to.

use crate::ports::{Error, Limits, MemoryAccount, Reservation, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{self, CompressionType, Endianness, MessageHeader, root_as_message};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Rows that a message may claim beyond those that its bytes can hold: columns of nulls have rows and no bytes.
const BARE_ROWS_MAX: i64 = 1 << 24;

/// Limits on one message.
#[derive(Debug, Clone)]
pub struct DecodeLimits {
    /// Bytes of one message as it arrives.
    pub message_bytes_max: u64,
    /// Bytes of one message after decompression.
    pub inflated_bytes_max: u64,
    /// Rows that a message may claim beyond those that its bytes can hold.
    pub bare_rows_max: i64,
    /// Messages, dictionaries and inflated buffers are counted here while they are decoded.
    pub memory: MemoryAccount,
}

impl DecodeLimits {
    /// Makes limits without an account.
    pub fn new(message_bytes_max: u64, inflated_bytes_max: u64) -> Self {
        Self { message_bytes_max, inflated_bytes_max, bare_rows_max: BARE_ROWS_MAX, memory: MemoryAccount::default() }
    }

    /// Makes no limits: for what this program wrote itself and knows to be whole.
    pub fn none() -> Self {
        Self { bare_rows_max: i64::MAX, ..Self::new(u64::MAX, u64::MAX) }
    }
}

impl From<&Limits> for DecodeLimits {
    fn from(limits: &Limits) -> Self {
        Self::new(limits.message_bytes_max, limits.inflated_bytes_max)
    }
}

/// Reads the messages of one stream, the schema first.
#[derive(Debug)]
pub struct Decoder {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Memory of the dictionaries, until the stream ends.
    dictionary_memory: HashMap<i64, Vec<Reservation>>,
    /// Memory of what the last batch inflated to, until the next message: by then it is counted where it went.
    inflated_memory: Option<Reservation>,
    limits: DecodeLimits,
}

impl Decoder {
    /// Creates a decoder at the beginning of a stream.
    pub fn new(limits: DecodeLimits) -> Self {
        Self {
            schema: None,
            dictionaries: HashMap::new(),
            dictionary_memory: HashMap::new(),
            inflated_memory: None,
            limits,
        }
    }

    /// Returns the schema, once it has arrived.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.schema.clone()
    }

    /// Decodes the next message, its flatbuffer and its body. Returns a batch unless it was a schema or a dictionary. The
    /// batch keeps `body`, and copies only what is not aligned.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for anything that is not a message, `LimitExceeded` for one that would inflate beyond its limit.
    pub fn decode(&mut self, header: &[u8], body: Buffer) -> Result<Option<RecordBatch>> {
        // arrow panics on the schemas of some well-formed flatbuffers.
        catch_unwind(AssertUnwindSafe(|| self.decode_trusting(header, body)))
            .unwrap_or_else(|_| Err(Error::invalid("the Arrow data is corrupt")))
    }

    fn decode_trusting(&mut self, header: &[u8], body: Buffer) -> Result<Option<RecordBatch>> {
        let header = root_as_message(header)
            .map_err(|error| Error::invalid(format!("a message of the stream is not Arrow IPC: {error}")))?;
        match header.header_type() {
            MessageHeader::Schema => {
                self.take_schema(&header)?;
                Ok(None)
            }
            MessageHeader::DictionaryBatch => {
                let dictionary = header.header_as_dictionary_batch().ok_or_else(corrupt)?;
                let inflated = self.check(&dictionary.data().ok_or_else(corrupt)?, &body)?;
                let memory = self.limits.memory.reserve(inflated.max(body.len() as u64))?;
                let schema = self.started()?;
                read_dictionary(&body, dictionary, &schema, &mut self.dictionaries, &header.version())
                    .map_err(|error| Error::invalid(format!("a dictionary of the stream does not decode: {error}")))?;
                self.check_dictionaries()?;
                let counted = self.dictionary_memory.entry(dictionary.id()).or_default();
                if !dictionary.isDelta() {
                    counted.clear();
                }
                counted.push(memory);
                Ok(None)
            }
            MessageHeader::RecordBatch => {
                let batch = header.header_as_record_batch().ok_or_else(corrupt)?;
                let inflated = self.check(&batch, &body)?;
                self.inflated_memory = None;
                self.inflated_memory = Some(self.limits.memory.reserve(inflated)?);
                let schema = self.started()?;
                read_record_batch(&body, batch, schema, &self.dictionaries, None, &header.version())
                    .map(Some)
                    .map_err(|error| Error::invalid(format!("a batch of the stream does not decode: {error}")))
            }
            other => Err(Error::invalid(format!("a message of the stream is neither schema nor batch: {other:?}"))),
        }
    }

    fn take_schema(&mut self, header: &ipc::Message<'_>) -> Result<()> {
        let schema = header.header_as_schema().filter(|schema| schema.fields().is_some()).ok_or_else(corrupt)?;
        if schema.endianness() != Endianness::Little {
            // arrow does not check this, and would read every value with its bytes swapped.
            return Err(Error::unsupported("the stream is big-endian; send it as little-endian Arrow"));
        }
        let schema = fb_to_schema(schema);
        match &self.schema {
            Some(_) => Err(Error::invalid("the stream has a second schema; its batches share one")),
            None => {
                self.schema = Some(Arc::new(schema));
                Ok(())
            }
        }
    }

    fn started(&self) -> Result<SchemaRef> {
        self.schema.clone().ok_or_else(|| Error::invalid("the stream has a batch before its schema"))
    }

    /// Checks the dictionaries, which stay until the stream ends and may grow by deltas: together they count as one message.
    fn check_dictionaries(&self) -> Result<()> {
        let bytes: usize = self.dictionaries.values().map(|values| values.get_buffer_memory_size()).sum();
        if bytes as u64 > self.limits.inflated_bytes_max.max(self.limits.message_bytes_max) {
            return Err(Error::limit(format!(
                "the stream's dictionaries take {bytes} bytes, more than {} (inflated_bytes_max)",
                self.limits.inflated_bytes_max
            )));
        }
        Ok(())
    }

    /// Refuses false sizes, which arrow would allocate before it finds out, and returns what the buffers inflate to.
    fn check(&self, batch: &ipc::RecordBatch<'_>, body: &[u8]) -> Result<u64> {
        let bits = i64::try_from(body.len()).unwrap_or(i64::MAX).saturating_mul(8);
        let inflated = match batch.compression() {
            Some(compression) => inflated_bytes(batch, body, compression.codec()).ok_or_else(corrupt)?,
            None => 0,
        };
        if inflated > self.limits.inflated_bytes_max {
            return Err(Error::limit(format!(
                "a message inflates to {inflated} bytes, more than {} (inflated_bytes_max)",
                self.limits.inflated_bytes_max
            )));
        }
        let inflated_bits = i64::try_from(inflated).unwrap_or(i64::MAX).saturating_mul(8);
        let rows_max = bits.saturating_add(inflated_bits).saturating_add(self.limits.bare_rows_max);
        let mut counts = batch.nodes().into_iter().flatten().map(|node| node.length()).chain([batch.length()]);
        match counts.find(|rows| *rows < 0 || *rows > rows_max) {
            Some(rows) => Err(Error::invalid(format!("a batch claims {rows} rows in {} bytes", body.len()))),
            None => Ok(inflated),
        }
    }
}

fn corrupt() -> Error {
    Error::invalid("the Arrow data is corrupt")
}

/// Length prefix of a buffer in a compressed body that is not compressed itself: -1.
const NOT_COMPRESSED: [u8; 8] = [0xff; 8];

/// Returns the most bytes that the buffers of a compressed body may inflate to; `None` where they lie outside of it.
fn inflated_bytes(batch: &ipc::RecordBatch<'_>, body: &[u8], codec: CompressionType) -> Option<u64> {
    let mut total = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let offset = usize::try_from(buffer.offset()).ok()?;
        let length = usize::try_from(buffer.length()).ok()?;
        let bytes = body.get(offset..offset.checked_add(length)?)?;
        let Some((prefix, data)) = bytes.split_first_chunk::<8>() else { continue };
        let claimed = match *prefix {
            NOT_COMPRESSED => data.len() as u64,
            claimed => u64::try_from(i64::from_le_bytes(claimed)).ok()?,
        };
        // arrow's LZ4 reader reads to the end of the frame, whatever length the prefix claims.
        let is_lz4 = codec == CompressionType::LZ4_FRAME && *prefix != NOT_COMPRESSED;
        let possible = if is_lz4 { lz4_blocks_bytes(data)? } else { 0 };
        total = total.saturating_add(claimed.max(possible));
    }
    Some(total)
}

/// Returns an upper bound of the bytes that an LZ4 frame inflates to: its blocks at their largest (LZ4 Frame Format
/// 1.6.1). `None` for anything else: the decoder reads legacy frames too, whose blocks do not give their size.
fn lz4_blocks_bytes(frame: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    let [flags, descriptor, rest @ ..] = frame.strip_prefix(&MAGIC)? else { return None };
    let block_bytes_max = match (descriptor >> 4) & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        _ => 4_u64 << 20,
    };
    let flag = |bit: u8| usize::from(flags >> bit & 1);
    let header = 8 * flag(3) + 4 * flag(0) + 1;
    let checksum = 4 * flag(4);
    let mut rest = rest.get(header..).unwrap_or_default();
    let mut total = 0_u64;
    while let Some((size, after)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            break;
        }
        let stored = (size & 0x7fff_ffff) as usize;
        // A block inflates at most 255 times.
        total = total.saturating_add(block_bytes_max.min((stored as u64).saturating_mul(255)));
        rest = after.get(stored.saturating_add(checksum)..).unwrap_or_default();
    }
    Some(total)
}
