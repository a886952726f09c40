//! Writing a part: an Arrow IPC file of batches that share their dictionaries, whole blocks at a time, past the page cache.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::{BLOCK, Disk, DiskFile};
use crate::adapters::disk::part_layout::{LAYOUT_KEY, PartLayout, note_batch};
use crate::ports::{Error, Result};
use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use std::io;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes of the end of an IPC file that say how long its footer is, and that it is one.
pub const TRAILER_BYTES: usize = 10;

/// A part that was written.
#[derive(Debug, Clone, Copy)]
pub struct WrittenPart {
    /// Its bytes.
    pub bytes: u64,
    /// The hash of its footer.
    pub digest: u64,
}

/// Writes batches of one schema to a new file, which is on the disk when this returns; its name is not.
///
/// # Errors
///
/// `LimitExceeded` where there is no space, `Unavailable` where the disk fails; there is no such file then.
pub fn write_part(disk: &dyn Disk, path: &str, batches: &[RecordBatch]) -> Result<WrittenPart> {
    let written = write(disk, path, batches);
    if written.is_err() {
        let _ = disk.remove(path);
    }
    written
}

fn write(disk: &dyn Disk, path: &str, batches: &[RecordBatch]) -> Result<WrittenPart> {
    let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| Error::internal("a part of no batches"))?;
    let mut writer = FileWriter::try_new(Vec::new(), &schema).map_err(|error| unwritable(&error))?;
    let file = disk.create(path, 0).map_err(|error| disk_failed(path, &error))?;
    let mut blocks = Blocks { file, buffer: AlignedBuffer::new(BUFFER_BYTES), filled: 0, written: 0 };
    let failed = |error: io::Error| disk_failed(path, &error);
    blocks.push(&std::mem::take(writer.get_mut())).map_err(failed)?;
    let mut layout = PartLayout::default();
    for batch in batches {
        writer.write(batch).map_err(|error| unwritable(&error))?;
        let messages = std::mem::take(writer.get_mut());
        note_batch(&mut layout, &messages, blocks.bytes(), schema.fields().iter().map(|field| field.data_type()))?;
        blocks.push(&messages).map_err(failed)?;
    }
    let layout = serde_json::to_string(&layout)
        .map_err(|error| Error::internal("a part's layout could not be written").with_source(error))?;
    writer.write_metadata(LAYOUT_KEY, layout);
    writer.finish().map_err(|error| unwritable(&error))?;
    let end = std::mem::take(writer.get_mut());
    // The footer says where everything is, so there may be anything before it: whole blocks end with the file.
    let padding = (blocks.bytes() as usize + end.len()).next_multiple_of(BLOCK) - blocks.bytes() as usize - end.len();
    blocks.push(&vec![0; padding]).and_then(|()| blocks.push(&end)).map_err(failed)?;
    let bytes = blocks.finish().map_err(failed)?;
    Ok(WrittenPart { bytes, digest: digest_of(&end).ok_or_else(|| Error::internal("a part has no footer"))? })
}

/// Returns the hash of the footer in bytes that a part ends with; none where they are too few.
pub fn digest_of(end: &[u8]) -> Option<u64> {
    Some(XxHash3_64::oneshot(&end[end.len().checked_sub(footer_bytes(end)?)?..]))
}

/// Returns the bytes of the footer with all behind it, which says how long it is.
pub fn footer_bytes(end: &[u8]) -> Option<usize> {
    let trailer = &end[end.len().checked_sub(TRAILER_BYTES)?..];
    let footer = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    Some(footer as usize + TRAILER_BYTES)
}

/// Bytes on their way to a file, whole blocks at a time.
struct Blocks {
    file: Arc<dyn DiskFile>,
    buffer: AlignedBuffer,
    filled: usize,
    written: u64,
}

impl Blocks {
    fn bytes(&self) -> u64 {
        self.written + self.filled as u64
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.filled));
            self.buffer.as_mut_slice()[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BUFFER_BYTES {
                self.write()?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer.as_slice()[..self.filled], self.written, false)?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        if self.filled > 0 {
            self.write()?;
        }
        self.file.sync()?;
        Ok(self.written)
    }
}

/// Returns how many of the first batches may go into one file, whose batches share their dictionaries.
pub fn of_one_part(batches: &[RecordBatch]) -> usize {
    let Some((first, rest)) = batches.split_first() else { return 0 };
    let is_like_first = |batch: &&RecordBatch| {
        let columns = first.columns().iter().zip(batch.columns());
        columns.into_iter().all(|(first, column)| share_dictionaries(&first.to_data(), &column.to_data()))
    };
    1 + rest.iter().take_while(is_like_first).count()
}

fn share_dictionaries(first: &ArrayData, other: &ArrayData) -> bool {
    if let DataType::Dictionary(..) = first.data_type() {
        let (first, other) = (&first.child_data()[0], &other.child_data()[0]);
        return first.ptr_eq(other) || first == other;
    }
    let children = first.child_data().iter().zip(other.child_data());
    children.into_iter().all(|(first, other)| share_dictionaries(first, other))
}

fn unwritable(error: &ArrowError) -> Error {
    Error::internal(format!("rows cannot be written as Arrow IPC: {error}"))
}

/// Makes the error for a file that could not be written.
pub fn disk_failed(path: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::limit(format!("the disk of the data directory is full ({path}: {error})"))
        }
        _ => Error::unavailable(format!("{path} could not be written: {error}")),
    }
}
