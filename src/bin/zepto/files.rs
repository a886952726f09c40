//! Files as batches: each is opened for its schema, then read as it is sent.

use crate::args::FileFormat;
use arrow::array::RecordBatch;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::json::reader::infer_json_schema_from_seekable;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zepto_flight::ports::{Error, Result};

/// Rows of one batch.
const BATCH_ROWS: usize = 65_536;

/// Rows that types are guessed from.
const GUESSED_ROWS: usize = 10_000;

/// What is read.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input, all of it.
    Standard,
}

/// Batches of a file.
pub struct Batches {
    /// Their schema.
    pub schema: SchemaRef,
    /// One after the other.
    pub batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
}

/// The files that names and patterns stand for, in order.
///
/// # Errors
///
/// `InvalidQuery` for a pattern that matches nothing.
pub fn sources(names: &[String]) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for name in names {
        if name == "-" {
            found.push(Source::Standard);
            continue;
        }
        if Path::new(name).exists() {
            found.push(Source::File(name.into()));
            continue;
        }
        let matches = glob::glob(name).map_err(|error| Error::invalid(format!("{name:?} is no pattern: {error}")))?;
        let before = found.len();
        found.extend(matches.filter_map(std::result::Result::ok).map(Source::File));
        if found.len() == before {
            return Err(Error::invalid(format!("there is no file {name:?}")));
        }
    }
    Ok(found)
}

impl Source {
    /// Its size, where it has one.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().map(|metadata| metadata.len()),
            Self::Standard => None,
        }
    }

    /// What it is, by its name's ending.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an ending that says nothing.
    pub fn format(&self) -> Result<FileFormat> {
        match self {
            Self::File(path) => format_of(path),
            Self::Standard => Err(Error::invalid("--format says what standard input is")),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// `NotFound` or `InvalidQuery` for a file that cannot be read, or is not what it should be.
    pub fn open(&self, format: FileFormat) -> Result<Batches> {
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

/// What a file is, by its name's ending.
///
/// # Errors
///
/// `InvalidQuery` for an ending that says nothing.
pub fn format_of(path: &Path) -> Result<FileFormat> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "csv" => Ok(FileFormat::Csv),
        "ndjson" | "jsonl" => Ok(FileFormat::Ndjson),
        "json" => Ok(FileFormat::Json),
        "arrow" | "arrows" | "ipc" | "feather" => Ok(FileFormat::Arrow),
        "parquet" | "pq" => Ok(FileFormat::Parquet),
        _ => Err(Error::invalid(format!("--format says what {} is: its name does not", path.display()))),
    }
}

fn unreadable(what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{what} cannot be read: {error}"))
}

fn parquet(file: impl parquet::file::reader::ChunkReader + 'static) -> std::result::Result<Batches, ArrowError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    Ok(boxed(schema, builder.with_batch_size(BATCH_ROWS).build()?))
}

fn open(
    mut file: impl BufRead + Seek + Send + 'static,
    format: FileFormat,
) -> std::result::Result<Batches, ArrowError> {
    match format {
        FileFormat::Csv => {
            let (schema, _) = CsvFormat::default().with_header(true).infer_schema(&mut file, Some(GUESSED_ROWS))?;
            file.rewind()?;
            let schema = nullable(&schema);
            let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_header(true).with_batch_size(BATCH_ROWS);
            Ok(boxed(schema, reader.build_buffered(file)?))
        }
        FileFormat::Ndjson => {
            let (schema, _) = infer_json_schema_from_seekable(&mut file, Some(GUESSED_ROWS))?;
            let schema = nullable(&schema);
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

/// Guessed columns, all of which may be null.
fn nullable(schema: &arrow::datatypes::Schema) -> SchemaRef {
    // A column without a value so far may be anything, and must not be taken for one that has none.
    let data_type = |field: &Field| match field.data_type() {
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    };
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), data_type(field), true));
    Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}

fn boxed(
    schema: SchemaRef,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
) -> Batches {
    let batches = batches.map(|batch| batch.map_err(|error| Error::invalid(format!("a row cannot be read: {error}"))));
    Batches { schema, batches: Box::new(batches) }
}
