//! The handlers of all routes: each reads its request, asks a port, and builds the response.
//!
//! What they share is here: admission, the checks of methods, and refusals.

mod admin;
mod exchange;
mod insert;
mod query;
mod tables;

use crate::adapters::http::error::HttpError;
use crate::adapters::http::guard::Refused;
use crate::adapters::http::insert_body::InsertBodyReader;
use crate::adapters::http::request::{HttpRequest, RequestMeta};
use crate::adapters::http::response::{error_response, finish_error, finish_json, json_response};
use crate::adapters::serving::{Admission, AdmittedRequest, ServerOptions};
use crate::ports::{Caller, Error, ErrorKind, IngestPort, QueryPort, Result};
use http::{Method, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use warp::reply::Response;

/// The state that every handler uses.
#[derive(Debug)]
pub struct Handlers {
    query: Arc<dyn QueryPort>,
    ingest: Arc<dyn IngestPort>,
    admission: Admission,
    options: ServerOptions,
    insert_bodies: InsertBodyReader,
}

impl Handlers {
    /// Creates the handlers of a server over the ports.
    pub fn new(
        query: Arc<dyn QueryPort>,
        ingest: Arc<dyn IngestPort>,
        admission: Admission,
        options: ServerOptions,
    ) -> Self {
        let insert_bodies = InsertBodyReader::new(&options);
        Self { query, ingest, admission, options, insert_bodies }
    }

    /// Returns how the server is to behave.
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Answers a request that the guard refused by its headers.
    pub async fn refused(&self, refused: Refused, request: HttpRequest) -> Response {
        self.refuse(&request, HttpError::status(refused.status, refused.kind, refused.message))
    }

    /// Answers a request that no route takes.
    pub async fn unknown(&self, request: HttpRequest) -> Response {
        let message = format!("there is no route {:.200}; docs/protocol.md lists the routes", request.path);
        self.refuse(&request, Error::new(ErrorKind::NotFound, message).into())
    }

    /// Answers an admitted GET with JSON.
    async fn get(&self, request: &HttpRequest, work: impl AsyncFnOnce(Caller) -> Result<Value, HttpError>) -> Response {
        if !request.is_get() {
            return self.refuse(request, HttpError::method_not_allowed("GET"));
        }
        match self.admit(request) {
            Ok(mut admitted) => finish_json(work(admitted.caller()).await, &mut admitted),
            Err(response) => *response,
        }
    }

    /// Answers a GET that is neither admitted nor logged: probes come every few seconds, and while draining too.
    fn probe(&self, request: &HttpRequest, work: impl FnOnce() -> Value) -> Response {
        if !request.is_get() {
            return self.refuse(request, HttpError::method_not_allowed("GET"));
        }
        json_response(StatusCode::OK, &work().to_string())
    }

    /// Admits a request if it is a POST; else returns its response.
    fn admit_post(&self, request: &HttpRequest) -> Result<AdmittedRequest, Box<Response>> {
        if request.method != Method::POST {
            return Err(Box::new(self.refuse(request, HttpError::method_not_allowed("POST"))));
        }
        self.admit(request)
    }

    /// Admits a request; else returns its response.
    fn admit(&self, request: &HttpRequest) -> Result<AdmittedRequest, Box<Response>> {
        let verb = format!("{} {:.80}", request.method, request.path);
        let RequestMeta { peer, request_id, .. } = request.meta.clone();
        self.admission
            .admit("http", verb, request_id.clone(), peer)
            .map_err(|error| Box::new(error_response(&error.into(), &request_id)))
    }

    /// Refuses a request before any port sees it. It is admitted all the same, so that it is counted and logged.
    fn refuse(&self, request: &HttpRequest, error: HttpError) -> Response {
        match self.admit(request) {
            Ok(mut admitted) => finish_error(error, &mut admitted),
            Err(response) => *response,
        }
    }
}
