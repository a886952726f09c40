//! Sent gRPC messages: from IPC messages to the frames of an HTTP/2 body.
//!
//! tonic's codec writes a message into one buffer. Here a message is a list of pieces, most of them the memory of
//! columns, with a few dozen bytes of framing before them.

use crate::adapters::flight::grpc::{DATA_BODY, DATA_HEADER, PREFIX_BYTES};
use crate::adapters::ipc::Message;
use crate::ports::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http::HeaderMap;
use http_body::Frame;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use sync_wrapper::SyncWrapper;
use tonic::body::Body;
use tonic::{Response, Status};

/// The longest message that gRPC implementations agree on: protobuf counts in signed 32 bits.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Encodes an IPC message as a `FlightData`.
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

/// Encodes a protobuf message.
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
pub type ReplyMessages = BoxStream<'static, Result<Vec<Bytes>, Status>>;

/// Short messages that are ready together are sent together, up to this many bytes: each write wakes the client.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// HTTP/2 frames up to this size are copied next to each other and leave in one write; a longer one leaves by itself
/// (h2's threshold for chaining, 256). So a short complete reply is cut into such frames and leaves together with its
/// headers and its status: a second write would wake the client a second time.
const SMALL_FRAME_BYTES: usize = 255;

/// Replies up to this size are sent so.
const SMALL_REPLY_BYTES: usize = 4 << 10;

/// The body of a reply: its messages, then its status as trailers.
struct ReplyBody {
    messages: SyncWrapper<ReplyMessages>,
    waiting: VecDeque<Bytes>,
    end: Option<HeaderMap>,
    ended: bool,
}

impl ReplyBody {
    fn new(messages: ReplyMessages) -> Self {
        Self { messages: SyncWrapper::new(messages), waiting: VecDeque::new(), end: None, ended: false }
    }

    /// Joins messages while they are ready and short; the pieces of longer ones go to `waiting`. Pending if there is
    /// nothing.
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

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        if body.waiting.is_empty() && body.end.is_none() {
            let joined = std::task::ready!(body.gather(cx));
            if body.end.is_some() && joined.len() <= SMALL_REPLY_BYTES {
                // All of it is here, status included: see `SMALL_FRAME_BYTES`.
                let whole = joined.freeze();
                let frames = (0..whole.len()).step_by(SMALL_FRAME_BYTES);
                body.waiting.extend(frames.map(|at| whole.slice(at..whole.len().min(at + SMALL_FRAME_BYTES))));
            } else if !joined.is_empty() {
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
        // A header cannot carry this message: the code alone is sent.
        trailers.clear();
        trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    trailers
}

/// Converts the reply of a call to an HTTP response.
pub fn response(reply: Result<Response<ReplyMessages>, Status>) -> http::Response<Body> {
    let (metadata, messages, extensions) = match reply {
        Ok(reply) => reply.into_parts(),
        Err(status) => return status.into_http(),
    };
    let mut response = http::Response::new(Body::new(ReplyBody::new(messages)));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    *response.extensions_mut() = extensions;
    response
}
