//! How much a Parquet file inflates to, read from its pages.
//!
//! A footer says how large its columns are, and a sender may write anything there. What is allocated is what each page's own
//! header says, so those are added up before anything is inflated. And a few bytes in a page may stand for any number of
//! equal values: the longest of a dictionary says how many rows may be decoded at a time, and where one row may hold any
//! number of values, all values of the column count as if they were inflated.
//!
//! Headers are Thrift's compact protocol (Parquet format, `PageHeader`; Thrift, "Compact protocol encoding").

use crate::ports::{Error, Result};
use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use std::sync::Arc;

/// Nesting of a header that is still read: Parquet's has two levels.
const DEPTH_MAX: usize = 8;

/// What the pages of a file come to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PageSizes {
    /// Bytes of all pages when they are inflated.
    pub inflated: u64,
    /// Bytes that are inflated at a time: the largest page of each column, its dictionary beside it.
    pub at_a_time: u64,
    /// Bytes of one row at most, but for what stands in its pages as it is.
    pub row: u64,
}

/// Adds up the pages of a file.
///
/// # Errors
///
/// `InvalidQuery` where a page is not in the file, or its header does not decode.
pub fn page_sizes(file: &Bytes, metadata: &ParquetMetaData) -> Result<PageSizes> {
    let mut sizes = PageSizes::default();
    let leaves = metadata.file_metadata().schema_descr();
    let mut columns = vec![ColumnSizes::default(); leaves.num_columns()];
    for group in metadata.row_groups() {
        for ((at, column), sizes) in group.columns().iter().enumerate().zip(&mut columns) {
            let chunk = chunk_sizes(chunk_bytes(file, column)?).ok_or_else(corrupt)?;
            sizes.inflated = sizes.inflated.saturating_add(chunk.inflated);
            sizes.at_a_time = sizes.at_a_time.max(chunk.at_a_time);
            sizes.prefixed = sizes.prefixed.max(chunk.prefixed);
            if leaves.column(at).max_rep_level() > 0 {
                sizes.repeated_values = sizes.repeated_values.saturating_add(chunk.values);
            }
        }
    }
    for (at, column) in columns.iter().enumerate() {
        let longest = longest_value(file, metadata, at)?.max(column.prefixed);
        // A value, its offset, and the levels that say where it belongs.
        let repeated = column.repeated_values.saturating_mul(longest.saturating_add(8));
        sizes.inflated = sizes.inflated.saturating_add(column.inflated).saturating_add(repeated);
        sizes.at_a_time = sizes.at_a_time.saturating_add(column.at_a_time).saturating_add(repeated);
        sizes.row = sizes.row.saturating_add(longest);
    }
    Ok(sizes)
}

/// The sizes of a column, in all row groups.
#[derive(Debug, Default, Clone, Copy)]
struct ColumnSizes {
    inflated: u64,
    at_a_time: u64,
    /// Values of a column of which one row may hold any number.
    repeated_values: u64,
    /// The largest page of values that each may repeat the one before.
    prefixed: u64,
}

/// Returns the bytes of the longest value that a column may repeat: of a type of fixed width, or of its dictionaries.
fn longest_value(file: &Bytes, metadata: &ParquetMetaData, at: usize) -> Result<u64> {
    let leaf = metadata.file_metadata().schema_descr().column(at);
    let mut longest = match leaf.physical_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::BYTE_ARRAY => 16,
        Type::FIXED_LEN_BYTE_ARRAY => u64::try_from(leaf.type_length()).unwrap_or(0),
    };
    for group in metadata.row_groups().iter().filter(|_| leaf.physical_type() == Type::BYTE_ARRAY) {
        let Some(column) = group.columns().get(at) else { continue };
        // A dictionary is what says so itself, whether the footer knows of it or not.
        let Some(dictionary) = dictionary_bytes(chunk_bytes(file, column)?).ok_or_else(corrupt)? else { continue };
        if dictionary > DICTIONARY_BYTES_MAX {
            return Err(Error::limit(format!("the Parquet file has a dictionary of {dictionary} bytes")));
        }
        let rows = usize::try_from(group.num_rows()).map_err(|_| corrupt())?;
        let reader = SerializedPageReader::new(Arc::new(file.clone()), column, rows, None);
        let page = reader.and_then(|mut reader| reader.get_next_page());
        if let Some(Page::DictionaryPage { buf, .. }) = page.map_err(|error| corrupt().with_source(error))? {
            longest = longest.max(longest_plain_value(&buf));
        }
    }
    Ok(longest)
}

