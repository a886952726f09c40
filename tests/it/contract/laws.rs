//! What holds for whatever implements the ports.

use crate::harness::Sut;
use futures::StreamExt;
use zepto_flight::ports::{Caller, ErrorKind, Query};

const READ: &str = "SELECT 1 AS a, 'x' AS b";

pub async fn stream_schema_is_every_batchs_schema(sut: Sut) {
    let mut batches = sut.query.query(Query::read(READ)).await.unwrap().batches;
    let schema = batches.schema();
    let mut seen = 0;
    while let Some(batch) = batches.next().await {
        assert_eq!(batch.unwrap().schema(), schema);
        seen += 1;
    }
    assert!(seen > 0);
}

pub async fn described_schema_is_the_streams(sut: Sut) {
    let described = sut.query.describe(Query::read(READ)).await.unwrap();
    let reply = sut.query.query(Query::read(READ)).await.unwrap();
    assert_eq!(described.schema, reply.batches.schema());
    assert_eq!(described.kind, reply.kind);
    let rows: usize = reply.batches.collect().await.unwrap().iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(described.rows, Some(rows as u64));
}

pub async fn dropping_a_stream_early_is_safe(sut: Sut) {
    for _ in 0..3 {
        drop(sut.query.query(Query::read(READ)).await.unwrap().batches);
    }
    assert_eq!(sut.rows(READ).await, 1);
}

pub async fn calls_may_be_made_concurrently(sut: Sut) {
    let calls = (0..20).map(|_| sut.rows(READ));
    assert_eq!(futures::future::join_all(calls).await, [1; 20]);
    sut.query.tables(Caller::default()).await.unwrap();
}

pub async fn a_change_is_refused_to_a_reader(sut: Sut) {
    // The stub refuses no read, and has nothing that a change could change.
    let changed = sut.query.query(Query::read("CREATE TABLE t (a INT64)")).await;
    if let Err(error) = changed {
        assert_eq!(error.kind(), ErrorKind::InvalidQuery);
    }
    assert_eq!(sut.query.tables(Caller::default()).await.unwrap(), Vec::new());
}
