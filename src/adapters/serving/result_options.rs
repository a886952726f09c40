//! Options of a result: how a caller wants its strings, its timestamps and its batches.
//!
//! A result has the types of its tables. Some clients cannot read all of them, so a caller may ask for plainer ones.
//! Without options every column is sent as it is stored, and no batch is touched.

use crate::ports::{BatchStream, Error, Result};
use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use futures::StreamExt;
use futures::stream;
use std::sync::Arc;

/// Names of the options. As request headers they begin with [`HEADER_PREFIX`] and have `-` for `_`.
pub const OPTIONS: [&str; 4] = [STRING_ENCODING, TIMESTAMP_UNIT, TIME_ZONE, BATCH_ROWS];

/// Prefix of an option's name in a header.
pub const HEADER_PREFIX: &str = "x-zepto-";

const STRING_ENCODING: &str = "string_encoding";
const TIMESTAMP_UNIT: &str = "timestamp_unit";
const TIME_ZONE: &str = "time_zone";
const BATCH_ROWS: &str = "batch_rows";

/// Value of an option that leaves columns as they are.
const KEEP: &str = "keep";

const UNITS: [(&str, TimeUnit); 4] = [
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

/// Encoding of dictionaries and views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// They stay.
    Keep,
    /// They are converted to plain strings, to binary, or to the type of a dictionary's values.
    Plain,
}

/// Options that a caller has set. Those that are not set may be taken from other options, see [`ResultOptions::or`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultOptions {
    strings: Option<Strings>,
    /// Some(None): every timestamp keeps its unit.
    unit: Option<Option<TimeUnit>>,
    /// Some(None): every timestamp keeps its zone.
    zone: Option<Option<Arc<str>>>,
    batch_rows: Option<u64>,
}

impl ResultOptions {
    /// Creates options with nothing but the encoding of strings.
    pub fn of_strings(strings: Strings) -> Self {
        Self { strings: Some(strings), ..Self::default() }
    }

    /// Sets one option.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown option, `InvalidQuery` for a value that it does not take.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.set_as(name, name, value)
    }

    /// Sets one option, which errors call `shown`.
    fn set_as(&mut self, name: &str, shown: &str, value: &str) -> Result<()> {
        let wrong =
            |expected: &str| Error::invalid(format!("invalid value {value:?} for {shown}; expected {expected}"));
        match name {
            STRING_ENCODING => {
                self.strings = Some(match value {
                    KEEP => Strings::Keep,
                    "plain" => Strings::Plain,
                    _ => return Err(wrong("keep or plain")),
                });
            }
            TIMESTAMP_UNIT => {
                let unit = UNITS.into_iter().find(|(unit, _)| *unit == value).map(|(_, unit)| unit);
                self.unit =
                    Some(if value == KEEP { None } else { Some(unit.ok_or_else(|| wrong("s, ms, us, ns or keep"))?) });
            }
            TIME_ZONE => {
                let zone = value.parse::<Tz>().map(|_| Arc::from(value));
                let expected = "a zone such as UTC, Europe/Berlin or +02:00, or keep";
                self.zone = Some(if value == KEEP { None } else { Some(zone.map_err(|_| wrong(expected))?) });
            }
            BATCH_ROWS => {
                let rows = value.parse().ok().filter(|rows| *rows > 0);
                self.batch_rows = Some(rows.ok_or_else(|| wrong("a number of rows"))?);
            }
            _ => {
                let message = format!("unknown option {name:?}; there are {}", OPTIONS.join(", "));
                return Err(Error::new(crate::ports::ErrorKind::NotFound, message));
            }
        }
        Ok(())
    }

    /// Unsets one option.
    pub fn unset(&mut self, name: &str) {
        match name {
            STRING_ENCODING => self.strings = None,
            TIMESTAMP_UNIT => self.unit = None,
            TIME_ZONE => self.zone = None,
            BATCH_ROWS => self.batch_rows = None,
            _ => {}
        }
    }

    /// Returns every option that is set, with its value.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let strings = self.strings.map(|strings| if strings == Strings::Keep { KEEP } else { "plain" }.to_owned());
        let unit_name = |unit| UNITS.into_iter().find(|(_, known)| *known == unit).map_or(KEEP, |(name, _)| name);
        let unit = self.unit.map(|unit| unit.map_or(KEEP, unit_name).to_owned());
        let zone = self.zone.as_ref().map(|zone| zone.as_deref().unwrap_or(KEEP).to_owned());
        let rows = self.batch_rows.map(|rows| rows.to_string());
        OPTIONS.into_iter().zip([strings, unit, zone, rows]).filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Encodes the options as one line: `name=value;name=value`.
    pub fn encode(&self) -> String {
        self.entries().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
    }

    /// Decodes the options of [`ResultOptions::encode`].
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for any other line.
    pub fn decode(line: &str) -> Result<Self> {
        let mut options = Self::default();
        for entry in line.split(';').filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').ok_or_else(|| Error::invalid("an option has no value"))?;
            options.set(name, value).map_err(|error| Error::invalid(error.message()))?;
        }
        Ok(options)
    }

    /// Reads the options from request headers.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a value that an option does not take.
    pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Result<Self> {
        let mut options = Self::default();
        for name in OPTIONS {
            let header_name = format!("{HEADER_PREFIX}{}", name.replace('_', "-"));
            if let Some(value) = header(&header_name) {
                options.set_as(name, &format!("header {header_name}"), value)?;
            }
        }
        Ok(options)
    }

    /// Takes every option that is not set from `other`.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            strings: self.strings.or(other.strings),
            unit: self.unit.or(other.unit),
            zone: self.zone.or_else(|| other.zone.clone()),
            batch_rows: self.batch_rows.or(other.batch_rows),
        }
    }

    /// Returns the schema of a result of `schema` with these options applied.
    pub fn schema(&self, schema: &Schema) -> Schema {
        let fields: Vec<_> = schema.fields().iter().map(|field| self.field(field)).collect();
        Schema::new_with_metadata(fields, schema.metadata().clone())
    }

    /// Converts `batches` to `schema`, which is that of [`ResultOptions::schema`] or differs from it in metadata only.
    ///
    /// A column that cannot be converted ends the stream with an error.
    pub fn apply(&self, batches: BatchStream, schema: SchemaRef) -> BatchStream {
        if batches.schema() == schema && self.batch_rows.is_none() {
            return batches;
        }
        let rows_max = self.batch_rows.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
        let target = schema.clone();
        let pieces = batches.flat_map(move |batch| {
            let pieces = match batch.and_then(|batch| cast_batch(&batch, &target)) {
                Ok(batch) => (0..batch.num_rows())
                    .step_by(rows_max)
                    .map(|first| Ok(batch.slice(first, rows_max.min(batch.num_rows() - first))))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(pieces)
        });
        // An error ends the stream.
        let pieces = pieces.scan(false, |failed, piece| {
            let next = (!*failed).then_some(piece);
            *failed |= matches!(next, Some(Err(_)));
            async move { next }
        });
        BatchStream::new(schema, pieces)
    }

    fn field(&self, field: &FieldRef) -> FieldRef {
        let data_type = self.data_type(field.data_type());
        if data_type == *field.data_type() {
            field.clone()
        } else {
            Arc::new(Field::clone(field).with_data_type(data_type))
        }
    }

    fn data_type(&self, data_type: &DataType) -> DataType {
        let plain = self.strings == Some(Strings::Plain);
        match data_type {
            DataType::Utf8View if plain => DataType::Utf8,
            DataType::BinaryView if plain => DataType::Binary,
            DataType::Dictionary(_, values) if plain => self.data_type(values),
            DataType::Timestamp(unit, zone) => {
                let unit = self.unit.flatten().unwrap_or(*unit);
                // A timestamp without a zone stays one: it names no instant that could be shown in another zone.
                let zone = zone.as_ref().map(|zone| self.zone.clone().flatten().unwrap_or_else(|| zone.clone()));
                DataType::Timestamp(unit, zone)
            }
            DataType::List(item) => DataType::List(self.field(item)),
            DataType::LargeList(item) => DataType::LargeList(self.field(item)),
            DataType::FixedSizeList(item, size) => DataType::FixedSizeList(self.field(item), *size),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| self.field(field)).collect()),
            DataType::Map(entries, sorted) => DataType::Map(self.field(entries), *sorted),
            other => other.clone(),
        }
    }
}

