//! Reading a part: single columns of single batches, each byte checked before it means anything.

use crate::adapters::disk::device::{BLOCK, Disk};
use crate::adapters::disk::part_layout::{
    BatchLayout, ColumnHead, Extent, LAYOUT_KEY, PartLayout, column_heads, message_at,
};
use crate::adapters::disk::part_writer::{TRAILER_BYTES, digest_of, footer_bytes};
use crate::ports::{Error, Result};
use arrow::array::{Array, ArrayRef};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{FieldNode, MetadataVersion, RecordBatch, RecordBatchBuilder, root_as_footer};
use flatbuffers::FlatBufferBuilder;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use twox_hash::XxHash3_64;

/// What a part's footer says.
#[derive(Debug)]
pub struct PartReader {
    path: String,
    schema: SchemaRef,
    layout: PartLayout,
    /// Those that somebody holds, by their ids.
    dictionaries: Mutex<HashMap<i64, Weak<dyn Array>>>,
    /// The bytes of its footer.
    pub footer_bytes: usize,
}

impl PartReader {
    /// Opens the part at `path`, which has so many bytes and a footer of that hash.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it cannot be read, `Internal` where it is damaged.
    pub fn open(disk: &dyn Disk, path: String, bytes: u64, digest: u64) -> Result<Self> {
        let damaged = |why: &str| damaged(&path, why);
        if disk.len(&path).map_err(|error| read_failed(&path, &error))? < bytes {
            return Err(damaged("it is too short"));
        }
        let mut end_bytes = bytes.min(16 * BLOCK as u64);
        let end = loop {
            let mut end = vec![0; end_bytes as usize];
            disk.read_at(&path, &mut end, bytes - end_bytes).map_err(|error| read_failed(&path, &error))?;
            let wanted = footer_bytes(&end).ok_or_else(|| damaged("it is too short"))? as u64;
            if wanted <= end_bytes {
                break end;
            }
            end_bytes =
                Some(wanted).filter(|wanted| *wanted <= bytes).ok_or_else(|| damaged("its end is not its own"))?;
        };
        if digest_of(&end) != Some(digest) {
            return Err(damaged("its footer is not the one that was written"));
        }
        let footer_bytes = footer_bytes(&end).unwrap_or_default();
        let footer = &end[end.len() - footer_bytes..end.len() - TRAILER_BYTES];
        let footer = root_as_footer(footer).map_err(|error| damaged(&error.to_string()))?;
        let metadata = footer.custom_metadata().into_iter().flatten();
        let layout = metadata.filter(|pair| pair.key() == Some(LAYOUT_KEY)).find_map(|pair| pair.value());
        let layout = layout.and_then(|layout| serde_json::from_str(layout).ok());
        let layout = layout.ok_or_else(|| damaged("it has no layout"))?;
        let schema = Arc::new(fb_to_schema(footer.schema().ok_or_else(|| damaged("it has no schema"))?));
        Ok(Self { path, schema, layout, dictionaries: Mutex::default(), footer_bytes })
    }

    /// Reads columns of a batch, given by their positions.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it cannot be read, `Internal` where it is damaged.
    pub fn read(&self, disk: &dyn Disk, batch: u32, columns: &[u32]) -> Result<Vec<ArrayRef>> {
        let layout = self.layout.batches.get(batch as usize).ok_or_else(|| self.damaged("it has too few batches"))?;
        let head = self.bytes(disk, &layout.head)?;
        let (message, _) = message_at(&head, 0)?;
        let fields = self.schema.fields();
        let (heads, rows) = match message.header_as_record_batch() {
            Some(batch) => (column_heads(&batch, fields.iter().map(|field| field.data_type()))?, batch.length()),
            None => return Err(self.damaged("a batch is something else")),
        };
        let column = |index: &u32| {
            let index = *index as usize;
            match (heads.get(index), fields.get(index)) {
                (Some(head), Some(field)) => self.column(disk, layout, index, (field, head, rows)),
                _ => Err(self.damaged("it has too few columns")),
            }
        };
        columns.iter().map(column).collect()
    }

    /// Reads everything, so that every byte that anybody could read is checked.
    ///
    /// # Errors
    ///
    /// Those of [`PartReader::read`].
    pub fn verify(&self, disk: &dyn Disk) -> Result<()> {
        let batches = self.layout.batches.iter();
        let extents = batches.flat_map(|batch| batch.columns.iter().chain([&batch.head]));
        extents.chain(&self.layout.dictionaries).try_for_each(|extent| self.bytes(disk, extent).map(|_| ()))
    }

