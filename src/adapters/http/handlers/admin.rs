//! Routes about the server itself: health, counters, version, API description.

use crate::adapters::http::error::HttpError;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::negotiation::result_style;
use crate::adapters::http::openapi::document;
use crate::adapters::http::request::HttpRequest;
use crate::adapters::http::response::json_response;
use crate::adapters::serving::health_json;
use crate::ports::Caller;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use warp::Reply as _;
use warp::reply::Response;

impl Handlers {
    /// Answers `GET /stats`.
    pub async fn stats(&self, request: HttpRequest) -> Response {
        self.get(&request, async |caller| {
            let tables = self.query.tables(caller).await?;
            let counters = self.admission.counters();
            Ok(json!({
                "uptime_s": self.admission.uptime().as_secs(),
                "http_requests": counters.requests.load(Ordering::Relaxed),
                "http_errors": counters.errors.load(Ordering::Relaxed),
                "http_rows_sent": counters.rows_sent.load(Ordering::Relaxed),
                "http_bytes_sent": counters.bytes_sent.load(Ordering::Relaxed),
                "tables": tables.len(),
                "rows": tables.iter().filter_map(|table| table.rows).sum::<u64>(),
                "bytes": tables.iter().filter_map(|table| table.bytes).sum::<u64>(),
            }))
        })
        .await
    }

    /// Answers `GET /openapi.json`.
    pub async fn openapi(&self, request: HttpRequest) -> Response {
        self.probe(&request, || document(&self.options.info.version))
    }

    /// Answers `GET /version`.
    pub async fn version(&self, request: HttpRequest) -> Response {
        self.probe(&request, || self.about_json())
    }

    /// Answers `GET /` without a query.
    pub(super) async fn about(&self, request: &HttpRequest) -> Response {
        // A request that names a format meant to send a query: it is told of a mistake in the name, not greeted.
        if let Err(error) = result_style(request, None, &self.options.limits) {
            return self.refuse(request, error);
        }
        self.probe(request, || self.about_json())
    }

    fn about_json(&self) -> Value {
        let about = &self.options.info;
        json!({"status": "ok", "engine": "zepto-flight", "version": about.version, "backend": about.backend})
    }

    /// Answers `GET /ping`.
    pub async fn ping(&self, request: HttpRequest) -> Response {
        if !request.is_get() {
            return self.refuse(&request, HttpError::method_not_allowed("GET"));
        }
        "Ok\n".into_response()
    }

    /// Answers `GET /health`: whether the process is well, and what it is.
    pub async fn health(&self, request: HttpRequest) -> Response {
        self.probe(&request, || health_json("healthy", &self.options.info, self.admission.uptime()))
    }

    /// Answers `GET /ready`: whether requests are admitted, and the backend answers.
    pub async fn ready(&self, request: HttpRequest) -> Response {
        if !request.is_get() {
            return self.refuse(&request, HttpError::method_not_allowed("GET"));
        }
        let ready = !self.admission.is_draining() && self.query.tables(Caller::default()).await.is_ok();
        let (status, word) =
            if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
        json_response(status, &json!({"status": word, "backend": self.options.info.backend}).to_string())
    }
}
