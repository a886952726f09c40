//! Received gRPC messages: from an HTTP/2 body to `FlightData`, copied once, with the alignment that arrow needs.
//!
//! A body belongs to the thread that serves its connection, and its messages are decoded on a thread of the engine.
//! Between the two a task reads ahead and hands over what has arrived meanwhile as one chunk.

use crate::adapters::flight::grpc::timed_body::TimedBody;
use crate::adapters::flight::grpc::{DATA_BODY, DATA_HEADER, DESCRIPTOR, PREFIX_BYTES};
use crate::adapters::ipc::Rope;
use crate::adapters::serving::ServerOptions;
use crate::ports::{Error, ErrorKind, MemoryAccount, Reservation, Result};
use arrow::buffer::Buffer;
use arrow_flight::FlightDescriptor;
use bytes::Bytes;
use futures::future::FutureExt;
use http_body::Body as _;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Request};

/// Longest key and length of a field: two varints of ten bytes.
const FIELD_BYTES_MAX: usize = 20;

/// Takes a request apart; its body is still to be read.
///
/// # Errors
///
/// `Unsupported` for a compressed call.
pub fn request(request: http::Request<Body>, options: &ServerOptions) -> Result<Request<Incoming>> {
    let (parts, body) = request.into_parts();
    let encoding = parts.headers.get("grpc-encoding").map(|encoding| encoding.to_str().unwrap_or("?").to_owned());
    if let Some(encoding) = encoding.filter(|encoding| encoding != "identity") {
        return Err(Error::unsupported(format!("grpc-encoding {encoding:?}; compress the Arrow buffers instead")));
    }
    let ServerOptions { limits, memory, .. } = options;
    let timeout = (limits.body_timeout_ms > 0).then(|| Duration::from_millis(limits.body_timeout_ms));
    let incoming = Incoming {
        source: BodySource::Direct { body: TimedBody::new(body, timeout), ended: false },
        received: Rope::default(),
        message_bytes_max: limits.message_bytes_max,
        current: None,
        memory: memory.clone(),
        reserved: None,
    };
    let metadata = tonic::metadata::MetadataMap::from_headers(parts.headers);
    Ok(Request::from_parts(metadata, parts.extensions, incoming))
}

/// The messages of a call, as its client sends them.
#[derive(Debug)]
pub struct Incoming {
    source: BodySource,
    /// Bytes that have arrived and are not decoded yet.
    received: Rope,
    message_bytes_max: u64,
    /// Length of the message whose prefix was read.
    current: Option<usize>,
    memory: MemoryAccount,
    /// Memory of that message, until the next one begins.
    reserved: Option<Reservation>,
}

/// A received `FlightData`.
#[derive(Debug, Default)]
pub struct FlightData {
    /// Its descriptor.
    pub descriptor: Option<FlightDescriptor>,
    /// The flatbuffer of an IPC message; empty if there is none.
    pub header: Bytes,
    /// The body of that message, aligned.
    pub body: Buffer,
}

impl Incoming {
    /// Starts to read ahead on the current runtime, so that the messages may be decoded on another thread.
    #[must_use]
    pub fn read_ahead(self) -> Self {
        Self { source: self.source.read_ahead(), ..self }
    }