    fn column(
        &self,
        disk: &dyn Disk,
        layout: &BatchLayout,
        index: usize,
        (field, head, rows): (&Arc<Field>, &ColumnHead, i64),
    ) -> Result<ArrayRef> {
        let extent = layout.columns.get(index).ok_or_else(|| self.damaged("it has too few columns"))?;
        let body = self.bytes(disk, extent)?;
        let begin = head.buffers.first().map_or(0, arrow::ipc::Buffer::offset);
        let message = message_of(head, begin, rows);
        let batch = flatbuffers::root::<RecordBatch<'_>>(&message);
        let batch = batch.map_err(|error| self.damaged(&error.to_string()))?;
        let schema = Arc::new(Schema::new(vec![field.clone()]));
        let dictionaries = if has_dictionary(field.data_type()) { self.dictionaries(disk)? } else { HashMap::new() };
        let read = read_record_batch(&body, batch, schema, &dictionaries, None, &MetadataVersion::V5);
        Ok(read.map_err(|error| self.undecodable(&error))?.column(0).clone())
    }

    /// Reads the dictionaries, unless somebody holds them.
    fn dictionaries(&self, disk: &dyn Disk) -> Result<HashMap<i64, ArrayRef>> {
        let held = || {
            let known = self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
            let held = known.iter().map(|(id, values)| Some((*id, values.upgrade()?)));
            held.collect::<Option<HashMap<_, _>>>().filter(|held| !held.is_empty())
        };
        if let Some(held) = held() {
            return Ok(held);
        }
        let mut dictionaries = HashMap::new();
        for extent in &self.layout.dictionaries {
            let bytes = self.bytes(disk, extent)?;
            let (message, head_bytes) = message_at(&bytes, 0)?;
            let batch = message.header_as_dictionary_batch().ok_or_else(|| self.damaged("a dictionary is none"))?;
            let body = bytes.slice(head_bytes);
            read_dictionary(&body, batch, &self.schema, &mut dictionaries, &MetadataVersion::V5)
                .map_err(|error| self.undecodable(&error))?;
        }
        let weak = dictionaries.iter().map(|(id, values)| (*id, Arc::downgrade(values))).collect();
        *self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner) = weak;
        Ok(dictionaries)
    }

    /// Reads bytes and checks their hash.
    fn bytes(&self, disk: &dyn Disk, extent: &Extent) -> Result<Buffer> {
        let mut bytes = MutableBuffer::from_len_zeroed(usize::try_from(extent.bytes).unwrap_or(usize::MAX));
        disk.read_at(&self.path, bytes.as_slice_mut(), extent.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is too short"),
            _ => read_failed(&self.path, &error),
        })?;
        if XxHash3_64::oneshot(bytes.as_slice()) != extent.hash {
            return Err(self
                .damaged(&format!("the {} bytes at {} are not those that were written", extent.bytes, extent.offset)));
        }
        Ok(bytes.into())
    }

    fn damaged(&self, why: &str) -> Error {
        damaged(&self.path, why)
    }

    fn undecodable(&self, error: &ArrowError) -> Error {
        self.damaged(&error.to_string())
    }
}

/// Makes a message of one column, whose buffers begin at `begin` of the body that it is taken from.
fn message_of(head: &ColumnHead, begin: i64, rows: i64) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let nodes: &[FieldNode] = &head.nodes;
    let nodes = builder.create_vector(nodes);
    let moved = |buffer: &arrow::ipc::Buffer| arrow::ipc::Buffer::new(buffer.offset() - begin, buffer.length());
    let buffers: Vec<_> = head.buffers.iter().map(moved).collect();
    let buffers = builder.create_vector(&buffers);
    let counts = builder.create_vector(&head.counts);
    let mut batch = RecordBatchBuilder::new(&mut builder);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    batch.add_variadicBufferCounts(counts);
    let batch = batch.finish();
    builder.finish(batch, None);
    builder.finished_data().to_vec()
}

fn has_dictionary(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Dictionary(..) => true,
        List(child)
        | LargeList(child)
        | Map(child, _)
        | ListView(child)
        | LargeListView(child)
        | FixedSizeList(child, _) => has_dictionary(child.data_type()),
        Struct(fields) => fields.iter().any(|field| has_dictionary(field.data_type())),
        RunEndEncoded(_, values) => has_dictionary(values.data_type()),
        Union(fields, _) => fields.iter().any(|(_, field)| has_dictionary(field.data_type())),
        _ => false,
    }
}

/// Makes the error for a file that is not as it was written.
pub fn damaged(path: &str, why: &str) -> Error {
    Error::internal(format!("{path} is damaged: {why}; restore the directory from a backup"))
}

/// Makes the error for a file that cannot be read.
pub fn read_failed(path: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => damaged(path, "it is missing"),
        io::ErrorKind::UnexpectedEof => damaged(path, "it is too short"),
        _ => Error::unavailable(format!("{path} cannot be read: {error}")),
    }
}
