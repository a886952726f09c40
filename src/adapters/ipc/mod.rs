//! Arrow IPC: batches to messages and back, shared by both protocols.
//!
//! A message is a flatbuffer header and a body; Flight puts the two into a `FlightData`, HTTP frames them as an IPC
//! stream (Arrow Columnar Format, "Encapsulated message format"). Bytes from outside may claim
//! anything: sizes are checked before anything is allocated for them, and a decoder that panics is an error.

mod column_metadata;
mod compact;
mod decode;
mod description;
mod encode;
mod frame;
mod options;
mod rope;
mod split;
mod stream_reader;

pub use column_metadata::{SQL_METADATA_KEYS, strip_sql_metadata};
pub use compact::compact;
pub use decode::{DecodeLimits, Decoder};
pub use description::{decode_description, encode_description};
pub use encode::{Encoder, Message};
pub use frame::{Deframer, END_OF_STREAM, decode_batch, decode_schema, encode_batch, encode_schema};
pub use options::{COMPRESSION, Compression, Encoding, MESSAGE_BYTES};
pub use rope::Rope;
pub use split::{batch_bytes, split};
pub use stream_reader::{StreamErrors, read_stream};
