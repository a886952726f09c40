//! gRPC by hand, for the two calls that carry batches; tonic does the rest.
//!
//! tonic's codec writes a message into one buffer and reads it out of another. Here a message is a list of pieces, most
//! of them columns' own memory, with a few dozen bytes of framing before them (gRPC over HTTP/2, "Length-Prefixed-
//! Message"; protobuf encoding of `FlightData`), and what arrives is copied once, to where arrow wants it.

use crate::adapters::ipc::{Message, Rope};
use crate::ports::{Error, ErrorKind, Result};
use arrow::buffer::Buffer;
use arrow_flight::FlightDescriptor;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use sync_wrapper::SyncWrapper;
use tonic::body::Body;
use tonic::{Request, Response, Status};

/// A flag, and the length of a message.
const PREFIX_BYTES: usize = 5;

/// Fields of `FlightData` (Flight.proto).
const DESCRIPTOR: u32 = 1;
const DATA_HEADER: u32 = 2;
const DATA_BODY: u32 = 1000;

/// The longest message that gRPC implementations agree on: protobuf counts in signed 32 bits.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Longest key and length of a field.
const FIELD_BYTES_MAX: usize = 20;

/// An IPC message as a `FlightData` on the wire.
///
/// # Errors
///
/// `LimitExceeded` for a message beyond what gRPC carries.
pub fn flight_data(message: &Message) -> Result<Vec<Bytes>> {
    let header = message.header();
    let body_bytes = message.body_bytes();
    let field_bytes = |tag: u32, bytes: usize| key_len(tag) + encoded_len_varint(bytes as u64) + bytes;
    let body_field_bytes = if body_bytes > 0 { field_bytes(DATA_BODY, body_bytes) } else { 0 };
    let total = field_bytes(DATA_HEADER, header.len()) + body_field_bytes;
    if total > MESSAGE_BYTES_MAX {
        return Err(Error::limit(format!(
            "one row takes {total} bytes, and a gRPC message carries {MESSAGE_BYTES_MAX}; ask over HTTP, or for less"
        )));
    }
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + total - body_bytes);
    put_prefix(&mut head, total);
    put_field(&mut head, DATA_HEADER, header.len());
    head.put_slice(&header);
    if body_bytes > 0 {
        put_field(&mut head, DATA_BODY, body_bytes);
    }
    Ok([head.freeze()].into_iter().chain(message.body().iter().cloned()).collect())
}

/// A protobuf message on the wire.
pub fn proto(message: &impl prost::Message) -> Vec<Bytes> {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    put_prefix(&mut bytes, message.encoded_len());
    message.encode_raw(&mut bytes);
    vec![bytes.freeze()]
}

fn put_prefix(out: &mut BytesMut, bytes: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
}

fn put_field(out: &mut BytesMut, tag: u32, bytes: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
}

/// The messages of a reply, each as its pieces.
pub type Pieces = BoxStream<'static, Result<Vec<Bytes>, Status>>;

/// Short messages that are there together leave together, up to this many bytes: each write wakes the client.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// A reply's body: its messages, then its status as trailers.
struct Outgoing {
    messages: SyncWrapper<Pieces>,
    waiting: VecDeque<Bytes>,
    end: Option<HeaderMap>,
    ended: bool,
}

impl Outgoing {
    fn new(messages: Pieces) -> Self {
        Self { messages: SyncWrapper::new(messages), waiting: VecDeque::new(), end: None, ended: false }
    }

    /// Takes messages for as long as they are there and short. What was joined of them, unless there was nothing.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<BytesMut> {
        let mut joined = BytesMut::new();
        while self.waiting.is_empty() && self.end.is_none() {
            match self.messages.get_mut().poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(pieces))) => {
                    for piece in pieces {
                        if self.waiting.is_empty() && joined.len() + piece.len() <= JOINED_BYTES_MAX {
                            joined.extend_from_slice(&piece);
                        } else {
                            self.waiting.push_back(piece);
                        }
                    }
                }
                Poll::Ready(Some(Err(status))) => self.end = Some(trailers(&status)),
                Poll::Ready(None) => self.end = Some(trailers(&Status::ok(""))),
                Poll::Pending if joined.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(joined)
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        if body.waiting.is_empty() && body.end.is_none() {
            let joined = std::task::ready!(body.gather(cx));
            if !joined.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(joined.freeze()))));
            }
        }
        if let Some(piece) = body.waiting.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        body.ended = true;
        Poll::Ready(body.end.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A message that no header can carry: the code says enough.
        trailers.clear();
        trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    trailers
}

