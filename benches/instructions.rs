//! The work of DoGet and DoPut between table and messages, as often as the command line says: `get 10`, `put 10`, `split 10`.
//!
//! Measures nothing itself. `bench/instructions.py` counts its instructions, which repeat where seconds don't: the
//! difference of two counts is what the rounds between them took, without start and set-up.

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::buffer::Buffer;
use bytes::Bytes;
use futures::StreamExt;
use std::hint::black_box;
use std::sync::Arc;
use zepto_flight::adapters::ipc::{DecodeLimits, Decoder, Encoder, Encoding, split};
use zepto_flight::app;
use zepto_flight::domain::EngineOptions;
use zepto_flight::ports::{Append, BatchStream, IngestPort, Limits, Query, QueryPort};

const BATCHES: i64 = 16;
const BATCH_ROWS: i64 = 65_536;

fn batch(at: i64) -> RecordBatch {
    let rows = at * BATCH_ROWS..(at + 1) * BATCH_ROWS;
    let columns: [(&str, ArrayRef); 4] = [
        ("symbol", Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row % 100)))),
        ("price", Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| 150.0 + (row % 200) as f64)))),
        ("volume", Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| (row % 50) as f64)))),
        ("timestamp", Arc::new(TimestampNanosecondArray::from_iter_values(rows.map(|row| row * 1_000)))),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

async fn get(query: &dyn QueryPort) -> usize {
    let mut batches = query.query(Query::read("SELECT * FROM t")).await.expect("a result").batches;
    let (mut encoder, _) = Encoder::new(&batches.schema(), Encoding::plain(2 << 20));
    let mut bytes = 0;
    while let Some(batch) = batches.next().await {
        let messages = encoder.encode(&batch.expect("a batch")).expect("messages");
        bytes += messages.into_iter().flat_map(|message| message.into_pieces()).map(|piece| piece.len()).sum::<usize>();
    }
    bytes
}

async fn put(ingest: &dyn IngestPort, messages: &[(Bytes, Bytes)], table: String) -> u64 {
    let mut decoder = Decoder::new(DecodeLimits::from(&Limits::default()));
    let mut batches = Vec::new();
    for (header, body) in messages {
        batches.extend(decoder.decode(header, Buffer::from_slice_ref(body)).expect("a message"));
    }
    let schema = decoder.schema().expect("a schema");
    let append = Append { table, ..Append::default() };
    ingest.append(append, BatchStream::from_batches(schema, batches)).await.expect("it is appended").rows
}

#[tokio::main]
async fn main() {
    // cargo itself adds `--bench`.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds: usize = arguments.get(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let backend = app::connect("memory:", EngineOptions::default()).expect("an engine");
    let batches: Vec<_> = (0..BATCHES).map(batch).collect();
    let (mut encoder, schema) = Encoder::new(&batches[0].schema(), Encoding::plain(2 << 20));
    let encoded = batches.iter().flat_map(|batch| encoder.encode(batch).expect("messages"));
    let messages: Vec<(Bytes, Bytes)> =
        [schema].into_iter().chain(encoded).map(|message| (message.header(), message.body().concat().into())).collect();
    put(backend.ingest.as_ref(), &messages, "t".into()).await;
    for round in 0..rounds {
        match arguments.first().map(String::as_str) {
            Some("put") => drop(black_box(put(backend.ingest.as_ref(), &messages, format!("t{round}")).await)),
            Some("split") => drop(black_box(batches.iter().map(|batch| split(batch, 64 << 10)).collect::<Vec<_>>())),
            _ => drop(black_box(get(backend.query.as_ref()).await)),
        }
    }
}
