//! `/` runs a statement, `POST /describe` describes one.

use crate::adapters::formats::format::Format;
use crate::adapters::formats::write::ResultStyle;
use crate::adapters::http::error::HttpError;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::negotiation::{is_explicit, options, result_style};
use crate::adapters::http::query_params::bind_query_params;
use crate::adapters::http::request::HttpRequest;
use crate::adapters::http::response::{apply_options, finish_json, result_response};
use crate::adapters::http::wire::{description_json, query_from_headers};
use crate::adapters::serving::AdmittedRequest;
use crate::ports::{Access, Description, Error, ErrorKind, Query, Reply, Result, StatementKind};
use http::Method;
use std::sync::Arc;
use warp::reply::Response;

impl Handlers {
    /// Answers `/`: POST runs the statement in its body, GET with `?query=` a read, GET without it says what this is.
    pub async fn root(&self, request: HttpRequest) -> Response {
        let sql = request.query.get("query").cloned();
        match (&request.method, sql) {
            (&Method::GET | &Method::HEAD, None) => self.about(&request).await,
            (&Method::GET, Some(sql)) => self.query_by_get(sql, request).await,
            (&Method::POST, _) => self.query_by_post(request).await,
            _ => self.refuse(&request, HttpError::method_not_allowed("GET, POST")),
        }
    }

    async fn query_by_post(&self, mut request: HttpRequest) -> Response {
        let mut admitted = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(response) => return *response,
        };
        let reply = match request.posted_statement(&self.options.limits).await {
            Ok(sql) => self.run(sql, None, &request, &mut admitted).await,
            Err(error) => Err(error),
        };
        result_response(reply, admitted)
    }

    async fn query_by_get(&self, sql: String, request: HttpRequest) -> Response {
        let mut admitted = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(response) => return *response,
        };
        // GET is safe by definition (RFC 9110 9.2.1): whatever the headers allow, it only reads.
        let reply = match self.run(sql.clone(), Some(Access::Read), &request, &mut admitted).await {
            Err(HttpError::Port(error)) if error.kind() == ErrorKind::InvalidQuery => {
                Err(self.explain_get_refusal(sql, error).await)
            }
            reply => reply,
        };
        result_response(reply, admitted)
    }

    /// Runs a statement with the access that its method gives, or else its headers.
    async fn run(
        &self,
        sql: String,
        access: Option<Access>,
        request: &HttpRequest,
        admitted: &mut AdmittedRequest,
    ) -> Result<(Reply, ResultStyle), HttpError> {
        let (sql, trailing_format) =
            if is_explicit(request) { (sql.as_str(), None) } else { Format::strip_format_clause(&sql) };
        admitted.statement(sql);
        let (style, options) = result_style(request, trailing_format, &self.options.limits)?;
        let query = query_from_headers(sql.to_owned(), access, &request.headers, admitted.caller())?;
        let query = bind_query_params(query, &request.query, self.query.as_ref()).await?;
        let reply = admitted.or_shutdown(self.query.query(query)).await?;
        admitted.kind(reply.kind);
        Ok((admitted.or_shutdown(apply_options(reply, &options)).await?, style))
    }

    /// Returns the error of a GET that was refused: 405 where the statement is fine but for the method.
    async fn explain_get_refusal(&self, sql: String, error: Error) -> HttpError {
        match self.query.describe(Query::change(sql)).await {
            Ok(described) if described.kind != StatementKind::Read => HttpError::method_not_allowed("POST"),
            Err(refused) if refused.kind() == ErrorKind::Unsupported => HttpError::method_not_allowed("POST"),
            _ => HttpError::Port(error),
        }
    }

    /// Answers `POST /describe`.
    pub async fn describe(&self, mut request: HttpRequest) -> Response {
        let mut admitted = match self.admit_post(&request) {
            Ok(admitted) => admitted,
            Err(response) => return *response,
        };
        let sql = request.plain_statement(&self.options.limits).await;
        let described = async {
            let sql = sql?;
            admitted.statement(&sql);
            let options = options(&request)?;
            let query = query_from_headers(sql, None, &request.headers, admitted.caller())?;
            let described = self.query.describe(query).await?;
            let schema = Arc::new(options.schema(&described.schema));
            Ok(description_json(&Description { schema, ..described }))
        };
        let described = described.await;
        finish_json(described, &mut admitted)
    }
}