    /// Reads the next `FlightData`; none once the client has ended its stream.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` for a message that is too large, `InvalidQuery` for one that does not decode, `Cancelled` if
    /// the client went away.
    pub async fn flight_data(&mut self) -> Result<Option<FlightData>> {
        let Some(bytes) = self.message().await? else { return Ok(None) };
        let garbled = || Error::invalid("the stream is not Flight data: a message does not decode");
        let mut data = FlightData::default();
        let end = self.received.len() - bytes;
        while self.received.len() > end {
            let left = self.received.len() - end;
            let (tag, field_bytes) = field(&mut self.received, left).ok_or_else(garbled)?;
            if field_bytes > self.received.len() - end {
                return Err(garbled());
            }
            match tag {
                DATA_BODY => data.body = self.received.take_aligned(field_bytes).ok_or_else(garbled)?,
                _ => {
                    let bytes = self.received.take(field_bytes).ok_or_else(garbled)?;
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

    /// Reads the message of a call that has exactly one.
    ///
    /// # Errors
    ///
    /// Those of [`Incoming::flight_data`].
    pub async fn single<M: prost::Message + Default>(&mut self) -> Result<M> {
        let bytes = self.message().await?.ok_or_else(|| Error::invalid("the call came without its message"))?;
        let bytes = self.received.take(bytes).unwrap_or_default();
        M::decode(bytes).map_err(|error| Error::invalid(format!("the call's message does not decode: {error}")))
    }

    /// Reads and discards the rest.
    pub async fn skip(&mut self) {
        self.received = Rope::default();
        while let Ok(Some(_)) = self.source.next().await {}
    }

    /// Waits until the next message has arrived, and returns its length.
    async fn message(&mut self) -> Result<Option<usize>> {
        loop {
            if self.current.is_none() && self.received.len() >= PREFIX_BYTES {
                self.read_prefix()?;
            }
            if self.current.is_some_and(|bytes| self.received.len() >= bytes) {
                return Ok(self.current.take());
            }
            match self.source.next().await? {
                Some(pieces) => pieces.into_iter().for_each(|piece| self.received.push(piece)),
                None if self.current.is_none() && self.received.is_empty() => return Ok(None),
                None => return Err(Error::invalid("the stream is not Flight data: it ends within a message")),
            }
        }
    }

    fn read_prefix(&mut self) -> Result<()> {
        let Some([flag, length @ ..]) = self.received.peek::<PREFIX_BYTES>() else { return Ok(()) };
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
        // Asked for before it arrives; what the last message took is its batch's by now.
        self.reserved = None;
        self.reserved = Some(self.memory.reserve(bytes as u64)?);
        self.received.take(PREFIX_BYTES);
        self.current = Some(bytes);
        Ok(())
    }
}

/// Bytes of a chunk that is handed over without waiting for more.
const CHUNK_BYTES: usize = 256 << 10;

/// Most chunks that wait to be decoded.
const CHUNKS_MAX: usize = 8;

/// How often the reading task yields for more bytes before it hands over a smaller chunk.
const READ_AHEAD_POLLS: usize = 2;

/// The source of a body's pieces.
#[derive(Debug)]
enum BodySource {
    /// The body itself.
    Direct { body: TimedBody, ended: bool },
    /// A task that reads ahead.
    ReadAhead { chunks: mpsc::Receiver<Result<Option<Vec<Bytes>>>>, _task: AbortOnDropHandle<()>, ended: bool },
}

impl BodySource {
    /// Waits for the next pieces; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        match self {
            Self::Direct { body, ended } => Ok(piece(body, ended).await?.map(|piece| vec![piece])),
            Self::ReadAhead { ended: true, .. } => Ok(None),
            Self::ReadAhead { chunks, ended, .. } => {
                // A task that ended without a last item was dropped with its connection.
                let chunk = chunks.recv().await.unwrap_or_else(|| Err(gone("the connection was closed")))?;
                *ended = chunk.is_none();
                Ok(chunk)
            }
        }
    }

    /// Starts a task on the current runtime that reads ahead.
    fn read_ahead(self) -> Self {
        let Self::Direct { body, ended } = self else { return self };
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let task = AbortOnDropHandle::new(tokio::spawn(read_to_end(body, ended, sender)));
        Self::ReadAhead { chunks, _task: task, ended: false }
    }
}

/// Reads a body to its end and sends it on in chunks.
async fn read_to_end(mut body: TimedBody, mut ended: bool, sender: mpsc::Sender<Result<Option<Vec<Bytes>>>>) {
    loop {
        let first = piece(&mut body, &mut ended).await;
        let (chunk, end) = gather(first, &mut body, &mut ended).await;
        if !chunk.is_empty() && sender.send(Ok(Some(chunk))).await.is_err() {
            return;
        }
        if let Some(end) = end {
            // The receiver may be gone already.
            let _ = sender.send(end.map(|()| None)).await;
            return;
        }
    }
}

/// Gathers `first` and what has arrived meanwhile into one chunk, with the end of the body if it was reached.
///
/// Waking another thread takes longer than reading a small message.
async fn gather(
    first: Result<Option<Bytes>>,
    body: &mut TimedBody,
    ended: &mut bool,
) -> (Vec<Bytes>, Option<Result<()>>) {
    let (mut chunk, mut bytes, mut polls) = (Vec::new(), 0, 0);
    let mut next = Some(first);
    loop {
        match next {
            Some(Ok(Some(piece))) => {
                bytes += piece.len();
                chunk.push(piece);
            }
            Some(Ok(None)) => return (chunk, Some(Ok(()))),
            Some(Err(error)) => return (chunk, Some(Err(error))),
            None if polls == READ_AHEAD_POLLS => return (chunk, None),
            None => {
                polls += 1;
                // Lets the connection's own task read the socket.
                tokio::task::yield_now().await;
            }
        }
        if bytes >= CHUNK_BYTES {
            return (chunk, None);
        }
        next = piece(body, ended).now_or_never();
    }
}

/// Reads the next piece of a body; none at its end.
///
/// hyper ends a body that its client has cancelled like one that is complete. Only `is_end_stream` tells them apart,
/// and half a stream must not be taken for a whole one.
async fn piece(body: &mut TimedBody, ended: &mut bool) -> Result<Option<Bytes>> {
    while !*ended {
        let polled = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        *ended = body.is_end_stream();
        match polled {
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
            Some(Err(status)) if status.code() == Code::DeadlineExceeded => {
                return Err(Error::new(ErrorKind::Timeout, status.message()));
            }
            Some(Err(_)) => return Err(gone("the connection was lost before the end of the stream")),
            None if *ended => {}
            None => return Err(gone("the client went away before the end of its stream")),
        }
    }
    Ok(None)
}

fn gone(text: &str) -> Error {
    Error::new(ErrorKind::Cancelled, text)
}

/// Reads the tag of the next field, and the number of bytes that follow. A varint is read with it, so nothing follows.
fn field(received: &mut Rope, left: usize) -> Option<(u32, usize)> {
    let key_and_length = received.first(left.min(FIELD_BYTES_MAX));
    let mut rest = key_and_length.as_slice();
    let (tag, wire_type) = decode_key(&mut rest).ok()?;
    let bytes = match wire_type {
        WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
        WireType::Varint => decode_varint(&mut rest).map(|_| 0).ok()?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    received.take(key_and_length.len() - rest.len())?;
    Some((tag, bytes))
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::grpc::incoming::request;
    use crate::adapters::flight::grpc::outgoing::flight_data;
    use crate::adapters::ipc::{Encoder, Encoding};
    use crate::adapters::serving::ServerOptions;
    use crate::ports::{ErrorKind, Limits};
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
        let limits = Limits { message_bytes_max, ..Limits::default() };
        request(body, &ServerOptions { limits, ..ServerOptions::default() }).unwrap().into_inner()
    }

    /// Makes a body of one piece.
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
