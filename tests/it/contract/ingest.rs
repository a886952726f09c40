//! What ingestion takes, refuses and leaves.

use crate::harness::{Sut, int, numbers, one};
use arrow::array::{AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use std::collections::HashMap;
use std::sync::Arc;
use zepto_flight::ports::{
    Append, BatchStream, Caller, Durability, Error, ErrorKind, IfExists, IfMissing, IngestSummary, Result, WriterCommit,
};

pub async fn a_stream_makes_its_table(sut: Sut) {
    let field = Field::new("n", DataType::Int64, false).with_metadata(HashMap::from([("unit".into(), "lots".into())]));
    let schema = Schema::new_with_metadata(vec![field], HashMap::from([("pandas".into(), "{}".into())]));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![1, 2]))]).unwrap();
    let summary = sut.put("t", vec![batch.clone(), batch.clone()]).await.unwrap();
    assert_eq!((summary.rows, summary.batches, summary.table_created), (4, 2, true));
    assert!(summary.bytes >= 32);
    let back = sut.read("SELECT * FROM t").await.unwrap();
    assert_eq!(back[0].schema().field(0), batch.schema().field(0), "field metadata and nullability stay");
    assert!(back[0].schema().metadata().is_empty(), "schema metadata is not a result's");
    let again = sut.put("t", vec![batch]).await.unwrap();
    assert!(!again.table_created);
    for name in ["", "a\nb", "__zepto_x", &"long".repeat(100)] {
        assert_eq!(sut.put(name, vec![numbers(0, 1)]).await.unwrap_err().kind(), ErrorKind::InvalidQuery, "{name:?}");
    }
    let odd = "odd name & \"quotes\" ü";
    sut.put(odd, vec![numbers(0, 3)]).await.unwrap();
    assert_eq!(sut.rows(&format!("SELECT * FROM \"{}\"", odd.replace('"', "\"\""))).await, 3);
}

pub async fn columns_match_by_name_or_position(sut: Sut) {
    sut.define("CREATE TABLE t (a INT64, b FLOAT64, c STRING)").await;
    let named = RecordBatch::try_from_iter([
        ("c", Arc::new(StringArray::from(vec!["x"])) as _),
        ("a", Arc::new(Int32Array::from(vec![1])) as _),
    ]);
    sut.put("t", vec![named.unwrap()]).await.unwrap();
    let placed = RecordBatch::try_from_iter([
        ("one", Arc::new(Int64Array::from(vec![2])) as _),
        ("two", Arc::new(Float64Array::from(vec![2.5])) as _),
        ("three", Arc::new(StringArray::from(vec!["y"])) as _),
    ]);
    sut.put("t", vec![placed.unwrap()]).await.unwrap();
    let all = one(&sut.read("SELECT * FROM t").await.unwrap());
    let expected =
        arrow::array::record_batch!(("a", Int64, [1, 2]), ("b", Float64, [None, Some(2.5)]), ("c", Utf8, ["x", "y"]));
    assert_eq!(all.columns(), expected.unwrap().columns());
}

pub async fn a_stream_that_fails_leaves_no_trace(sut: Sut) {
    let failing = |table: &str| {
        let schema = numbers(0, 1).schema();
        let items = vec![Ok(numbers(0, 70_000)), Ok(numbers(0, 70_000)), Err(Error::invalid("the source broke"))];
        let batches = BatchStream::new(schema, futures::stream::iter(items));
        let request = Append { table: table.to_owned(), ..Append::default() };
        let sut = sut.clone();
        async move { sut.ingest.append(request, batches).await }
    };
    let error = failing("new").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidQuery, "the source broke"));
    sut.put("old", vec![numbers(0, 5)]).await.unwrap();
    failing("old").await.unwrap_err();
    let tables = sut.query.tables(Caller::default()).await.unwrap();
    assert_eq!(tables.len(), 1, "no table came of it");
    assert_eq!(tables[0].rows, Some(5));
    // The server is well, and the memory is back.
    sut.put("new", vec![numbers(0, 7)]).await.unwrap();
    assert_eq!(sut.rows("SELECT * FROM new").await, 7);
}