fn cast_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast_column(column, field));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| Error::internal("a batch does not fit the options of its result").with_source(error))
}

fn cast_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    // A value that does not fit is an error: the default would send null for it.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &strict).map_err(|error| {
        Error::invalid(format!("cannot convert column {:?} to {}: {error}", field.name(), field.data_type()))
    })
}

#[cfg(test)]
mod tests {
    use crate::adapters::serving::result_options::{ResultOptions, Strings};
    use crate::ports::{BatchStream, ErrorKind};
    use arrow::array::*;
    use arrow::datatypes::{DataType, Int32Type, TimeUnit};
    use futures::FutureExt;
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let symbols: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("symbol", Arc::new(symbols)),
            ("view", Arc::new(StringViewArray::from(vec!["x", "y", "a string that is not inlined"]))),
            ("at", Arc::new(TimestampNanosecondArray::from(vec![1_000_000, 2, 3]))),
            ("zoned", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn applied(line: &str) -> Vec<RecordBatch> {
        let options = ResultOptions::decode(line).unwrap();
        assert_eq!(options.encode(), line);
        let schema = Arc::new(options.schema(&batch().schema()));
        let batches = BatchStream::from_batches(batch().schema(), vec![batch()]);
        options.apply(batches, schema).collect().now_or_never().unwrap().unwrap()
    }

    #[test]
    fn columns_are_given_as_asked_for() {
        let [plain] = applied("string_encoding=plain").try_into().unwrap();
        assert_eq!(plain.column(0).as_string::<i32>(), &StringArray::from(vec![Some("a"), None, Some("b")]));
        assert_eq!(*plain.schema().field(1).data_type(), DataType::Utf8);
        let [times] = applied("timestamp_unit=ms;time_zone=Asia/Tokyo").try_into().unwrap();
        assert_eq!(*times.schema().field(2).data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
        let tokyo = DataType::Timestamp(TimeUnit::Millisecond, Some("Asia/Tokyo".into()));
        assert_eq!(*times.schema().field(3).data_type(), tokyo);
        assert_eq!(times.column(2).as_primitive::<arrow::datatypes::TimestampMillisecondType>().value(0), 1);
        assert_eq!(applied("batch_rows=2").iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(applied(""), [batch()]);
    }

    #[test]
    fn options_come_from_headers_and_fall_back() {
        let header = |name: &str| (name == "x-zepto-timestamp-unit").then_some("us");
        let set = ResultOptions::from_headers(header).unwrap();
        let both = set.or(&ResultOptions::of_strings(Strings::Plain));
        assert_eq!(both.encode(), "string_encoding=plain;timestamp_unit=us");
        for (name, value, kind) in [
            ("timestamp_unit", "h", ErrorKind::InvalidQuery),
            ("time_zone", "Mars/Base", ErrorKind::InvalidQuery),
            ("batch_rows", "0", ErrorKind::InvalidQuery),
            ("colour", "red", ErrorKind::NotFound),
        ] {
            assert_eq!(ResultOptions::default().set(name, value).unwrap_err().kind(), kind);
        }
    }
}