/// What a call answers, as HTTP.
pub fn response(reply: Result<Response<Pieces>, Status>) -> http::Response<Body> {
    let (metadata, messages, extensions) = match reply {
        Ok(reply) => reply.into_parts(),
        Err(status) => return status.into_http(),
    };
    let mut response = http::Response::new(Body::new(Outgoing::new(messages)));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    *response.extensions_mut() = extensions;
    response
}

/// What a call was asked, its body still to be read.
///
/// # Errors
///
/// `Unsupported` for a compressed call.
pub fn request(request: http::Request<Body>, message_bytes_max: u64) -> Result<Request<Incoming>> {
    let (parts, body) = request.into_parts();
    let encoding = parts.headers.get("grpc-encoding").map(|encoding| encoding.to_str().unwrap_or("?").to_owned());
    if let Some(encoding) = encoding.filter(|encoding| encoding != "identity") {
        return Err(Error::unsupported(format!("grpc-encoding {encoding:?}; compress the Arrow buffers instead")));
    }
    let incoming = Incoming { body, waiting: Rope::default(), message_bytes_max, begun: None, ended: false };
    let metadata = tonic::metadata::MetadataMap::from_headers(parts.headers);
    Ok(Request::from_parts(metadata, parts.extensions, incoming))
}

/// The messages that a client sends.
#[derive(Debug)]
pub struct Incoming {
    body: Body,
    waiting: Rope,
    message_bytes_max: u64,
    /// Bytes of the message that has begun.
    begun: Option<usize>,
    ended: bool,
}

/// A `FlightData` that came in.
#[derive(Debug, Default)]
pub struct FlightData {
    /// What it is about.
    pub descriptor: Option<FlightDescriptor>,
    /// The flatbuffer of an IPC message; empty where there is none.
    pub header: Bytes,
    /// The body of that message, aligned.
    pub body: Buffer,
}