pub async fn arrival_time_is_filled_in(sut: Sut) {
    sut.define("CREATE TABLE trades (symbol INT64, price FLOAT64, volume FLOAT64, timestamp TIMESTAMP_NS)").await;
    let batch = arrow::array::record_batch!(
        ("symbol", Int64, [1, 2]),
        ("price", Float64, [150.25, 151.0]),
        ("volume", Float64, [100.0, 200.0])
    );
    let batch = batch.unwrap();
    sut.put("trades", vec![batch.clone(), batch]).await.unwrap();
    assert_eq!(
        int(&sut.read("SELECT count(DISTINCT timestamp) FROM trades").await.unwrap()),
        1,
        "one instant a stream"
    );
    let recent = "SELECT count(*) FROM trades WHERE timestamp > now() - INTERVAL '1 hour' AND timestamp <= now()";
    assert_eq!(int(&sut.read(recent).await.unwrap()), 4);
}

pub async fn empty_streams_are_legal(sut: Sut) {
    let schema = numbers(0, 1).schema();
    let summary = sut.append("t", schema.clone(), Vec::new()).await.unwrap();
    assert_eq!((summary.rows, summary.table_created), (0, true));
    let empty = RecordBatch::new_empty(schema.clone());
    sut.put("t", vec![empty.clone(), numbers(0, 2), empty]).await.unwrap();
    assert_eq!(sut.rows("SELECT * FROM t").await, 2);
}

pub async fn what_does_not_fit_is_refused(sut: Sut) {
    sut.define("CREATE TABLE t (n INT64 NOT NULL, s STRING)").await;
    let column = |name: &str, column| RecordBatch::try_from_iter_with_nullable([(name, column, true)]).unwrap();
    let cases = [
        (column("n", Arc::new(Float64Array::from(vec![1.5])) as _), "Float64"),
        (column("n", Arc::new(StringArray::from(vec!["1"]))), "Utf8"),
        (column("n", Arc::new(Int64Array::from(vec![Some(1), None]))), "row 1"),
        (column("s", Arc::new(StringArray::from(vec!["x"]))), "\"n\" is missing"),
        (column("m", Arc::new(Int64Array::from(vec![1]))), "by position"),
    ];
    for (batch, word) in cases {
        let error = sut.put("t", vec![batch.clone()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
        assert!(error.message().contains(word), "{word}: {error}");
    }
    assert_eq!(sut.rows("SELECT * FROM t").await, 0);
    let twins = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Int64, true)]);
    assert_eq!(sut.append("u", Arc::new(twins), Vec::new()).await.unwrap_err().kind(), ErrorKind::InvalidQuery);
}

pub async fn many_small_batches_come_back_in_order(sut: Sut) {
    for stream in 0..30 {
        let batches = (0..10).map(|at| numbers((stream * 10 + at) * 7, 7)).collect();
        sut.put("t", batches).await.unwrap();
    }
    // Merging goes on in the background; no moment of it may show.
    for _ in 0..20 {
        let all = one(&sut.read("SELECT * FROM t").await.unwrap());
        assert_eq!(all, numbers(0, 2_100));
    }
    let values = sut.read("SELECT n FROM t WHERE n >= 1000 AND n < 1010").await.unwrap();
    assert_eq!(one(&values).column(0).as_primitive::<Int64Type>().values(), &(1_000..1_010).collect::<Vec<_>>()[..]);
}

