//! Files as batches: each is opened for its schema, then read while it is sent.

use crate::args::FileFormat;
use arrow::array::RecordBatch;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::json::reader::infer_json_schema_from_seekable;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zepto_flight::adapters::formats::read::nullable;
use zepto_flight::ports::{Error, Result};

/// Rows of one batch.
const BATCH_ROWS: usize = 65_536;

/// Rows that types are inferred from.
const SAMPLE_ROWS: usize = 10_000;

/// An input of an import.
#[derive(Debug, Clone)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input, all of it.
    Standard,
}

/// The batches of a file.
pub struct FileBatches {
    /// Their schema.
    pub schema: SchemaRef,
    /// The batches, in order.
    pub batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
}

/// Returns the files that names and patterns stand for, in order.
///
/// # Errors
///
/// `InvalidQuery` for a pattern that matches nothing.
pub fn inputs(names: &[String]) -> Result<Vec<Input>> {
    let mut found = Vec::new();
    for name in names {
        if name == "-" {
            found.push(Input::Standard);
            continue;
        }
        if Path::new(name).exists() {
            found.push(Input::File(name.into()));
            continue;
        }
        let matches = glob::glob(name).map_err(|error| Error::invalid(format!("invalid pattern {name:?}: {error}")))?;
        let before = found.len();
        found.extend(matches.filter_map(std::result::Result::ok).map(Input::File));
        if found.len() == before {
            return Err(Error::invalid(format!("no file matches {name:?}")));
        }
    }
    Ok(found)
}

impl Input {
    /// Returns its size; `None` for standard input.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().map(|metadata| metadata.len()),
            Self::Standard => None,
        }
    }

    /// Returns its format, by the extension of its name.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an unknown extension, and for standard input.
    pub fn format(&self) -> Result<FileFormat> {
        match self {
            Self::File(path) => format_of(path),
            Self::Standard => Err(Error::invalid("standard input has no name to tell its format by; give --format")),
        }
    }

    /// Opens it, and reads its schema.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a file that cannot be read, or is not of `format`.
    pub fn open(&self, format: FileFormat) -> Result<FileBatches> {
        match self {
            Self::File(path) => {
                let file = File::open(path).map_err(|error| unreadable(&path.display(), &error))?;
                if format == FileFormat::Parquet {
                    return parquet(file).map_err(|error| unreadable(&path.display(), &error));
                }
                open(BufReader::with_capacity(1 << 20, file), format)
                    .map_err(|error| unreadable(&path.display(), &error))
            }
            Self::Standard => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).map_err(|error| unreadable(&"standard input", &error))?;
                if format == FileFormat::Parquet {
                    return parquet(bytes::Bytes::from(bytes)).map_err(|error| unreadable(&"standard input", &error));
                }
                open(Cursor::new(bytes), format).map_err(|error| unreadable(&"standard input", &error))
            }
        }
    }
}

/// Returns the format of a file, by the extension of its name.
///
/// # Errors
///
/// `InvalidQuery` for an unknown extension.
pub fn format_of(path: &Path) -> Result<FileFormat> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Ok(FileFormat::Csv),
        "ndjson" | "jsonl" => Ok(FileFormat::Ndjson),
        "json" => Ok(FileFormat::Json),
        "arrow" | "arrows" | "ipc" | "feather" => Ok(FileFormat::Arrow),
        "parquet" | "pq" => Ok(FileFormat::Parquet),
        _ => Err(Error::invalid(format!("the name {} does not tell its format; give --format", path.display()))),
    }
}

fn unreadable(what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{what} cannot be read: {error}"))
}

fn parquet(file: impl parquet::file::reader::ChunkReader + 'static) -> std::result::Result<FileBatches, ArrowError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    Ok(boxed(schema, builder.with_batch_size(BATCH_ROWS).build()?))
}

fn open(
    mut file: impl BufRead + Seek + Send + 'static,
    format: FileFormat,
) -> std::result::Result<FileBatches, ArrowError> {
    match format {
        FileFormat::Csv => {
            let (schema, _) = CsvFormat::default().with_header(true).infer_schema(&mut file, Some(SAMPLE_ROWS))?;
            file.rewind()?;
            let schema = Arc::new(nullable(&schema));
            let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_header(true).with_batch_size(BATCH_ROWS);
            Ok(boxed(schema, reader.build_buffered(file)?))
        }
        FileFormat::Ndjson => {
            let (schema, _) = infer_json_schema_from_seekable(&mut file, Some(SAMPLE_ROWS))?;
            let schema = Arc::new(nullable(&schema));
            let reader =
                arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS).with_strict_mode(true);
            Ok(boxed(schema, reader.build(file)?))
        }
        FileFormat::Arrow => {
            let mut mark = [0; 6];
            let is_file = file.read_exact(&mut mark).is_ok() && &mark == b"ARROW1";
            file.rewind()?;
            if is_file {
                let reader = FileReader::try_new(file, None)?;
                Ok(boxed(reader.schema(), reader))
            } else {
                let reader = StreamReader::try_new(file, None)?;
                Ok(boxed(reader.schema(), reader))
            }
        }
        FileFormat::Json | FileFormat::Parquet => {
            Err(ArrowError::NotYetImplemented("one JSON document; make it NDJSON, or POST it to /insert/json".into()))
        }
    }
}

fn boxed(
    schema: SchemaRef,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
) -> FileBatches {
    let batches = batches.map(|batch| batch.map_err(|error| Error::invalid(format!("a row cannot be read: {error}"))));
    FileBatches { schema, batches: Box::new(batches) }
}
