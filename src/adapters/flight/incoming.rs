//! What a call brings: gRPC messages out of an HTTP/2 body, copied once, to where arrow wants them.
//!
//! A body belongs to the thread that serves its connection, and its messages are decoded on the engine's. Between the two
//! stands a pump, which hands over in one go what has come meanwhile.

use crate::adapters::flight::grpc::{DATA_BODY, DATA_HEADER, DESCRIPTOR, PREFIX_BYTES};
use crate::adapters::ipc::Rope;
use crate::ports::{Error, ErrorKind, Result};
use arrow::buffer::Buffer;
use arrow_flight::FlightDescriptor;
use bytes::Bytes;
use futures::future::FutureExt;
use http_body::Body as _;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use std::future::poll_fn;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;
use tonic::body::Body;

/// Longest key and length of a field.
const FIELD_BYTES_MAX: usize = 20;

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
    let arrivals = Arrivals::Body { body, ended: false };
    let incoming = Incoming { arrivals, waiting: Rope::default(), message_bytes_max, begun: None };
    let metadata = tonic::metadata::MetadataMap::from_headers(parts.headers);
    Ok(Request::from_parts(metadata, parts.extensions, incoming))
}

/// The messages that a client sends.
#[derive(Debug)]
pub struct Incoming {
    arrivals: Arrivals,
    waiting: Rope,
    message_bytes_max: u64,
    /// Bytes of the message that has begun.
    begun: Option<usize>,
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
    /// The same, read ahead on the thread that this is called on: whoever decodes the messages may do so on another.
    #[must_use]
    pub fn pumped(self) -> Self {
        Self { arrivals: self.arrivals.pumped(), ..self }
    }

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
        while let Ok(Some(_)) = self.arrivals.next().await {}
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
            match self.arrivals.next().await? {
                Some(pieces) => pieces.into_iter().for_each(|piece| self.waiting.push(piece)),
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
}

/// Bytes that a pump gathers before it hands them over.
const GULP_BYTES: usize = 256 << 10;

/// Gulps that wait for whoever decodes them.
const GULPS_MAX: usize = 8;

/// How often a pump looks again whether more has come, before it hands over less than a gulp.
const LOOKS: usize = 2;

/// Where the pieces of a body come from.
#[derive(Debug)]
enum Arrivals {
    /// The body itself.
    Body { body: Body, ended: bool },
    /// A pump.
    Pump { gulps: mpsc::Receiver<Result<Option<Vec<Bytes>>>>, _pump: AbortOnDropHandle<()>, ended: bool },
}

impl Arrivals {
    /// Whatever has come, in one or more pieces. None where nothing follows.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        match self {
            Self::Body { body, ended } => Ok(piece(body, ended).await?.map(|piece| vec![piece])),
            Self::Pump { ended: true, .. } => Ok(None),
            Self::Pump { gulps, ended, .. } => {
                let gulp = gulps.recv().await.unwrap_or_else(|| Err(gone("the connection was closed")))?;
                *ended = gulp.is_none();
                Ok(gulp)
            }
        }
    }

    /// The same, read ahead by a task of the runtime that this is called on.
    fn pumped(self) -> Self {
        let Self::Body { body, ended } = self else { return self };
        let (sender, gulps) = mpsc::channel(GULPS_MAX);
        Self::Pump { gulps, _pump: AbortOnDropHandle::new(tokio::spawn(pump(body, ended, sender))), ended: false }
    }
}

/// Reads a body until its end.
async fn pump(mut body: Body, mut ended: bool, sender: mpsc::Sender<Result<Option<Vec<Bytes>>>>) {
    loop {
        let first = piece(&mut body, &mut ended).await;
        let (gulp, end) = gather(first, &mut body, &mut ended).await;
        if !gulp.is_empty() && sender.send(Ok(Some(gulp))).await.is_err() {
            return;
        }
        if let Some(end) = end {
            // Where nobody listens any more, nobody misses the end.
            let _ = sender.send(end.map(|()| None)).await;
            return;
        }
    }
}

/// `first` and what has come meanwhile, and the end if it has come: waking another thread takes longer than a small message.
async fn gather(first: Result<Option<Bytes>>, body: &mut Body, ended: &mut bool) -> (Vec<Bytes>, Option<Result<()>>) {
    let (mut gulp, mut bytes, mut looks) = (Vec::new(), 0, 0);
    let mut next = Some(first);
    loop {
        match next {
            Some(Ok(Some(piece))) => {
                bytes += piece.len();
                gulp.push(piece);
            }
            Some(Ok(None)) => return (gulp, Some(Ok(()))),
            Some(Err(error)) => return (gulp, Some(Err(error))),
            None if looks == LOOKS => return (gulp, None),
            None => {
                looks += 1;
                // The connection's own task gets to read the socket.
                tokio::task::yield_now().await;
            }
        }
        if bytes >= GULP_BYTES {
            return (gulp, None);
        }
        next = piece(body, ended).now_or_never();
    }
}

/// The next piece of a body. hyper ends a body that its client has cancelled like one that is complete; only the flag tells
/// them apart, and half a stream must not be taken for a whole one.
async fn piece(body: &mut Body, ended: &mut bool) -> Result<Option<Bytes>> {
    while !*ended {
        let polled = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        *ended = body.is_end_stream();
        match polled {
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
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
    use crate::adapters::flight::grpc::flight_data;
    use crate::adapters::flight::incoming::request;
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
