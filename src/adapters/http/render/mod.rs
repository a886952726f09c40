//! Results as text, or as an Arrow stream: written batch by batch, never gathered.
//!
//! A result that breaks off leaves its format unfinished – JSON without its last brace, an Arrow stream without its end
//! mark – and breaks the connection too, so nobody takes it for whole.

mod cells;
mod text;

pub use cells::NanStyle;

use crate::adapters::gate::Request as Admitted;
use crate::adapters::http::render::text::TextWriter;
use crate::adapters::http::wire::Format;
use crate::adapters::ipc::{END_OF_STREAM, Encoder, Encoding, Message, split};
use crate::ports::{BatchStream, Result};
use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use std::collections::VecDeque;

/// Bytes of values that are written as one piece of text.
const TEXT_BYTES_TARGET: usize = 64 << 10;

/// How to write a result.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// What NaN and the infinities become in JSON.
    pub nan: NanStyle,
    /// How Arrow messages are written.
    pub encoding: Encoding,
}

/// What turns batches into bytes.
enum Writer {
    Arrow(Box<Encoder>),
    Text(TextWriter),
}

struct Rendering {
    batches: BatchStream,
    writer: Writer,
    waiting: VecDeque<Bytes>,
    ended: bool,
    admitted: Admitted,
}

/// The body of a result. The request is logged when the last byte was taken, or nobody wants it.
pub fn body(batches: BatchStream, style: Style, admitted: Admitted) -> impl Stream<Item = Result<Bytes>> + Send {
    let schema = batches.schema();
    let (writer, first) = match style.format {
        Format::Arrow => {
            let (encoder, first) = Encoder::new(&schema, style.encoding);
            (Writer::Arrow(Box::new(encoder)), first.into_pieces().collect())
        }
        format => {
            let (writer, head) = TextWriter::new(format, style.nan, &schema);
            (Writer::Text(writer), VecDeque::from([head]))
        }
    };
    let batches = admitted.until_cut(batches);
    let rendering = Rendering { batches, writer, waiting: first, ended: false, admitted };
    stream::unfold(Some(rendering), |rendering| async move {
        let mut rendering = rendering?;
        let next = rendering.next().await?;
        let rest = next.is_ok();
        if let Ok(bytes) = &next {
            rendering.admitted.sent(0, bytes.len() as u64);
        }
        let next = next.map_err(|error| rendering.admitted.fail(error));
        Some((next, rest.then_some(rendering)))
    })
    // The compressor asks once more after the end.
    .fuse()
}

impl Rendering {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                if bytes.is_empty() {
                    continue;
                }
                return Some(Ok(bytes));
            }
            if self.ended {
                self.admitted.done();
                return None;
            }
            match self.batches.next().await {
                None => {
                    self.ended = true;
                    self.waiting.push_back(self.writer.end(&self.admitted));
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(batch)) => {
                    self.admitted.sent(batch.num_rows() as u64, 0);
                    if let Err(error) = self.writer.write(&batch, &mut self.waiting) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

impl Writer {
    fn write(&mut self, batch: &RecordBatch, out: &mut VecDeque<Bytes>) -> Result<()> {
        match self {
            Self::Arrow(encoder) => out.extend(encoder.encode(batch)?.into_iter().flat_map(Message::into_pieces)),
            Self::Text(writer) => {
                for piece in split(batch, TEXT_BYTES_TARGET) {
                    out.push_back(writer.rows(&piece)?);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, admitted: &Admitted) -> Bytes {
        match self {
            Self::Arrow(_) => Bytes::from_static(&END_OF_STREAM),
            Self::Text(writer) => writer.end(admitted.elapsed()),
        }
    }
}