/// Largest dictionary that is looked into before it is counted: writers keep to a megabyte.
const DICTIONARY_BYTES_MAX: u64 = 64 << 20;

/// Returns what the dictionary that a column begins with inflates to, if it has one; `None` where the page is corrupt.
fn dictionary_bytes(mut chunk: &[u8]) -> Option<Option<u64>> {
    if chunk.is_empty() {
        return Some(None);
    }
    let header = PageHeader::read(&mut chunk)?;
    let inflated = u64::try_from(header.inflated).ok()?;
    Some(header.is_dictionary.then_some(inflated))
}

/// Returns the longest of byte arrays that are written plainly: each with its length before it, in four bytes.
fn longest_plain_value(mut page: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = page.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        page = rest.get(length as usize..).unwrap_or_default();
    }
    longest
}

fn corrupt() -> Error {
    Error::invalid("the Parquet file is corrupt: a page is not what the footer says")
}

fn chunk_bytes<'a>(file: &'a Bytes, column: &ColumnChunkMetaData) -> Result<&'a [u8]> {
    // `byte_range` panics on negative numbers.
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let start = usize::try_from(start).map_err(|_| corrupt())?;
    let length = usize::try_from(column.compressed_size()).map_err(|_| corrupt())?;
    let end = start.checked_add(length).ok_or_else(corrupt)?;
    file.get(start..end).ok_or_else(corrupt)
}

/// What the pages of one column of a row group come to.
struct ChunkSizes {
    inflated: u64,
    at_a_time: u64,
    values: u64,
    prefixed: u64,
}

/// Adds up the pages of a column.
fn chunk_sizes(mut chunk: &[u8]) -> Option<ChunkSizes> {
    let (mut all, mut largest, mut dictionary, mut values, mut prefixed) = (0_u64, 0, 0, 0_u64, 0);
    let mut is_first = true;
    while !chunk.is_empty() {
        let header = PageHeader::read(&mut chunk)?;
        let inflated = u64::try_from(header.inflated).ok()?;
        all = all.saturating_add(inflated);
        if header.is_dictionary {
            // A second one would replace the first, whose values were measured.
            dictionary = is_first.then_some(inflated)?;
        } else {
            largest = inflated.max(largest);
            values = values.saturating_add(u64::try_from(header.values).ok()?);
            if header.encoding == DELTA_BYTE_ARRAY {
                prefixed = inflated.max(prefixed);
            }
        }
        chunk = chunk.get(usize::try_from(header.stored).ok()?..)?;
        is_first = false;
    }
    Some(ChunkSizes { inflated: all, at_a_time: largest.saturating_add(dictionary), values, prefixed })
}

/// The fields of a page's header that say how large it is.
#[derive(Debug, Default)]
struct PageHeader {
    is_dictionary: bool,
    inflated: i64,
    stored: i64,
    values: i64,
    encoding: i64,
}

/// The value of `Encoding` for values that each say how much of the one before they begin with.
const DELTA_BYTE_ARRAY: i64 = 7;

/// The value of `PageType` for a dictionary.
const DICTIONARY_PAGE: i64 = 2;

impl PageHeader {
    /// Reads a header from the beginning of `bytes`, and moves them behind it.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let mut field = 0;
        loop {
            let (id, kind) = field_header(bytes, field)?;
            if kind == 0 {
                return Some(header);
            }
            field = id;
            match (id, kind) {
                (1, I32) => header.is_dictionary = zigzag(bytes)? == DICTIONARY_PAGE,
                (2, I32) => header.inflated = zigzag(bytes)?,
                (3, I32) => header.stored = zigzag(bytes)?,
                // The headers of data pages, of both versions: their number of values, and how those are encoded.
                (5, STRUCT) => (header.values, header.encoding) = two_numbers(bytes, 1, 2)?,
                (8, STRUCT) => (header.values, header.encoding) = two_numbers(bytes, 1, 4)?,
                // Who reads the page goes by the number of a field alone, whatever type it says.
                (1 | 2 | 3 | 5 | 8, _) => return None,
                _ => skip(bytes, kind, 0)?,
            }
        }
    }
}

/// Reads a struct, and returns two of its fields, which are numbers.
fn two_numbers(bytes: &mut &[u8], first: i64, second: i64) -> Option<(i64, i64)> {
    let (mut field, mut found) = (0, (0, 0));
    loop {
        let (id, kind) = field_header(bytes, field)?;
        match (id, kind) {
            (_, 0) => return Some(found),
            (id, I32) if id == first => found.0 = zigzag(bytes)?,
            (id, I32) if id == second => found.1 = zigzag(bytes)?,
            (id, _) if id == first || id == second => return None,
            _ => skip(bytes, kind, 0)?,
        }
        field = id;
    }
}

