//! Coerces batches of a stream to a table's schema, without losing anything.
//!
//! Columns match exactly, else by their only match without regard to case; only if no name matches, by position. A type may
//! widen where every value of it survives; a time may change its unit where the value at hand survives; text that stands
//! for another type is read. A column that needs no change keeps its buffers.

use crate::domain::storage::column_names::ColumnNames;
use crate::domain::storage::exact::cast_exact;
use crate::ports::{Error, Result, stands_for_other};
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use std::sync::Arc;

/// The column that a stream without it gets filled with its arrival time.
const ARRIVAL_COLUMN: &str = "timestamp";

/// How to turn batches of one schema into batches of another.
#[derive(Debug)]
pub struct SchemaCoercion {
    target: SchemaRef,
    columns: Vec<Source>,
}

/// Where one column of the table comes from.
#[derive(Debug)]
enum Source {
    /// Column of the stream, as it is.
    Keep(usize),
    /// Column of the stream, every value of which fits the wider type.
    Widen(usize),
    /// Column of the stream, whose text stands for values of the column's type.
    Text(usize),
    /// Column of the stream, in another unit of time: factor to multiply by, or to divide by where negative.
    Rescale(usize, i64),
    /// Nothing: null.
    Null,
    /// Nothing: the instant at which the stream began.
    Arrival(ArrayRef),
}

impl SchemaCoercion {
    /// Works out how batches of `source` fit a table of `target`, for a stream that began at `arrival_ns` since 1970 UTC.
    ///
    /// # Errors
    ///
    /// `SchemaMismatch` where they do not, naming column and types.
    pub fn new(source: &Schema, target: &SchemaRef, arrival_ns: i64) -> Result<Self> {
        let matches = match_columns(source, target)?;
        let columns = target
            .fields()
            .iter()
            .zip(matches)
            .map(|(field, found)| match found {
                Some(index) => map_column(index, source.field(index), field),
                None => fill_missing(field, arrival_ns),
            })
            .collect::<Result<_>>()?;
        Ok(Self { target: target.clone(), columns })
    }

    /// Returns the bytes that `batch` may grow by where columns are filled in or dictionaries written out: few bytes may stand
    /// for many.
    pub fn growth_bytes(&self, batch: &RecordBatch) -> u64 {
        let rows = batch.num_rows() as u64;
        let width = |field: &Field| field.data_type().primitive_width().unwrap_or(16) as u64;
        let growth = |(field, source): (&Arc<Field>, &Source)| match source {
            Source::Keep(_) | Source::Text(_) | Source::Rescale(..) => 0,
            Source::Null | Source::Arrival(_) => rows.saturating_mul(width(field)),
            Source::Widen(index) => match batch.column(*index).data_type() {
                DataType::Null => rows.saturating_mul(width(field)),
                DataType::Dictionary(..) if !matches!(field.data_type(), DataType::Dictionary(..)) => {
                    let values = batch.column(*index).as_any_dictionary().values().clone();
                    rows.saturating_mul(longest_bytes(&values))
                }
                _ => 0,
            },
        };
        self.target.fields().iter().zip(&self.columns).map(growth).fold(0, u64::saturating_add)
    }

    /// Coerces `batch` to the table's schema. `rows_before` rows of the stream came before it, for messages.
    ///
    /// # Errors
    ///
    /// `SchemaMismatch` naming the first row that does not fit.
    pub fn apply(&self, batch: &RecordBatch, rows_before: u64) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let columns = self
            .target
            .fields()
            .iter()
            .zip(&self.columns)
            .map(|(field, source)| {
                let column = source.column(field, batch, rows_before)?;
                refuse_nulls(field, column.as_ref(), rows_before)?;
                Ok(column)
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.target.clone(), columns, &options)
            .map_err(|error| Error::mismatch(error.to_string().to_lowercase()))
    }
}

