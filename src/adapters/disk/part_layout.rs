//! Where the columns of a part's batches lie, and their hashes.
//!
//! A part is a file in the Arrow IPC file format, which anybody can open. What the format lacks, hashes and the places of single
//! columns, is in its footer's metadata as JSON; the footer itself is known again by the digest that a checkpoint has of it.

use crate::ports::{Error, Result};
use arrow::datatypes::DataType;
use arrow::ipc::{FieldNode, Message, MessageHeader, RecordBatch, root_as_message};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// Key of the layout in the footer's metadata.
pub const LAYOUT_KEY: &str = "zepto.layout";

/// Bytes of the continuation marker and the length before every flatbuffer.
const PREFIX_BYTES: usize = 8;

/// Where everything lies.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PartLayout {
    /// Its batches.
    pub batches: Vec<BatchLayout>,
    /// Messages of dictionaries, in the order in which they are read.
    pub dictionaries: Vec<Extent>,
}

/// Bytes of a part.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Extent {
    /// Where they begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
    /// Their XXH3.
    pub hash: u64,
}

/// Where a batch lies.
#[derive(Debug, Serialize, Deserialize)]
pub struct BatchLayout {
    /// Its flatbuffer, with the prefix.
    pub head: Extent,
    /// The buffers of each column, in order.
    pub columns: Vec<Extent>,
}

/// How many nodes, buffers, and counts of further buffers a column has in a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Nodes.
    pub nodes: usize,
    /// Buffers, but for those that are counted one by one.
    pub buffers: usize,
    /// Counts.
    pub counts: usize,
}

impl Shape {
    /// Returns the shape of a column of a type (Arrow Columnar Format, "Buffer listing for each layout").
    pub fn of(data_type: &DataType) -> Self {
        use DataType::*;
        let one = |buffers| Self { nodes: 1, buffers, counts: 0 };
        match data_type {
            Null => one(0),
            Utf8 | LargeUtf8 | Binary | LargeBinary => one(3),
            Utf8View | BinaryView => Self { counts: 1, ..one(2) },
            List(child) | LargeList(child) | Map(child, _) => one(2).and(Self::of(child.data_type())),
            ListView(child) | LargeListView(child) => one(3).and(Self::of(child.data_type())),
            FixedSizeList(child, _) => one(1).and(Self::of(child.data_type())),
            Struct(fields) => fields.iter().fold(one(1), |shape, field| shape.and(Self::of(field.data_type()))),
            RunEndEncoded(ends, values) => one(0).and(Self::of(ends.data_type())).and(Self::of(values.data_type())),
            Union(fields, mode) => {
                let buffers = if *mode == arrow::datatypes::UnionMode::Dense { 2 } else { 1 };
                fields.iter().fold(one(buffers), |shape, (_, field)| shape.and(Self::of(field.data_type())))
            }
            _ => one(2),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            buffers: self.buffers + other.buffers,
            counts: self.counts + other.counts,
        }
    }
}

/// What a message says of one column.
#[derive(Debug)]
pub struct ColumnHead {
    /// Lengths and counts of nulls.
    pub nodes: Vec<FieldNode>,
    /// Where its buffers lie in the message's body.
    pub buffers: Vec<arrow::ipc::Buffer>,
    /// How many further buffers its views have.
    pub counts: Vec<i64>,
}

/// Divides what a message says among its columns.
///
/// # Errors
///
/// `Internal` where it has other columns.
pub fn column_heads<'a>(batch: &RecordBatch<'_>, types: impl Iterator<Item = &'a DataType>) -> Result<Vec<ColumnHead>> {
    let mut nodes = batch.nodes().into_iter().flatten().copied();
    let mut buffers = batch.buffers().into_iter().flatten().copied();
    let mut counts = batch.variadicBufferCounts().into_iter().flatten();
    let head = |data_type: &DataType| {
        let shape = Shape::of(data_type);
        let counts: Vec<i64> = counts.by_ref().take(shape.counts).collect();
        let further: i64 = counts.iter().sum();
        let buffers_count = shape.buffers + usize::try_from(further).map_err(|_| unreadable())?;
        let nodes: Vec<_> = nodes.by_ref().take(shape.nodes).collect();
        let buffers: Vec<_> = buffers.by_ref().take(buffers_count).collect();
        let is_whole = nodes.len() == shape.nodes && buffers.len() == buffers_count && counts.len() == shape.counts;
        if is_whole { Ok(ColumnHead { nodes, buffers, counts }) } else { Err(unreadable()) }
    };
    types.map(head).collect()
}

/// Notes where the messages of one batch lie, which begin at `offset`: its dictionaries, where there are new ones, and itself.
///
/// # Errors
///
/// `Internal` where they are something else.
pub fn note_batch<'a>(
    layout: &mut PartLayout,
    messages: &[u8],
    offset: u64,
    types: impl Iterator<Item = &'a DataType>,
) -> Result<()> {
    let mut at = 0;
    loop {
        let (message, head_bytes) = message_at(messages, at)?;
        let body_bytes = usize::try_from(message.bodyLength()).map_err(|_| unreadable())?;
        let extent = |from: usize, bytes: usize| {
            let part = messages.get(from..from + bytes).ok_or_else(unreadable)?;
            Ok::<_, Error>(Extent {
                offset: offset + from as u64,
                bytes: bytes as u64,
                hash: XxHash3_64::oneshot(part),
            })
        };
        if message.header_type() == MessageHeader::DictionaryBatch {
            layout.dictionaries.push(extent(at, head_bytes + body_bytes)?);
            at += head_bytes + body_bytes;
            continue;
        }
        let batch = message.header_as_record_batch().ok_or_else(unreadable)?;
        let heads = column_heads(&batch, types)?;
        let mut end = body_bytes;
        let mut columns = Vec::with_capacity(heads.len());
        // From the last column on: each ends where the next begins.
        for head in heads.iter().rev() {
            let begin = head.buffers.first().map_or(Ok(end), |first| usize::try_from(first.offset()));
            let begin = begin.map_err(|_| unreadable())?;
            columns.push(extent(at + head_bytes + begin, end.checked_sub(begin).ok_or_else(unreadable)?)?);
            end = begin;
        }
        columns.reverse();
        layout.batches.push(BatchLayout { head: extent(at, head_bytes)?, columns });
        return Ok(());
    }
}

/// Returns the message that begins at a place, and the bytes of its head.
pub fn message_at(messages: &[u8], at: usize) -> Result<(Message<'_>, usize)> {
    let prefix = messages.get(at..at + PREFIX_BYTES).ok_or_else(unreadable)?;
    let bytes = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
    let head = messages.get(at + PREFIX_BYTES..at + PREFIX_BYTES + bytes).ok_or_else(unreadable)?;
    Ok((root_as_message(head).map_err(|_| unreadable())?, PREFIX_BYTES + bytes))
}

/// Makes the error for bytes that are no messages of ours.
pub fn unreadable() -> Error {
    Error::internal("a batch is not laid out as expected")
}
