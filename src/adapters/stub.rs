//! The stubs: a backend without an engine, and a server that does not listen.
//!
//! Each tells that it is a stub. [`Ports`] answers reads with one fixed row and refuses the rest, so that a protocol
//! can be tried without an engine. [`stand_ins`] replace a protocol that was left out of the build: the same names, and
//! every method does nothing or refuses, so that no other code has to know.

use crate::ports::{
    Access, Append, BatchStream, Caller, Description, Error, ErrorKind, IngestPort, IngestSummary, Query, QueryPort,
    Reply, Result, SnapshotId, StatementKind, TableInfo, WriterState,
};
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use std::sync::Arc;

/// A backend that answers every read with one fixed row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("stub", DataType::Utf8, false)]))
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("this server has the stub: backend, which {what}"))
}

#[async_trait]
impl QueryPort for Ports {
    async fn describe(&self, query: Query) -> Result<Description> {
        match query.access {
            Access::Read => Ok(Description::new(StatementKind::Read, schema(), Some(1))),
            Access::Change => Err(refused("changes nothing")),
        }
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let described = self.describe(query).await?;
        let row = StringArray::from(vec!["this is the stub: backend; no query was run"]);
        let batch = RecordBatch::try_new(described.schema.clone(), vec![Arc::new(row)])
            .map_err(|error| Error::internal("the stub's own row").with_source(error))?;
        Ok(Reply { kind: described.kind, batches: BatchStream::from_batches(described.schema, vec![batch]) })
    }

    async fn exchange(&self, query: Query, _: BatchStream) -> Result<Reply> {
        self.query(query).await
    }

    async fn snapshot(&self, _: Caller) -> Result<SnapshotId> {
        Ok(SnapshotId(0))
    }

    async fn tables(&self, _: Caller) -> Result<Vec<TableInfo>> {
        Ok(Vec::new())
    }

    async fn table(&self, name: String, _: Caller) -> Result<TableInfo> {
        Err(Error::new(ErrorKind::NotFound, format!("table {name:?} not found; the stub: backend has none")))
    }
}

#[async_trait]
impl IngestPort for Ports {
    async fn append(&self, _: Append, _: BatchStream) -> Result<IngestSummary> {
        Err(refused("keeps nothing"))
    }

    async fn writer(&self, _: String, _: String, _: Caller) -> Result<WriterState> {
        Err(refused("keeps nothing"))
    }
}

macro_rules! left_out {
    ($protocol:ident, $name:literal) => {
        #[doc = concat!("The replacement of ", $name, " in a build without it.")]
        pub mod $protocol {
            use crate::adapters::serving::ServerOptions;
            use crate::adapters::stub::Ports;
            use crate::ports::{Error, IngestPort, Limits, QueryPort, Result};
            use std::sync::Arc;
            use tokio::net::TcpListener;

            /// Whether the protocol is in the build.
            pub const BUILT: bool = false;

            /// A server that does not listen.
            #[derive(Debug)]
            pub struct Server;

            impl Server {
                /// Creates the stub; ignores its arguments.
                pub fn new(_: Arc<dyn QueryPort>, _: Arc<dyn IngestPort>, _: ServerOptions) -> Self {
                    Self
                }

                /// Waits for `shutdown`; the listener is closed at once.
                ///
                /// # Errors
                ///
                /// None.
                pub async fn serve(self, _: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
                    shutdown.await;
                    Ok(())
                }
            }

            /// A client of a protocol that is not in the build.
            #[derive(Debug)]
            pub struct Client;

            impl Client {
                /// Refuses.
                ///
                /// # Errors
                ///
                /// `Unsupported`, always.
                #[expect(clippy::new_ret_no_self, reason = "it stands in for a client, and there is none to make")]
                pub fn new(url: &str, _: &Limits) -> Result<Ports> {
                    Err(Error::unsupported(format!(
                        concat!("{:?} needs ", $name, ", which this build was made without"),
                        url
                    )))
                }
            }
        }
    };
}

/// The replacements of the protocols.
pub mod stand_ins {
    left_out!(flight, "Flight");
    left_out!(http, "HTTP");
}
