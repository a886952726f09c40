//! gRPC by hand, for the calls that carry batches; tonic does the rest.
//!
//! A message is a prefix of five bytes and a protobuf `FlightData` (gRPC over HTTP/2, "Length-Prefixed-Message").
//! Columns are not copied into one buffer on their way out, and are copied once, aligned, on their way in.

pub(super) mod incoming;
pub(super) mod outgoing;
pub(super) mod timed_body;

/// A flag, and the length of a message.
const PREFIX_BYTES: usize = 5;

/// Fields of `FlightData` (Flight.proto).
const DESCRIPTOR: u32 = 1;
const DATA_HEADER: u32 = 2;
const DATA_BODY: u32 = 1000;
