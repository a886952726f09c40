//! Both ports, implemented by calling an HTTP server.
//!
//! Thin on purpose: no retry, no cache. Results and streams travel as Arrow IPC, the only format that loses nothing.

use crate::adapters::formats::format::ARROW_STREAM;
use crate::adapters::http::wire::{
    BATCHES, BYTES, IF_EXISTS, IF_MISSING, STATEMENT_KIND, TABLE_CREATED, description_from_json, error_from_response,
    headers_from_query, table_from_json,
};
use crate::adapters::ipc::{DecodeLimits, END_OF_STREAM, Encoder, Encoding, Message, StreamErrors, read_stream};
use crate::adapters::serving::numbered_put::{options_of, writer_from_json, writer_of};
use crate::ports::{
    Append, BatchStream, Caller, Description, Error, IngestPort, IngestSummary, Limits, Query, QueryPort, Reply,
    Result, SnapshotId, TableInfo, WriterState,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A connection to an HTTP server.
#[derive(Clone)]
pub struct Client {
    url: String,
    http: reqwest::Client,
    limits: DecodeLimits,
    message_bytes_target: u64,
}

impl Client {
    /// Creates a client of the server at `url`, such as `http://127.0.0.1:8123`. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an invalid URL.
    pub fn new(url: &str, limits: &Limits) -> Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        url::Url::parse(&url).map_err(|error| Error::invalid(format!("invalid URL {url:?}: {error}")))?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| Error::internal("the HTTP client could not be created").with_source(error))?;
        // No limit on messages: a server is trusted with the size of one, and a row may be larger than any.
        let limits_received = DecodeLimits { message_bytes_max: u64::MAX, ..DecodeLimits::from(limits) };
        Ok(Self { url, http, limits: limits_received, message_bytes_target: limits.message_bytes_target })
    }

    /// Returns the server's health as JSON.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the server cannot be reached.
    pub async fn health(&self) -> Result<String> {
        self.json(self.http.get(format!("{}/health", self.url))).await.map(|health| health.to_string())
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let body = send(request).await?.bytes().await.map_err(connection_error)?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::internal("the server's answer is not JSON").with_source(error))
    }
}

/// Sends a request, and returns the response unless its status is an error.
async fn send(request: RequestBuilder) -> Result<Response> {
    let response = request.send().await.map_err(connection_error)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    Err(error_from_response(status, &body))
}

fn connection_error(error: reqwest::Error) -> Error {
    Error::unavailable("the server cannot be reached, or the connection was lost").with_source(error)
}

#[async_trait]
impl QueryPort for Client {
    async fn describe(&self, query: Query) -> Result<Description> {
        let headers = headers_from_query(&query)?;
        description_from_json(&self.json(self.post("/describe").headers(headers).body(query.sql)).await?)
    }

    async fn query(&self, query: Query) -> Result<Reply> {
        let headers = headers_from_query(&query)?;
        let request = self.post("/").headers(headers).header(ACCEPT, ARROW_STREAM).body(query.sql);
        read_reply(send(request).await?, self.limits.clone()).await
    }

    async fn exchange(&self, query: Query, input: BatchStream) -> Result<Reply> {
        let failure = Arc::new(Mutex::new(None));
        let body = stream_body(input, self.message_bytes_target, failure.clone());
        let request = self
            .post(&format!("/exchange?query={}", utf8_percent_encode(&query.sql, NON_ALPHANUMERIC)))
            .headers(headers_from_query(&query)?)
            .header(ACCEPT, ARROW_STREAM)
            .header(CONTENT_TYPE, ARROW_STREAM)
            .body(reqwest::Body::wrap_stream(body));
        let response = send(request).await;
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        read_reply(response?, self.limits.clone()).await
    }

    async fn snapshot(&self, caller: Caller) -> Result<SnapshotId> {
        let answer = self.json(self.post("/snapshot").headers(caller_headers(caller)?)).await?;
        let id = answer["snapshot"].as_str().and_then(|id| id.parse().ok());
        id.map(SnapshotId).ok_or_else(|| Error::internal("the server's snapshot is not a number"))
    }

