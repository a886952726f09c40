//! The routes: each takes its request apart, asks a port, and puts the answer together.

use crate::adapters::http::format::Format;
use crate::adapters::http::guard::Refused;
use crate::adapters::http::incoming::{Failure, Incoming, Meta};
use crate::adapters::http::openapi::document;
use crate::adapters::http::params::bound;
use crate::adapters::http::render::{NanStyle, Style, body};
use crate::adapters::http::wire::{
    ACCESS, FORMAT, STATEMENT_KIND, description_json, error_json, query_from_headers, status_from_kind, table_json,
};
use crate::adapters::ipc::Encoding;
use crate::adapters::serving::{Admission, AdmittedRequest as Admitted, ResultOptions, ServerOptions, health_json};
use crate::ports::{
    BatchStream, Description, Error, ErrorKind, IngestPort, Query, QueryPort, Reply, Result, StatementKind,
};
use futures::stream::{self, StreamExt};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sync_wrapper::SyncStream;
use warp::Reply as _;
use warp::reply::Response;

/// What answers every route.
#[derive(Debug)]
pub struct Handlers {
    pub(super) query: Arc<dyn QueryPort>,
    pub(super) ingest: Arc<dyn IngestPort>,
    pub(super) gate: Admission,
    pub(super) options: ServerOptions,
}

impl Handlers {
    /// `POST /` runs the statement in its body, `GET /?query=` a read; bare `GET /` says who this is.
    pub async fn root(&self, mut incoming: Incoming) -> Response {
        match (&incoming.method, incoming.query.get("query").cloned()) {
            (&Method::GET | &Method::HEAD, None) => self.about(&incoming).await,
            (&Method::GET, Some(sql)) => {
                let mut admitted = match self.admit(&incoming) {
                    Ok(admitted) => admitted,
                    Err(refused) => return *refused,
                };
                incoming.headers.insert(ACCESS, http::HeaderValue::from_static("read"));
                let reply = self.run(sql.clone(), &incoming, &mut admitted).await;
                let reply = match reply {
                    Err(Failure::Port(error)) if error.kind() == ErrorKind::InvalidQuery => {
                        Err(self.read_only(sql, error).await)
                    }
                    reply => reply,
                };
                self.stream(reply, admitted)
            }
            (&Method::POST, _) => {
                let mut admitted = match self.admit(&incoming) {
                    Ok(admitted) => admitted,
                    Err(refused) => return *refused,
                };
                let reply = match incoming.posted_statement(&self.options.limits).await {
                    Ok(sql) => self.run(sql, &incoming, &mut admitted).await,
                    Err(failure) => Err(failure),
                };
                self.stream(reply, admitted)
            }
            _ => self.refuse(&incoming, Failure::method("GET, POST")),
        }
    }

    async fn run(&self, sql: String, incoming: &Incoming, admitted: &mut Admitted) -> Result<(Reply, Style), Failure> {
        let said = Format::is_said(&incoming.query, &incoming.headers);
        let (sql, behind) = if said { (sql.as_str(), None) } else { Format::split_off(&sql) };
        admitted.statement(sql);
        let (style, presentation) = self.style(incoming, behind)?;
        let query = query_from_headers(sql.to_owned(), &incoming.headers, admitted.id())?;
        let query = bound(query, &incoming.query, self.query.as_ref()).await?;
        let reply = admitted.or_shutdown(self.query.query(query)).await?;
        admitted.kind(reply.kind);
        Ok((admitted.or_shutdown(presented(reply, &presentation)).await?, style))
    }

