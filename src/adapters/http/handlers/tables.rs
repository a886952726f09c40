//! `/tables` lists tables, `POST /snapshot` pins their state.

use crate::adapters::http::error::HttpError;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::request::HttpRequest;
use crate::adapters::http::response::finish_json;
use crate::adapters::http::wire::table_json;
use crate::adapters::serving::numbered_put::writer_json;
use percent_encoding::percent_decode_str;
use serde_json::json;
use warp::reply::Response;

impl Handlers {
    /// Answers `POST /snapshot`.
    pub async fn snapshot(&self, request: HttpRequest) -> Response {
        let mut admitted = match self.admit_post(&request) {
            Ok(admitted) => admitted,
            Err(response) => return *response,
        };
        let snapshot = self.query.snapshot(admitted.caller()).await;
        // As a string: JavaScript rounds numbers of 64 bits.
        finish_json(snapshot.map(|id| json!({"snapshot": id.0.to_string()})).map_err(HttpError::from), &mut admitted)
    }

    /// Answers `GET /tables`.
    pub async fn tables(&self, request: HttpRequest) -> Response {
        self.get(&request, async |caller| {
            let tables: Vec<_> = self.query.tables(caller).await?.iter().map(table_json).collect();
            Ok(json!({"tables": tables}))
        })
        .await
    }

    /// Answers `GET /tables/{name}`.
    pub async fn table(&self, name: &str, request: HttpRequest) -> Response {
        let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
        self.get(&request, async |caller| Ok(table_json(&self.query.table(name, caller).await?))).await
    }

    /// Answers `GET /tables/{name}/writers/{writer}`.
    pub async fn writer(&self, table: &str, writer: &str, request: HttpRequest) -> Response {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (table, writer) = (decoded(table), decoded(writer));
        self.get(&request, async |caller| Ok(writer_json(&self.ingest.writer(table, writer, caller).await?))).await
    }
}