impl Incoming {
    /// The next `FlightData`. None where the client said that nothing follows.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` for a message that is too large, `InvalidQuery` for one that does not decode, `Cancelled` where
    /// the client went away.
    pub async fn flight_data(&mut self) -> Result<Option<FlightData>> {
        let Some(bytes) = self.message().await? else { return Ok(None) };
        let garbled = || Error::invalid("the stream is no Flight data: a message does not decode");
        let mut data = FlightData::default();
        let end = self.waiting.len() - bytes;
        while self.waiting.len() > end {
            let left = self.waiting.len() - end;
            let (tag, field_bytes) = field(&mut self.waiting, left).ok_or_else(garbled)?;
            if field_bytes > self.waiting.len() - end {
                return Err(garbled());
            }
            match tag {
                DATA_BODY => data.body = self.waiting.take_aligned(field_bytes).ok_or_else(garbled)?,
                _ => {
                    let bytes = self.waiting.take(field_bytes).ok_or_else(garbled)?;
                    match tag {
                        DESCRIPTOR => data.descriptor = Some(FlightDescriptor::decode(bytes).map_err(|_| garbled())?),
                        DATA_HEADER => data.header = bytes,
                        _ => {}
                    }
                }
            }
        }
        Ok(Some(data))
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn single<M: prost::Message + Default>(&mut self) -> Result<M> {
        let bytes = self.message().await?.ok_or_else(|| Error::invalid("the call came without its message"))?;
        let bytes = self.waiting.take(bytes).unwrap_or_default();
        M::decode(bytes).map_err(|error| Error::invalid(format!("the call's message does not decode: {error}")))
    }

    /// Reads on without keeping anything.
    pub async fn skip(&mut self) {
        self.waiting = Rope::default();
        while let Ok(Some(_)) = self.piece().await {}
    }

    /// Waits until the next message is here, and tells its bytes.
    async fn message(&mut self) -> Result<Option<usize>> {
        loop {
            if self.begun.is_none() && self.waiting.len() >= PREFIX_BYTES {
                self.begin()?;
            }
            if self.begun.is_some_and(|bytes| self.waiting.len() >= bytes) {
                return Ok(self.begun.take());
            }
            match self.piece().await? {
                Some(piece) => self.waiting.push(piece),
                None if self.begun.is_none() && self.waiting.is_empty() => return Ok(None),
                None => return Err(Error::invalid("the stream is no Flight data: it ends within a message")),
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        let Some([flag, length @ ..]) = self.waiting.peek::<PREFIX_BYTES>() else { return Ok(()) };
        let bytes = u32::from_be_bytes(length) as usize;
        if flag != 0 {
            return Err(Error::unsupported("a gRPC message is compressed; compress the Arrow buffers instead"));
        }
        if bytes as u64 > self.message_bytes_max {
            return Err(Error::limit(format!(
                "a message has {bytes} bytes, more than {} (message_bytes_max); send smaller batches",
                self.message_bytes_max
            )));
        }
        self.waiting.take(PREFIX_BYTES);
        self.begun = Some(bytes);
        Ok(())
    }

    /// The next piece of the body. hyper ends a body that its client has cancelled like one that is complete; only the
    /// flag tells them apart, and half a stream must not be taken for a whole one.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let gone = |text| Error::new(ErrorKind::Cancelled, text);
        while !self.ended {
            let polled = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            self.ended = self.body.is_end_stream();
            match polled {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(_)) => return Err(gone("the connection was lost before the end of the stream")),
                None if self.ended => {}
                None => return Err(gone("the client went away before the end of its stream")),
            }
        }
        Ok(None)
    }
}

/// Tag and length of the next field, which has a length. A field of another type has none to follow.
fn field(waiting: &mut Rope, left: usize) -> Option<(u32, usize)> {
    let key_and_length = waiting.first(left.min(FIELD_BYTES_MAX));
    let mut rest = key_and_length.as_slice();
    let (tag, wire_type) = decode_key(&mut rest).ok()?;
    let bytes = match wire_type {
        WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
        WireType::Varint => decode_varint(&mut rest).map(|_| 0).ok()?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    waiting.take(key_and_length.len() - rest.len())?;
    Some((tag, bytes))
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::grpc::{flight_data, request};
    use crate::adapters::ipc::{Encoder, Encoding};
    use crate::ports::ErrorKind;
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use futures::FutureExt;
    use prost::Message as _;
    use std::sync::Arc;
    use tonic::body::Body;

    fn messages() -> Vec<Bytes> {
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from_iter_values(0..1_000)) as arrow::array::ArrayRef),
            ("s", Arc::new(StringArray::from_iter_values((0..1_000).map(|n| n.to_string())))),
        ])
        .unwrap();
        let (mut encoder, schema) = Encoder::new(&batch.schema(), Encoding::plain(1 << 20));
        let messages = [schema].into_iter().chain(encoder.encode(&batch).unwrap());
        messages.map(|message| flight_data(&message).unwrap().concat().into()).collect()
    }

    fn incoming(body: &[u8], message_bytes_max: u64) -> super::Incoming {
        let body = http::Request::new(Body::new(body_of(body)));
        request(body, message_bytes_max).unwrap().into_inner()
    }

    /// A body that is there at once.
    fn body_of(bytes: &[u8]) -> impl http_body::Body<Data = Bytes, Error = tonic::Status> + Send + 'static {
        struct Full(Option<Bytes>);
        impl http_body::Body for Full {
            type Data = Bytes;
            type Error = tonic::Status;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
                std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
            }
            fn is_end_stream(&self) -> bool {
                self.0.is_none()
            }
        }
        Full(Some(Bytes::copy_from_slice(bytes)))
    }

    #[test]
    fn what_is_framed_by_hand_is_what_protobuf_reads_and_what_comes_back() {
        let messages = messages();
        let mut incoming = incoming(&messages.concat(), 1 << 20);
        for message in &messages {
            let decoded = arrow_flight::FlightData::decode(message.slice(5..)).unwrap();
            let length = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
            assert_eq!((message[0], length), (0, message.len() - 5));
            let back = incoming.flight_data().now_or_never().unwrap().unwrap().unwrap();
            assert_eq!(back.header, decoded.data_header);
            assert_eq!(back.body.as_slice(), decoded.data_body.as_ref());
        }
        assert!(incoming.flight_data().now_or_never().unwrap().unwrap().is_none());
    }

    #[test]
    fn foreign_bytes_are_errors() {
        bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().with_iterations(5_000).for_each(|(raw, edits)| {
            let mut bent = messages().concat();
            for (at, value) in edits {
                let at = usize::from(*at) % bent.len();
                bent[at] ^= value;
            }
            for bytes in [raw, &bent] {
                let mut incoming = incoming(bytes, 1 << 20);
                while let Ok(Some(_)) = incoming.flight_data().now_or_never().expect("it is all there") {}
            }
        });
        let limited = incoming(&messages().concat(), 100).flight_data().now_or_never().unwrap().unwrap_err();
        assert_eq!(limited.kind(), ErrorKind::LimitExceeded);
        let cut = messages().concat();
        let mut incoming = incoming(&cut[..cut.len() - 1], 1 << 20);
        incoming.flight_data().now_or_never().unwrap().unwrap();
        assert_eq!(incoming.flight_data().now_or_never().unwrap().unwrap_err().kind(), ErrorKind::InvalidQuery);
    }
}