/// Types of the compact protocol.
const I32: u8 = 5;
const STRUCT: u8 = 12;

/// Reads the head of a field: its number and type; type 0 ends a struct.
fn field_header(bytes: &mut &[u8], before: i64) -> Option<(i64, u8)> {
    let head = byte(bytes)?;
    let kind = head & 0x0f;
    let id = match (kind, head >> 4) {
        (0, _) => 0,
        (_, 0) => zigzag(bytes)?,
        (_, delta) => before.checked_add(i64::from(delta))?,
    };
    Some((id, kind))
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let value = varint(bytes)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Skips a value of a type.
fn skip(bytes: &mut &[u8], kind: u8, depth: usize) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match kind {
        // A boolean field is its type.
        1 | 2 => {}
        3 => *bytes = bytes.get(1..)?,
        4..=6 => {
            varint(bytes)?;
        }
        7 => *bytes = bytes.get(8..)?,
        8 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            *bytes = bytes.get(length..)?;
        }
        9 | 10 => {
            let head = byte(bytes)?;
            let count = if head >> 4 == 15 { varint(bytes)? } else { u64::from(head >> 4) };
            for _ in 0..count {
                // In a list a boolean has a byte of its own.
                let item = if matches!(head & 0x0f, 1 | 2) { 3 } else { head & 0x0f };
                skip(bytes, item, depth + 1)?;
            }
        }
        STRUCT => {
            let mut field = 0;
            loop {
                let (id, kind) = field_header(bytes, field)?;
                if kind == 0 {
                    break;
                }
                field = id;
                skip(bytes, kind, depth + 1)?;
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use crate::adapters::formats::read::parquet_pages::{chunk_sizes, page_sizes};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    use std::sync::Arc;

    fn file() -> Bytes {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..100_000).map(|n| "x".repeat(n % 7 * 10))));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes.into()
    }

    #[test]
    fn headers_that_readers_could_take_differently_are_corrupt() {
        // A page's type, its size inflated and its size as it is stored, as the compact protocol writes them.
        let (data, dictionary) = ([0x15, 0, 0x15, 16, 0x15, 0, 0], [0x15, 4, 0x15, 16, 0x15, 0, 0]);
        assert_eq!(chunk_sizes(&data).unwrap().inflated, 8);
        assert_eq!(chunk_sizes(&[dictionary, data].concat()).unwrap().inflated, 16);
        assert!(chunk_sizes(&[0x15, 0, 0x16, 16, 0x15, 0, 0]).is_none(), "a size in 64 bits");
        assert!(chunk_sizes(&[dictionary, dictionary].concat()).is_none(), "a second dictionary");
        assert!(chunk_sizes(&[data, dictionary].concat()).is_none(), "a dictionary behind data");
    }

    #[test]
    fn pages_add_up_to_what_an_honest_footer_says() {
        let file = file();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
        let sizes = page_sizes(&file, builder.metadata()).unwrap();
        let footer: i64 = builder.metadata().row_groups().iter().map(|group| group.total_byte_size()).sum();
        // The footer counts headers in.
        let footer = footer as u64;
        assert!(sizes.inflated <= footer && sizes.inflated > footer - footer / 10, "{sizes:?} of {footer}");
        assert!(sizes.at_a_time <= sizes.inflated);
        assert_eq!(sizes.row, 8 + 60, "a number, and the longest text");
    }

    #[test]
    fn values_of_lists_count_one_by_one() {
        let mut lists = arrow::array::ListBuilder::new(arrow::array::Int64Builder::new());
        (0..10).for_each(|_| lists.append_value((0..10_000).map(|_| Some(7))));
        let batch = RecordBatch::try_from_iter([("l", Arc::new(lists.finish()) as ArrayRef)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let file = Bytes::from(bytes);
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
        let sizes = page_sizes(&file, builder.metadata()).unwrap();
        assert!(file.len() < 10_000 && sizes.inflated > 100_000 * 8, "{} bytes: {sizes:?}", file.len());
    }

    #[test]
    fn any_bytes_are_read_to_an_end() {
        bolero::check!().with_type::<Vec<u8>>().with_iterations(5_000).for_each(|bytes| {
            chunk_sizes(bytes);
        });
    }
}
