//! `POST /exchange` runs a read that sees the body as the table `input`.

use crate::adapters::formats::read::InputFormat;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::insert_body::check_media_type;
use crate::adapters::http::negotiation::result_style;
use crate::adapters::http::request::HttpRequest;
use crate::adapters::http::response::{apply_options, result_response};
use crate::adapters::http::wire::query_from_headers;
use crate::ports::Error;
use warp::reply::Response;

impl Handlers {
    /// Answers `POST /exchange?query=`.
    pub async fn exchange(&self, request: HttpRequest) -> Response {
        let mut admitted = match self.admit_post(&request) {
            Ok(admitted) => admitted,
            Err(response) => return *response,
        };
        let reply = async {
            let sql = request.query.get("query").cloned();
            let sql = sql.ok_or_else(|| Error::invalid("?query= is missing; it reads the body as the table input"))?;
            admitted.statement(&sql);
            let (style, options) = result_style(&request, None, &self.options.limits)?;
            let query = query_from_headers(sql, None, &request.headers, admitted.caller())?;
            check_media_type(InputFormat::Arrow, &request.headers)?;
            let input = self.insert_bodies.read(InputFormat::Arrow, request.body, None).await?;
            let input = admitted.until_shutdown(input);
            let reply = admitted.or_shutdown(self.query.exchange(query, input)).await?;
            Ok((admitted.or_shutdown(apply_options(reply, &options)).await?, style))
        };
        let reply = reply.await;
        result_response(reply, admitted)
    }
}