impl Source {
    fn column(&self, field: &Field, batch: &RecordBatch, rows_before: u64) -> Result<ArrayRef> {
        match self {
            Self::Keep(index) => Ok(batch.column(*index).clone()),
            Self::Widen(index) => widen(field, batch.column(*index)),
            Self::Text(index) => cast_exact(batch.column(*index), field, rows_before),
            Self::Rescale(index, factor) => rescale(field, batch.column(*index), *factor, rows_before),
            Self::Null => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Self::Arrival(instant) => {
                let picks = arrow::array::UInt32Array::from(vec![0; batch.num_rows()]);
                arrow::compute::take(instant, &picks, None)
                    .map_err(|error| Error::internal("arrival time could not be filled in").with_source(error))
            }
        }
    }
}

/// Finds for every column of `target` the column of `source` that goes there: by exact name, else by the only name that differs
/// in case alone, else, where no name matches at all, by position.
fn match_columns(source: &Schema, target: &Schema) -> Result<Vec<Option<usize>>> {
    let names = ColumnNames::new(target);
    let mut matches = vec![None; target.fields().len()];
    let mut unknown = None;
    for (index, field) in source.fields().iter().enumerate() {
        match names.find(field.name())? {
            Some(at) if matches[at].is_some() => {
                return Err(Error::mismatch(format!("duplicate column {:?}", field.name())));
            }
            Some(at) => matches[at] = Some(index),
            None => unknown = unknown.or(Some(field.name())),
        }
    }
    let Some(unknown) = unknown else { return Ok(matches) };
    if matches.iter().any(Option::is_some) {
        return Err(Error::mismatch(format!("the table has no column {unknown:?}; it has {}", column_names(target))));
    }
    if source.fields().len() != target.fields().len() {
        return Err(Error::mismatch(format!(
            "no column name matches, and {} columns do not fit {} by position: the table has {}",
            source.fields().len(),
            target.fields().len(),
            column_names(target)
        )));
    }
    Ok((0..source.fields().len()).map(Some).collect())
}

/// Columns that a message names at most.
const NAMES_SHOWN_MAX: usize = 50;