    /// How a request wants its result, and the columns of that; `behind` is the format that stood behind its statement.
    pub(super) fn style(&self, incoming: &Incoming, behind: Option<Format>) -> Result<(Style, ResultOptions), Failure> {
        let chosen = match behind {
            Some(format) => Some(format),
            None => Format::choose(&incoming.query, &incoming.headers)?,
        };
        let format = chosen.ok_or_else(|| {
            let message = "docs/protocol.md lists the media types that there are";
            Failure::http(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
        })?;
        if !incoming.meta.framed && !format.shows_its_end() {
            let message = "over HTTP/1.0 nobody could tell a result in this format from a part of it; use HTTP/1.1";
            return Err(Failure::http(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "VersionNotSupported", message));
        }
        let nan = match incoming.query.get("nan").map(String::as_str) {
            None | Some("null") => NanStyle::Null,
            Some("string") => NanStyle::Text,
            Some(other) => return Err(Error::invalid(format!("nan can't be {other:?}: null or string")).into()),
        };
        let encoding = Encoding::from_headers(|name| header(incoming, name), &self.options.limits)?;
        Ok((Style { format, nan, encoding }, presentation(incoming)?))
    }

    /// What to say of a statement that GET was refused: 405 where it is fine but for its method.
    async fn read_only(&self, sql: String, error: Error) -> Failure {
        match self.query.describe(Query::change(sql)).await {
            Ok(described) if described.kind != StatementKind::Read => Failure::method("POST"),
            Err(refused) if refused.kind() == ErrorKind::Unsupported => Failure::method("POST"),
            _ => Failure::Port(error),
        }
    }

    pub(super) fn stream(&self, reply: Result<(Reply, Style), Failure>, mut admitted: Admitted) -> Response {
        let (reply, style) = match reply {
            Ok(reply) => reply,
            Err(failure) => return failed(failure, &mut admitted),
        };
        let kind = reply.kind;
        let bytes = match body(reply.batches, style, admitted) {
            Ok(bytes) => bytes,
            Err(refused) => {
                let (error, mut admitted) = *refused;
                return failed(error.into(), &mut admitted);
            }
        };
        let mut response = warp::reply::stream(SyncStream::new(bytes)).into_response();
        set(response.headers_mut(), CONTENT_TYPE.as_str(), style.format.media_type());
        set(response.headers_mut(), STATEMENT_KIND, kind.as_str());
        if style.format == Format::Arrow {
            set(response.headers_mut(), FORMAT, "arrow-stream");
        }
        response
    }

    /// `POST /describe`
    pub async fn describe(&self, mut incoming: Incoming) -> Response {
        if incoming.method != Method::POST {
            return self.refuse(&incoming, Failure::method("POST"));
        }
        let mut admitted = match self.admit(&incoming) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        let sql = incoming.plain_statement(&self.options.limits).await;
        let described = async {
            let sql = sql?;
            admitted.statement(&sql);
            let presentation = presentation(&incoming)?;
            let query = query_from_headers(sql, &incoming.headers, admitted.id())?;
            let described = self.query.describe(query).await?;
            let schema = Arc::new(presentation.schema(&described.schema));
            Ok(Description { schema, ..described })
        };
        let described = described.await;
        answer(described.map(|described| description_json(&described)), &mut admitted)
    }

    /// `POST /snapshot`
    pub async fn snapshot(&self, incoming: Incoming) -> Response {
        if incoming.method != Method::POST {
            return self.refuse(&incoming, Failure::method("POST"));
        }
        let mut admitted = match self.admit(&incoming) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        let snapshot = self.query.snapshot().await;
        answer(snapshot.map(|id| json!({"snapshot": id.0.to_string()})).map_err(Failure::from), &mut admitted)
    }

    /// `GET /tables`
    pub async fn tables(&self, incoming: Incoming) -> Response {
        self.get(&incoming, async |_| {
            let tables: Vec<_> = self.query.tables().await?.iter().map(table_json).collect();
            Ok(json!({"tables": tables}))
        })
        .await
    }

    /// `GET /tables/{name}`
    pub async fn table(&self, name: &str, incoming: Incoming) -> Response {
        let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
        self.get(&incoming, async |_| {
            let tables = self.query.tables().await?;
            let table = tables.iter().find(|table| table.name == name);
            let missing = || Error::new(ErrorKind::NotFound, format!("table {name:?} not found"));
            Ok(table.map(table_json).ok_or_else(missing)?)
        })
        .await
    }

    /// `GET /stats`
    pub async fn stats(&self, incoming: Incoming) -> Response {
        self.get(&incoming, async |_| {
            let tables = self.query.tables().await?;
            let counters = self.gate.counters();
            Ok(json!({
                "uptime_s": self.gate.uptime().as_secs(),
                "http_requests": counters.requests.load(Ordering::Relaxed),
                "http_errors": counters.errors.load(Ordering::Relaxed),
                "http_rows_sent": counters.rows_sent.load(Ordering::Relaxed),
                "http_bytes_sent": counters.bytes_sent.load(Ordering::Relaxed),
                "tables": tables.len(),
                "rows": tables.iter().map(|table| table.rows).sum::<u64>(),
                "bytes": tables.iter().map(|table| table.bytes).sum::<u64>(),
            }))
        })
        .await
    }

    /// `GET /openapi.json`
    pub async fn openapi(&self, incoming: Incoming) -> Response {
        self.probe(&incoming, || document(&self.options.info.version))
    }

    /// `GET /version`
    pub async fn version(&self, incoming: Incoming) -> Response {
        self.probe(&incoming, || self.about_json())
    }

    async fn about(&self, incoming: &Incoming) -> Response {
        // Whoever asks for a form asks for a result, and would not see the mistake in the one that it named.
        if let Err(failure) = self.style(incoming, None) {
            return self.refuse(incoming, failure);
        }
        self.probe(incoming, || self.about_json())
    }

    fn about_json(&self) -> Value {
        let about = &self.options.info;
        json!({"status": "ok", "engine": "zepto-flight", "version": about.version, "backend": about.backend})
    }

    /// `GET /ping`
    pub async fn ping(&self, incoming: Incoming) -> Response {
        if !is_get(&incoming) {
            return self.refuse(&incoming, Failure::method("GET"));
        }
        "Ok\n".into_response()
    }

    /// `GET /health`: whether the process is well, and what it is.
    pub async fn health(&self, incoming: Incoming) -> Response {
        self.probe(&incoming, || health_json("healthy", &self.options.info, self.gate.uptime()))
    }

    /// `GET /ready`: whether requests are taken, and the backend answers.
    pub async fn ready(&self, incoming: Incoming) -> Response {
        if !is_get(&incoming) {
            return self.refuse(&incoming, Failure::method("GET"));
        }
        let ready = !self.gate.is_draining() && self.query.tables().await.is_ok();
        let (status, word) =
            if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
        json_response(status, &json!({"status": word, "backend": self.options.info.backend}).to_string())
    }

    /// Answers a request that its headers keep out.
    pub async fn refused(&self, refused: Refused, incoming: Incoming) -> Response {
        self.refuse(&incoming, Failure::http(refused.status, refused.kind, refused.message))
    }

    /// Whatever has no route.
    pub async fn unknown(&self, incoming: Incoming) -> Response {
        let message = format!("there is nothing at {:.200}; docs/protocol.md lists the routes", incoming.path);
        self.refuse(&incoming, Error::new(ErrorKind::NotFound, message).into())
    }

    /// An admitted GET with a JSON answer.
    async fn get(&self, incoming: &Incoming, work: impl AsyncFnOnce(&Incoming) -> Result<Value, Failure>) -> Response {
        if !is_get(incoming) {
            return self.refuse(incoming, Failure::method("GET"));
        }
        match self.admit(incoming) {
            Ok(mut admitted) => answer(work(incoming).await, &mut admitted),
            Err(refused) => *refused,
        }
    }

    /// A GET that is neither admitted nor logged: it is asked every few seconds, and while draining too.
    fn probe(&self, incoming: &Incoming, work: impl FnOnce() -> Value) -> Response {
        if !is_get(incoming) {
            return self.refuse(incoming, Failure::method("GET"));
        }
        json_response(StatusCode::OK, &work().to_string())
    }

    pub(super) fn admit(&self, incoming: &Incoming) -> Result<Admitted, Box<Response>> {
        let verb = format!("{} {:.80}", incoming.method, incoming.path);
        let Meta { peer, request_id, .. } = incoming.meta.clone();
        self.gate
            .admit("http", verb, request_id.clone(), peer)
            .map_err(|error| Box::new(failure_response(&error.into(), &request_id)))
    }

    /// Refuses a request that no port hears of.
    pub(super) fn refuse(&self, incoming: &Incoming, failure: Failure) -> Response {
        match self.admit(incoming) {
            Ok(mut admitted) => failed(failure, &mut admitted),
            Err(refused) => *refused,
        }
    }
}

/// How a request wants columns.
fn presentation(incoming: &Incoming) -> Result<ResultOptions> {
    ResultOptions::from_headers(|name| header(incoming, name))
}

/// A header's text; what is none is nothing that any header takes.
fn header<'a>(incoming: &'a Incoming, name: &str) -> Option<&'a str> {
    incoming.headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// `reply` with its columns as its caller wants them. Where its first rows cannot be given so, that is the answer.