pub async fn a_stream_says_what_to_do_about_its_table(sut: Sut) {
    let put = |if_missing, if_exists, batch: RecordBatch| {
        let request = Append { table: "t".into(), if_missing, if_exists, ..Append::default() };
        let port = sut.ingest.clone();
        async move { port.append(request, BatchStream::from_batches(batch.schema(), vec![batch])).await }
    };
    let missing = put(IfMissing::Fail, IfExists::Append, numbers(0, 5)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(put(IfMissing::Create, IfExists::Fail, numbers(0, 5)).await.unwrap().table_created);
    let exists = put(IfMissing::Create, IfExists::Fail, numbers(0, 5)).await.unwrap_err();
    assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
    assert!(!put(IfMissing::Fail, IfExists::Append, numbers(5, 5)).await.unwrap().table_created);
    assert_eq!(sut.rows("SELECT * FROM t").await, 10);
    let other = arrow::array::record_batch!(("x", Utf8, ["a"])).unwrap();
    assert!(put(IfMissing::Fail, IfExists::Replace, other.clone()).await.unwrap().table_created);
    assert_eq!(one(&sut.read("SELECT * FROM t").await.unwrap()), other);
}

fn numbered(table: &str, epoch: u64, sequence: u64) -> Append {
    let offset = Some(format!("{{\"ü\": {sequence}}}"));
    let writer = WriterCommit { writer: "feed / ü".into(), epoch, sequence, offset };
    Append { table: table.to_owned(), writer: Some(writer), durability: Some(Durability::Fsync), ..Append::default() }
}

async fn put(sut: &Sut, request: Append, rows: i64) -> Result<IngestSummary> {
    let batch = numbers(0, rows);
    sut.ingest.append(request, BatchStream::from_batches(batch.schema(), vec![batch])).await
}

pub async fn a_numbered_commit_counts_once(sut: Sut) {
    let first = put(&sut, numbered("t", 0, 1), 3).await.unwrap();
    let state = first.writer.clone().unwrap();
    assert_eq!((first.rows, first.duplicate, first.table_created), (3, false, true));
    assert_eq!((state.writer.as_str(), state.sequence, state.rows), ("feed / ü", 1, 3));
    // With other rows, and to be made if the table were not there: it was made.
    let again = put(&sut, numbered("t", 0, 1), 5).await.unwrap();
    assert_eq!((again.rows, again.duplicate, again.writer), (0, true, Some(state)));
    let second = put(&sut, numbered("t", 0, 2), 2).await.unwrap();
    assert_eq!(second.writer.as_ref().map(|state| (state.sequence, state.rows)), Some((2, 5)));
    assert!(second.writer.as_ref().unwrap().lsn > first.writer.unwrap().lsn);
    assert_eq!(sut.rows("SELECT * FROM t").await, 5);
    let skipped = put(&sut, numbered("t", 0, 4), 1).await.unwrap_err();
    assert_eq!(skipped.kind(), ErrorKind::Conflict);
    assert!(skipped.message().contains("goes on with commit 3"), "{skipped}");
    // Rows that were deleted do not come back with a commit that is repeated.
    assert_eq!(sut.count("DELETE FROM t").await, 5);
    assert!(put(&sut, numbered("t", 0, 2), 2).await.unwrap().duplicate);
    assert_eq!(sut.rows("SELECT * FROM t").await, 0);
    // Nor is it refused for what has become of the table since.
    sut.define("ALTER TABLE t DROP COLUMN n").await;
    let strict = Append { if_exists: IfExists::Fail, ..numbered("t", 0, 2) };
    assert!(put(&sut, strict, 2).await.unwrap().duplicate);
    let known = sut.ingest.writer("t".into(), "feed / ü".into(), Caller::default()).await.unwrap();
    assert_eq!(known, second.writer.unwrap());
    assert_eq!(known.offset.as_deref(), Some("{\"ü\": 2}"));
    let unknown = sut.ingest.writer("t".into(), "other".into(), Caller::default()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    // A table of the same name is another one.
    sut.define("DROP TABLE t").await;
    assert_eq!(put(&sut, numbered("t", 0, 3), 1).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(!put(&sut, numbered("t", 0, 1), 1).await.unwrap().duplicate);
    assert_eq!(sut.rows("SELECT * FROM t").await, 1);
}

pub async fn a_writer_that_is_taken_over_is_refused(sut: Sut) {
    put(&sut, numbered("t", 1, 1), 1).await.unwrap();
    put(&sut, numbered("t", 7, 2), 1).await.unwrap();
    for sequence in [2, 3] {
        let fenced = put(&sut, numbered("t", 1, sequence), 1).await.unwrap_err();
        assert_eq!(fenced.kind(), ErrorKind::Conflict);
        assert!(fenced.message().contains("epoch 7"), "{fenced}");
    }
    // A stream that fails is no commit.
    let batch = numbers(0, 1);
    let broken = futures::stream::iter([Ok(batch.clone()), Err(Error::invalid("broken"))]);
    sut.ingest.append(numbered("t", 7, 3), BatchStream::new(batch.schema(), broken)).await.unwrap_err();
    assert_eq!(put(&sut, numbered("t", 7, 3), 0).await.unwrap().writer.unwrap().sequence, 3, "without rows");
    assert_eq!(sut.rows("SELECT * FROM t").await, 2);
    let other = Append { writer: None, ..numbered("t", 0, 1) };
    assert_eq!(put(&sut, other, 1).await.unwrap().writer, None);
}