fn column_names(schema: &Schema) -> String {
    let count = schema.fields().len();
    let names: Vec<_> =
        schema.fields().iter().take(NAMES_SHOWN_MAX).map(|field| format!("{:?}", field.name())).collect();
    let more = if count > NAMES_SHOWN_MAX { format!(" and {} more", count - NAMES_SHOWN_MAX) } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// Decides how column `index` becomes `field`.
fn map_column(index: usize, from: &Field, field: &Field) -> Result<Source> {
    if stands_for_other(from) {
        return Ok(Source::Text(index));
    }
    let (have, want) = (from.data_type(), field.data_type());
    if have == want {
        return Ok(Source::Keep(index));
    }
    if widens(have, want) {
        return Ok(Source::Widen(index));
    }
    match unit_factor(have, want) {
        Some(factor) => Ok(Source::Rescale(index, factor)),
        None => Err(Error::mismatch(format!(
            "column {:?} is {have}, the table's is {want}, and not every value of the one is one of the other",
            from.name()
        ))),
    }
}

/// Decides how `field` is filled where the stream does not have it.
fn fill_missing(field: &Field, arrival_ns: i64) -> Result<Source> {
    if let (ARRIVAL_COLUMN, DataType::Timestamp(unit, _)) = (field.name().as_str(), field.data_type()) {
        let instant = Int64Array::from(vec![arrival_ns / nanoseconds(*unit)]);
        let instant = cast(&instant, field.data_type())
            .map_err(|error| Error::internal("arrival time has no such type").with_source(error))?;
        return Ok(Source::Arrival(instant));
    }
    if field.is_nullable() {
        return Ok(Source::Null);
    }
    Err(Error::mismatch(format!("column {:?} is missing, and it may not be null", field.name())))
}

/// Returns whether every value of `have` is a value of `want`.
fn widens(have: &DataType, want: &DataType) -> bool {
    use DataType::*;
    match (have, want) {
        (Null, _) => true,
        (Dictionary(_, value), _) if value.as_ref() == want || widens(value, want) => true,
        (_, Dictionary(_, value)) if have == value.as_ref() || widens(have, value) => true,
        (Timestamp(a, Some(_)), Timestamp(b, Some(_))) => a == b,
        (Decimal128(p, s) | Decimal256(p, s), Decimal128(wp, ws) | Decimal256(wp, ws)) => {
            let digits = |p: &u8, s: &i8| i16::from(*p) - i16::from(*s);
            let narrower = matches!((have, want), (Decimal256(..), Decimal128(..)));
            !narrower && ws >= s && digits(wp, ws) >= digits(p, s)
        }
        (FixedSizeBinary(_), Binary | LargeBinary | BinaryView) => true,
        _ if is_string(have) && is_string(want) => true,
        _ if is_binary(have) && is_binary(want) => true,
        _ if have.is_signed_integer() && want.is_signed_integer() => width(have) < width(want),
        _ if have.is_unsigned_integer() && want.is_integer() => width(have) < width(want),
        // A float holds integers exactly up to the width of its mantissa.
        _ if have.is_integer() && want.is_floating() => width(have) * 2 <= width(want),
        _ if have.is_floating() && want.is_floating() => width(have) < width(want),
        // Nested types that differ in the names or metadata of their parts only.
        _ if have.is_nested() && want.is_nested() => have.equals_datatype(want),
        _ => false,
    }
}

fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn width(data_type: &DataType) -> usize {
    data_type.primitive_width().unwrap_or(0)
}

/// Returns the factor from a time in `have` to one in `want`; negative: divide.
fn unit_factor(have: &DataType, want: &DataType) -> Option<i64> {
    use DataType::*;
    let (from, to) = match (have, want) {
        (Timestamp(from, a), Timestamp(to, b)) if a.is_some() == b.is_some() => (from, to),
        (Duration(from), Duration(to)) => (from, to),
        (Time32(from) | Time64(from), Time32(to) | Time64(to)) => (from, to),
        _ => return None,
    };
    let (from, to) = (nanoseconds(*from), nanoseconds(*to));
    Some(if from >= to { from / to } else { -(to / from) })
}

fn nanoseconds(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn widen(field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
    if column.data_type() == &DataType::Null {
        return Ok(new_null_array(field.data_type(), column.len()));
    }
    strict_cast(column, field.data_type()).map_err(|error| {
        Error::mismatch(format!(
            "column {:?}: {} does not become {}: {error}",
            field.name(),
            column.data_type(),
            field.data_type()
        ))
    })
}

/// Converts a time column to another unit, value by value, and refuses the first one that would change.
fn rescale(field: &Field, column: &ArrayRef, factor: i64, rows_before: u64) -> Result<ArrayRef> {
    let broken = |error| Error::internal("a time column could not be read").with_source(error);
    // Time32 is 32 bits wide and has no direct cast to 64.
    let wide = match column.data_type() {
        DataType::Time32(_) => cast(&cast(column, &DataType::Int32).map_err(broken)?, &DataType::Int64),
        _ => cast(column, &DataType::Int64),
    };
    let values = wide.map_err(broken)?;
    let values = values.as_primitive::<Int64Type>();
    let scaled = scale(values, factor).map_err(|row| {
        Error::mismatch(format!(
            "column {:?} is {}, the table's is {}, and row {} would not survive: {}",
            field.name(),
            column.data_type(),
            field.data_type(),
            rows_before + row as u64,
            values.value(row)
        ))
    })?;
    let scaled: ArrayRef = Arc::new(scaled);
    match field.data_type() {
        DataType::Time32(_) => cast(&strict_cast(&scaled, &DataType::Int32).map_err(broken)?, field.data_type()),
        _ => cast(&scaled, field.data_type()),
    }
    .map_err(broken)
}

/// Returns an upper bound of the longest value's bytes.
fn longest_bytes(values: &ArrayRef) -> u64 {
    let lengths = match values.data_type() {
        DataType::Utf8View | DataType::BinaryView => None,
        _ => arrow::compute::kernels::length::length(values).ok(),
    };
    let lengths = lengths.and_then(|lengths| cast(&lengths, &DataType::Int64).ok());
    let longest = lengths.and_then(|lengths| arrow::compute::max(lengths.as_primitive::<Int64Type>()));
    longest.map_or(values.get_buffer_memory_size() as u64, |longest| u64::try_from(longest).unwrap_or(0))
}

/// Casts, and fails rather than makes a null of a value that does not fit.
fn strict_cast(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(column, data_type, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Multiplies every value by `factor`; fails with the first row where that is not exact.
fn scale(values: &PrimitiveArray<Int64Type>, factor: i64) -> Result<Int64Array, usize> {
    let exact = |value: i64| match factor {
        0.. => value.checked_mul(factor),
        _ => (value % factor == 0).then(|| value / -factor),
    };
    let mut out = vec![0; values.len()];
    for (row, value) in values.iter().enumerate() {
        if let Some(value) = value {
            out[row] = exact(value).ok_or(row)?;
        }
    }
    Ok(Int64Array::new(out.into(), values.nulls().cloned()))
}

fn refuse_nulls(field: &Field, column: &dyn Array, rows_before: u64) -> Result<()> {
    if field.is_nullable() || column.logical_null_count() == 0 {
        return Ok(());
    }
    let row = (0..column.len()).find(|row| column.logical_nulls().is_some_and(|nulls| nulls.is_null(*row)));
    Err(Error::mismatch(format!(
        "column {:?} may not be null, and row {} is",
        field.name(),
        rows_before + row.unwrap_or(0) as u64
    )))
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::coercion::SchemaCoercion;
    use crate::ports::{ErrorKind, Result};
    use arrow::array::*;
    use arrow::datatypes::{DataType, Field, Int8Type, Schema, TimeUnit};
    use std::sync::Arc;

    const NS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

    fn target(columns: &[(&str, DataType, bool)]) -> Arc<Schema> {
        let fields: Vec<_> =
            columns.iter().map(|(name, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable)).collect();
        Arc::new(Schema::new(fields))
    }

    fn conform(columns: Vec<(&str, ArrayRef)>, target: &Arc<Schema>) -> Result<RecordBatch> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        SchemaCoercion::new(&batch.schema(), target, 7_000_000_000)?.apply(&batch, 100)
    }

    fn refused(columns: Vec<(&str, ArrayRef)>, target: &Arc<Schema>, words: &[&str]) {
        let error = conform(columns, target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
        for word in words {
            assert!(error.message().contains(word), "{word:?} in {error}");
        }
    }

    #[test]
    fn names_match_before_positions_and_gaps_are_filled() {
        let target = target(&[("a", DataType::Int64, false), ("timestamp", NS, true), ("b", DataType::Utf8, true)]);
        let batch = conform(vec![("a", Arc::new(Int32Array::from(vec![1, 2])))], &target).unwrap();
        assert_eq!(batch.column(0).as_ref(), &Int64Array::from(vec![1, 2]));
        assert_eq!(batch.column(1).as_ref(), &TimestampNanosecondArray::from(vec![7_000_000_000; 2]));
        assert_eq!(batch.column(2).null_count(), 2);
        let by_position = vec![
            ("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("y", Arc::new(TimestampSecondArray::from(vec![5]))),
            ("z", Arc::new(LargeStringArray::from(vec!["hi"]))),
        ];
        let batch = conform(by_position, &target).unwrap();
        assert_eq!(batch.column(1).as_ref(), &TimestampNanosecondArray::from(vec![5_000_000_000]));
        assert_eq!(batch.column(2).as_ref(), &StringArray::from(vec!["hi"]));
        refused(
            vec![("a", Arc::new(Int64Array::from(vec![1]))), ("c", Arc::new(Int64Array::from(vec![1])))],
            &target,
            &["\"c\""],
        );
        refused(vec![("b", Arc::new(StringArray::from(vec!["x"])))], &target, &["\"a\" is missing"]);
    }

    #[test]
    fn names_match_without_regard_to_case_before_positions() {
        let target = target(&[("price", DataType::Float64, true), ("volume", DataType::Float64, true)]);
        let swapped = |first: &'static str, second: &'static str| {
            let value = |value| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
            conform(vec![(first, value(100.0)), (second, value(1.5))], &target)
        };
        for (first, second) in [("Volume", "Price"), ("VOLUME", "price"), ("volume", "price")] {
            let batch = swapped(first, second).unwrap();
            assert_eq!(batch.column(0).as_ref(), &Float64Array::from(vec![1.5]), "{first} {second}");
        }
        assert!(swapped("price", "PRICE").unwrap_err().message().contains("duplicate column"));
        assert!(swapped("Volume", "other").unwrap_err().message().contains("no column \"other\""));
    }

    #[test]
    fn what_would_lose_something_is_refused_by_name_types_and_row() {
        let ints = target(&[("n", DataType::Int32, true)]);
        refused(vec![("n", Arc::new(Int64Array::from(vec![1])))], &ints, &["\"n\"", "Int64", "Int32"]);
        refused(vec![("n", Arc::new(Float64Array::from(vec![1.0])))], &ints, &["Float64"]);
        let floats = target(&[("n", DataType::Float64, true)]);
        conform(vec![("n", Arc::new(Int32Array::from(vec![1])))], &floats).unwrap();
        refused(vec![("n", Arc::new(Int64Array::from(vec![1])))], &floats, &["Int64"]);
        let seconds = target(&[("t", DataType::Timestamp(TimeUnit::Second, None), true)]);
        let exact: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(2_000_000_000), None]));
        assert_eq!(
            conform(vec![("t", exact)], &seconds).unwrap().column(0).as_ref(),
            &TimestampSecondArray::from(vec![Some(2), None])
        );
        let inexact = TimestampNanosecondArray::from(vec![0, 2_000_000_001]);
        refused(vec![("t", Arc::new(inexact))], &seconds, &["row 101", "2000000001"]);
        let nanos = target(&[("t", NS, true)]);
        refused(vec![("t", Arc::new(TimestampSecondArray::from(vec![i64::MAX])))], &nanos, &["row 100"]);
        let zoned = TimestampNanosecondArray::from(vec![0]).with_timezone("UTC");
        refused(vec![("t", Arc::new(zoned))], &nanos, &["UTC"]);
    }

    #[test]
    fn nulls_and_twins_are_refused_where_they_do_not_belong() {
        let strict = target(&[("n", DataType::Int64, false)]);
        refused(vec![("n", Arc::new(Int64Array::from(vec![Some(1), None])))], &strict, &["row 101"]);
        refused(vec![("n", Arc::new(NullArray::new(1)))], &strict, &["row 100"]);
        let one = Field::new("n", DataType::Int64, true);
        let twins = Schema::new(vec![one.clone(), one]);
        assert!(SchemaCoercion::new(&twins, &strict, 0).unwrap_err().message().contains("duplicate column"));
    }

    #[test]
    fn strings_dictionaries_and_nulls_become_what_the_table_has() {
        let symbol = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let categories: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("b")]));
        for have in [Arc::new(categories) as ArrayRef, plain.clone(), views] {
            for want in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, symbol.clone()] {
                let batch = conform(vec![("s", have.clone())], &target(&[("s", want.clone(), true)])).unwrap();
                assert_eq!(batch.column(0).data_type(), &want);
                assert_eq!(&arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap(), &plain);
            }
        }
        let batch = conform(vec![("s", Arc::new(NullArray::new(2)))], &target(&[("s", symbol, true)])).unwrap();
        assert_eq!(batch.column(0).null_count(), 2);
    }

    #[test]
    fn a_column_that_fits_keeps_its_buffers() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = conform(vec![("n", column.clone())], &target(&[("n", DataType::Int64, true)])).unwrap();
        assert!(column.to_data().ptr_eq(&batch.column(0).to_data()));
    }
}