pub(super) async fn presented(reply: Reply, presentation: &ResultOptions) -> Result<Reply> {
    let given = reply.batches.schema();
    let schema = Arc::new(presentation.schema(&given));
    let mut batches = presentation.apply(reply.batches, schema.clone());
    if schema != given {
        let first = batches.next().await.transpose()?;
        batches = BatchStream::new(schema, stream::iter(first.map(Ok)).chain(batches));
    }
    Ok(Reply { batches, ..reply })
}

fn is_get(incoming: &Incoming) -> bool {
    matches!(incoming.method, Method::GET | Method::HEAD)
}

pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        headers.insert(name, value);
    }
}

fn json_response(status: StatusCode, json: &str) -> Response {
    let mut response = format!("{json}\n").into_response();
    *response.status_mut() = status;
    set(response.headers_mut(), CONTENT_TYPE.as_str(), "application/json");
    response
}

pub(super) fn answer(result: Result<Value, Failure>, admitted: &mut Admitted) -> Response {
    match result {
        Ok(value) => {
            admitted.done();
            json_response(StatusCode::OK, &value.to_string())
        }
        Err(failure) => failed(failure, admitted),
    }
}

pub(super) fn failed(failure: Failure, admitted: &mut Admitted) -> Response {
    let response = failure_response(&failure, admitted.id());
    admitted.fail(failure.into_error());
    response
}

fn failure_response(failure: &Failure, request_id: &str) -> Response {
    match failure {
        Failure::Port(error) => {
            let body = error_json(error.kind().as_str(), error.message(), request_id);
            json_response(status_from_kind(error.kind()), &body)
        }
        Failure::Http { status, kind, message, allow } => {
            let mut response = json_response(*status, &error_json(kind, message, request_id));
            if let Some(allow) = allow {
                set(response.headers_mut(), ALLOW.as_str(), allow);
            }
            response
        }
    }
}
