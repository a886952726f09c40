//! Arrow IPC: batches to messages and back, shared by both protocols.
//!
//! A message is a flatbuffer header and a body; Flight puts the two into a `FlightData`, HTTP frames them as an IPC
//! stream (Arrow Columnar Format, "Encapsulated message format"). Bytes from outside may claim
//! anything: sizes are checked before anything is allocated for them, and a decoder that panics is an error.

mod compact;
mod decode;
mod describe;
mod described;
mod encode;
mod encoding;
mod frame;
mod present;
mod rope;
mod split;
mod stream_reader;

pub use decode::{DecodeLimits, Decoder};
pub use describe::{decode_description, encode_description};
pub use described::{DESCRIPTIONS, undescribed};
pub use encode::{Encoder, Message};
pub use encoding::{COMPRESSION, Compression, Encoding, MESSAGE_BYTES};
pub use frame::{Deframer, END_OF_STREAM, decode_batch, decode_schema, encode_batch, encode_schema};
pub use present::{HEADER_PREFIX, OPTIONS, Presentation, Strings};
pub use rope::Rope;
pub use split::{batch_bytes, split};
pub use stream_reader::{StreamErrors, read_stream};
