//! Mocks of the ports, for what no real backend does on demand.

use async_trait::async_trait;
use mockall::mock;
use zepto_flight::ports::{
    Append, BatchStream, Caller, Description, IngestPort, IngestSummary, Query, QueryPort, Reply, Result, SnapshotId,
    TableInfo, WriterState,
};

mock! {
    #[derive(Debug)]
    pub Query {}

    #[async_trait]
    impl QueryPort for Query {
        async fn describe(&self, query: Query) -> Result<Description>;
        async fn query(&self, query: Query) -> Result<Reply>;
        async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply>;
        async fn snapshot(&self, caller: Caller) -> Result<SnapshotId>;
        async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>>;
        async fn table(&self, name: String, caller: Caller) -> Result<TableInfo>;
    }
}

mock! {
    #[derive(Debug)]
    pub Ingest {}

    #[async_trait]
    impl IngestPort for Ingest {
        async fn append(&self, request: Append, batches: BatchStream) -> Result<IngestSummary>;
        async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState>;
    }
}