    async fn tables(&self, caller: Caller) -> Result<Vec<TableInfo>> {
        let request = self.http.get(format!("{}/tables", self.url)).headers(caller_headers(caller)?);
        let answer = self.json(request).await?;
        answer["tables"].as_array().into_iter().flatten().map(table_from_json).collect()
    }

    async fn table(&self, name: String, caller: Caller) -> Result<TableInfo> {
        let name = utf8_percent_encode(&name, NON_ALPHANUMERIC);
        let request = self.http.get(format!("{}/tables/{name}", self.url)).headers(caller_headers(caller)?);
        table_from_json(&self.json(request).await?)
    }
}

/// Returns the headers of a request that says only who asks.
fn caller_headers(caller: Caller) -> Result<HeaderMap> {
    headers_from_query(&Query { caller, ..Query::default() })
}

/// Reads the reply that a response carries as an Arrow stream.
async fn read_reply(response: Response, limits: DecodeLimits) -> Result<Reply> {
    let kind =
        response.headers().get(STATEMENT_KIND).and_then(|kind| kind.to_str().ok()).unwrap_or_default().parse()?;
    let pieces = response.bytes_stream().map(|piece| piece.map_err(connection_error)).boxed();
    let errors = StreamErrors {
        transport: |error| error,
        truncated: |_| Error::unavailable("the result was cut off before its end"),
    };
    Ok(Reply { kind, batches: read_stream(pieces, limits, errors).await? })
}

#[async_trait]
impl IngestPort for Client {
    async fn append(&self, append: Append, batches: BatchStream) -> Result<IngestSummary> {
        let failure = Arc::new(Mutex::new(None));
        let body = stream_body(batches, self.message_bytes_target, failure.clone());
        let option =
            |(name, value): (&str, String)| format!("&{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC));
        let options: Vec<_> = options_of(&append).into_iter().map(option).collect();
        let headers = headers_from_query(&Query { caller: append.caller, ..Query::default() })?;
        let request = self
            .post(&format!(
                "/insert/arrow?table={}&{IF_MISSING}={}&{IF_EXISTS}={}{}",
                utf8_percent_encode(&append.table, NON_ALPHANUMERIC),
                append.if_missing.as_str(),
                append.if_exists.as_str(),
                options.concat(),
            ))
            .headers(headers)
            .header(CONTENT_TYPE, ARROW_STREAM)
            .body(reqwest::Body::wrap_stream(body));
        let response = send(request).await;
        // Where the batches themselves failed, the server saw a broken body: its error says less than theirs.
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let response = response?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let number = |name: &str| header(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (batches, bytes) = (number(BATCHES), number(BYTES));
        let table_created = header(TABLE_CREATED).as_deref() == Some("true");
        let body = response.bytes().await.map_err(connection_error)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let rows = answer["inserted"]
            .as_u64()
            .ok_or_else(|| Error::internal("the server's answer to an insert does not decode"))?;
        let (duplicate, writer) = writer_of(&answer)?;
        Ok(IngestSummary { rows, batches, bytes, table_created, duplicate, writer })
    }

    async fn writer(&self, table: String, writer: String, caller: Caller) -> Result<WriterState> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let path = format!("/tables/{}/writers/{}", encoded(&table), encoded(&writer));
        let request = self.http.get(format!("{}{path}", self.url)).headers(caller_headers(caller)?);
        writer_from_json(&self.json(request).await?)
    }
}

/// Encodes `batches` as an IPC stream. Where they fail, the error goes to `failure` and the body breaks off, so that the
/// server stores nothing.
fn stream_body(
    batches: BatchStream,
    bytes_target: u64,
    failure: Arc<Mutex<Option<Error>>>,
) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let (mut encoder, schema) = Encoder::new(&batches.schema(), Encoding::plain(bytes_target));
    let first = stream::iter(schema.into_pieces().map(Ok));
    let rest = batches.map(move |batch| batch.and_then(|batch| encoder.encode(&batch))).flat_map(move |messages| {
        let parts: Vec<Result<Bytes>> = match messages {
            Ok(messages) => messages.into_iter().flat_map(Message::into_pieces).map(Ok).collect(),
            Err(error) => {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                vec![Err(error)]
            }
        };
        stream::iter(parts)
    });
    first.chain(rest).chain(stream::iter([Ok(Bytes::from_static(&END_OF_STREAM))]))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}
