//! Every type comes back as the same type, with the same bits.

use crate::harness::Sut;
use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::compute::{concat_batches, take};
use arrow::datatypes::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use std::sync::Arc;

/// Flat types, and one array of each with its edges.
fn flat() -> Vec<ArrayRef> {
    let nan = f64::from_bits(0x7ff8_dead_beef_0001);
    let days = IntervalDayTime::new(-3, 5);
    let months = IntervalMonthDayNano::new(1, -2, i64::MAX);
    vec![
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)])),
        Arc::new(UInt16Array::from(vec![Some(0), None, Some(u16::MAX)])),
        Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX)])),
        Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)])),
        Arc::new(Float16Array::from(vec![Some(half_of(0x7e01)), None, Some(half_of(0x8000))])),
        Arc::new(Float32Array::from(vec![Some(f32::from_bits(0x7fc0_1234)), None, Some(-0.0)])),
        Arc::new(Float64Array::from(vec![Some(nan), None, Some(-0.0)])),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Decimal32Array::from(vec![Some(99_999), None, Some(-1)]).with_precision_and_scale(5, 2).unwrap()),
        Arc::new(Decimal64Array::from(vec![Some(99), None, Some(-1)]).with_precision_and_scale(15, 2).unwrap()),
        Arc::new(
            Decimal128Array::from(vec![Some(i128::from(i64::MAX)), None, Some(-1)])
                .with_precision_and_scale(38, 10)
                .unwrap(),
        ),
        Arc::new(
            Decimal256Array::from(vec![Some(i256::MAX), None, Some(i256::MIN)])
                .with_precision_and_scale(76, 0)
                .unwrap(),
        ),
        Arc::new(StringArray::from(vec![Some("ü\0\u{1f600}"), None, Some("")])),
        Arc::new(LargeStringArray::from(vec![Some("large"), None, Some("")])),
        Arc::new(StringViewArray::from(vec![Some("a view that is longer than twelve"), None, Some("")])),
        Arc::new(BinaryArray::from(vec![Some(b"\xff\x00".as_ref()), None, Some(b"")])),
        Arc::new(LargeBinaryArray::from(vec![Some(b"\xff".as_ref()), None, Some(b"")])),
        Arc::new(BinaryViewArray::from(vec![Some(b"\xff a view that is longer".as_ref()), None, Some(b"")])),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                [Some([1, 2, 3]), None, Some([0, 0, 0])].into_iter(),
                3,
            )
            .unwrap(),
        ),
        Arc::new(Date32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])),
        Arc::new(Date64Array::from(vec![Some(-86_400_000), None, Some(86_400_000)])),
        Arc::new(Time32SecondArray::from(vec![Some(0), None, Some(86_399)])),
        Arc::new(Time32MillisecondArray::from(vec![Some(0), None, Some(1)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(1)])),
        Arc::new(Time64NanosecondArray::from(vec![Some(0), None, Some(1)])),
        Arc::new(TimestampSecondArray::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None, Some(1)]).with_timezone("Europe/Zurich")),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, Some(1)]).with_timezone("+05:30")),
        Arc::new(TimestampNanosecondArray::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(DurationSecondArray::from(vec![Some(i64::MIN), None, Some(1)])),
        Arc::new(DurationMillisecondArray::from(vec![Some(-1), None, Some(1)])),
        Arc::new(DurationMicrosecondArray::from(vec![Some(-1), None, Some(1)])),
        Arc::new(DurationNanosecondArray::from(vec![Some(-1), None, Some(1)])),
        Arc::new(IntervalYearMonthArray::from(vec![Some(-13), None, Some(1)])),
        Arc::new(IntervalDayTimeArray::from(vec![Some(days), None, Some(days)])),
        Arc::new(IntervalMonthDayNanoArray::from(vec![Some(months), None, Some(months)])),
        Arc::new(vec![Some("b"), None, Some("a")].into_iter().collect::<DictionaryArray<Int8Type>>()),
        Arc::new(vec![Some("b"), None, Some("a")].into_iter().collect::<DictionaryArray<UInt32Type>>()),
        Arc::new(NullArray::new(3)),
    ]
}

fn half_of(bits: u16) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_bits(bits)
}

