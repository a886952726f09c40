//! A batch's way to the wire and back, in process: splitting, encoding, decoding and rendering, by column types.
//!
//! Throughput is bytes of messages a second, or rows where none are made. A copy shows here before it shows on the wire: encoding plain columns moves no
//! values, so it is orders of magnitude above what memory can copy, and what is compressed or decoded is below it.

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{ListArray, StringViewArray, TimestampNanosecondArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use zepto_flight::adapters::formats::Format;
use zepto_flight::adapters::formats::write::{NanStyle, ResultStyle, ResultWriter};
use zepto_flight::adapters::ipc::{Compression, DecodeLimits, Decoder, Encoder, Encoding, Message, split};
use zepto_flight::ports::Limits;

const ROWS: i64 = 65_536;
const MESSAGE_BYTES_TARGET: u64 = 2 << 20;

fn sample_batches() -> Vec<(&'static str, RecordBatch)> {
    let numbers: Vec<(&str, ArrayRef)> = vec![
        ("symbol", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| row % 100)))),
        ("price", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| 150.0 + (row % 200) as f64 / 4.0)))),
        ("timestamp", Arc::new(TimestampNanosecondArray::from_iter_values((0..ROWS).map(|row| row * 1_000)))),
    ];
    let name = |row: i64| format!("the symbol of row {row}");
    let strings: Vec<(&str, ArrayRef)> = vec![
        ("utf8", Arc::new(StringArray::from_iter_values((0..ROWS).map(name)))),
        ("view", Arc::new(StringViewArray::from_iter_values((0..ROWS).map(name)))),
    ];
    let symbols: DictionaryArray<Int32Type> = (0..ROWS).map(|row| ["AAPL", "MSFT", "NVDA"][row as usize % 3]).collect();
    let lists = (0..ROWS).map(|row| (row % 7 > 0).then(|| (0..row % 5).map(Some)));
    let nested: Vec<(&str, ArrayRef)> = vec![
        ("dictionary", Arc::new(symbols)),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
    ];
    [("numbers", numbers), ("strings", strings), ("nested", nested)]
        .map(|(name, columns)| (name, RecordBatch::try_from_iter(columns).expect("columns of one length")))
        .into()
}

fn bytes_of(messages: &[Message]) -> u64 {
    messages.iter().map(|message| message.bytes() as u64).sum()
}

/// The batch as messages, its schema first.
fn encoded(batch: &RecordBatch, encoding: Encoding) -> Vec<Message> {
    let (mut encoder, schema) = Encoder::new(&batch.schema(), encoding);
    [schema].into_iter().chain(encoder.encode(batch).expect("messages")).collect()
}

fn splitting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    for (name, batch) in sample_batches() {
        // As every batch of a table: a part of something larger.
        let batch = batch.slice(1, batch.num_rows() - 2);
        group.throughput(Throughput::Elements(batch.num_rows() as u64));
        group.bench_function(name, |bench| bench.iter(|| split(black_box(&batch), 64 << 10)));
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let plain = Encoding::plain(MESSAGE_BYTES_TARGET);
    let mut group = criterion.benchmark_group("encode");
    for (kind, encoding) in [
        ("plain", plain),
        ("lz4", Encoding { compression: Some(Compression::Lz4), ..plain }),
        ("zstd", Encoding { compression: Some(Compression::Zstd), ..plain }),
    ] {
        for (name, batch) in sample_batches() {
            group.throughput(Throughput::Bytes(bytes_of(&encoded(&batch, plain))));
            group.bench_function(format!("{kind}/{name}"), |bench| bench.iter(|| encoded(black_box(&batch), encoding)));
        }
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, batch) in sample_batches() {
        let messages = encoded(&batch, Encoding::plain(MESSAGE_BYTES_TARGET));
        group.throughput(Throughput::Bytes(bytes_of(&messages)));
        let parts: Vec<(Bytes, Bytes)> =
            messages.iter().map(|message| (message.header(), message.body().concat().into())).collect();
        group.bench_function(name, |bench| {
            let decoder = || Decoder::new(DecodeLimits::from(&Limits::default()));
            bench.iter_batched_ref(
                decoder,
                |decoder| {
                    for (header, body) in &parts {
                        black_box(decoder.decode(header, Buffer::from_slice_ref(body)).expect("a message"));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn rendering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render");
    for (kind, format) in [("json", Format::Json), ("ndjson", Format::Ndjson), ("csv", Format::Csv)] {
        for (name, batch) in sample_batches().into_iter().filter(|(name, _)| kind != "csv" || *name != "nested") {
            group.throughput(Throughput::Elements(batch.num_rows() as u64));
            let style = ResultStyle { format, nan: NanStyle::Null, encoding: Encoding::plain(MESSAGE_BYTES_TARGET) };
            group.bench_function(format!("{kind}/{name}"), |bench| {
                bench.iter(|| {
                    let (mut writer, mut out) =
                        ResultWriter::new(&batch.schema(), style).expect("a format that holds all");
                    writer.write(black_box(&batch), &mut out).expect("columns that can be written");
                    out
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, splitting, encoding, decoding, rendering);
criterion_main!(benches);