/// The same values inside of lists, structs and maps.
fn nested(item: &ArrayRef) -> Vec<ArrayRef> {
    let field = Arc::new(Field::new("item", item.data_type().clone(), true));
    let nulls = Some(NullBuffer::from(vec![true, false, true]));
    let offsets = |lengths: [usize; 3]| arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let large = arrow::buffer::OffsetBuffer::<i64>::from_lengths([0, 0, 3]);
    let pair =
        Fields::from(vec![Field::new("a", DataType::Int64, false), Field::new("b", item.data_type().clone(), true)]);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let keys = Field::new("keys", DataType::Utf8, false);
    let entries = Fields::from(vec![keys, Field::new("values", item.data_type().clone(), true)]);
    let words: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    let entries = StructArray::new(entries, vec![words, item.clone()], None);
    let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    vec![
        Arc::new(ListArray::new(field.clone(), offsets([2, 0, 1]), item.clone(), nulls.clone())),
        Arc::new(LargeListArray::new(field.clone(), large, item.clone(), nulls.clone())),
        Arc::new(FixedSizeListArray::new(field, 1, item.clone(), nulls.clone())),
        Arc::new(StructArray::new(pair, vec![numbers, item.clone()], nulls.clone())),
        Arc::new(MapArray::new(entry, offsets([1, 0, 2]), entries, nulls, false)),
    ]
}

fn assert_same(back: &RecordBatch, sent: &RecordBatch) {
    assert_eq!(back.schema().fields(), sent.schema().fields());
    for (back, sent) in back.columns().iter().zip(sent.columns()) {
        assert_eq!(back, sent, "{:?}", sent.data_type());
        assert_bits(back, sent);
    }
}

/// Floats that compare equal may differ in their bits; strings may not.
fn assert_bits(back: &ArrayRef, sent: &ArrayRef) {
    if back.data_type().is_floating() {
        let rows = |array: &ArrayRef| {
            let width = array.data_type().primitive_width().unwrap();
            let data = array.to_data();
            let start = data.offset() * width;
            let bytes = data.buffers()[0].as_slice();
            (0..array.len())
                .filter(|row| array.is_valid(*row))
                .map(|row| bytes[start + row * width..start + (row + 1) * width].to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(back), rows(sent));
    }
}

async fn round_trip(sut: &Sut, table: &str, batches: &[RecordBatch]) {
    sut.put(table, batches.to_vec()).await.unwrap_or_else(|error| panic!("{:?}: {error}", batches[0].schema()));
    let back = sut.read(&format!("SELECT * FROM {table}")).await.unwrap();
    let sent = concat_batches(&batches[0].schema(), batches).unwrap();
    let schema = back.first().map_or_else(|| sent.schema(), RecordBatch::schema);
    assert_same(&concat_batches(&schema, &back).unwrap(), &sent);
    sut.define(&format!("DROP TABLE {table}")).await;
}

pub async fn every_type_comes_back_bit_by_bit(sut: Sut) {
    let flat = flat();
    let mut columns: Vec<ArrayRef> = flat.clone();
    columns.extend(flat.iter().flat_map(nested));
    let fields: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true))
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    round_trip(&sut, "t", std::slice::from_ref(&batch)).await;
    round_trip(&sut, "t", &[batch.slice(1, 2), batch.slice(0, 0), batch.slice(0, 1)]).await;
}

/// A few columns, each of any flat or nested type, cut into batches in any way.
fn any_batches() -> impl Strategy<Value = Vec<RecordBatch>> {
    let flat = flat();
    let mut all: Vec<ArrayRef> = flat.clone();
    all.extend(flat.iter().flat_map(nested));
    let deeper: Vec<ArrayRef> = flat.iter().step_by(5).flat_map(nested).flat_map(|array| nested(&array)).collect();
    all.extend(deeper);
    let columns = proptest::collection::vec(0..all.len(), 1..5);
    let rows = proptest::collection::vec(0..4_u32, 0..60);
    let cuts = proptest::collection::vec((0..60_usize, 0..60_usize), 1..5);
    (columns, rows, cuts).prop_map(move |(columns, rows, cuts)| {
        // Row 3 of three is null.
        let picks = UInt32Array::from_iter(rows.iter().map(|row| (*row < 3).then_some(*row)));
        let arrays: Vec<_> = columns.iter().map(|column| take(&all[*column], &picks, None).unwrap()).collect();
        let fields: Vec<_> = arrays
            .iter()
            .enumerate()
            .map(|(at, array)| Field::new(format!("c{at}"), array.data_type().clone(), true))
            .collect();
        let whole = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let cut = |(first, length): &(usize, usize)| {
            let first = (*first).min(whole.num_rows());
            whole.slice(first, (*length).min(whole.num_rows() - first))
        };
        cuts.iter().map(cut).collect()
    })
}

pub async fn random_batches_come_back_equal(sut: Sut) {
    let rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = any_batches();
    for _ in 0..40 {
        let batches = strategy.new_tree(&mut runner).unwrap().current();
        round_trip(&sut, "random", &batches).await;
    }
}
