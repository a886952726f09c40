//! `POST /insert/{format}` appends the rows of its body to a table.

use crate::adapters::formats::read::InputFormat;
use crate::adapters::http::error::HttpError;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::insert_body::check_media_type;
use crate::adapters::http::insert_columns::InsertColumns;
use crate::adapters::http::request::HttpRequest;
use crate::adapters::http::response::{finish_error, finish_json, set_header};
use crate::adapters::http::wire::{BATCHES, BYTES, FORMAT, IF_EXISTS, IF_MISSING, TABLE_CREATED};
use crate::adapters::serving::AdmittedRequest;
use crate::adapters::serving::numbered_put::{HEADER_PREFIX, OPTIONS, add_writer, not_ascii, with_options};
use crate::ports::{Append, Caller, Error, ErrorKind, IfExists, IngestSummary, Result};
use arrow::datatypes::SchemaRef;
use serde_json::json;
use std::str::FromStr;
use warp::reply::Response;

impl Handlers {
    /// Answers `POST /insert/{format}?table=`.
    pub async fn insert(&self, format: &str, request: HttpRequest) -> Response {
        let Some(format) = InputFormat::named(format) else { return self.unknown(request).await };
        let mut admitted = match self.admit_post(&request) {
            Ok(admitted) => admitted,
            Err(response) => return *response,
        };
        match self.append(format, request, &admitted).await {
            Ok(summary) => {
                admitted.sent(summary.rows, summary.bytes);
                let is_arrow = format == InputFormat::Arrow;
                let mut answer = json!({"inserted": summary.rows, "failed": 0});
                add_writer(&mut answer, &summary);
                let mut response = finish_json(Ok(answer), &mut admitted);
                let headers = response.headers_mut();
                set_header(headers, FORMAT, if is_arrow { "arrow-stream" } else { format.name() });
                set_header(headers, BATCHES, &summary.batches.to_string());
                set_header(headers, BYTES, &summary.bytes.to_string());
                set_header(headers, TABLE_CREATED, &summary.table_created.to_string());
                response
            }
            Err(error) => finish_error(error, &mut admitted),
        }
    }

    async fn append(
        &self,
        format: InputFormat,
        request: HttpRequest,
        admitted: &AdmittedRequest,
    ) -> Result<IngestSummary, HttpError> {
        check_media_type(format, &request.headers)?;
        // ZeptoDB takes table_name, too.
        let names = ["table", "table_name"].iter().find_map(|name| request.query.get(*name));
        let table = names.cloned().ok_or_else(|| Error::invalid("?table= is missing; it names the table"))?;
        let caller = admitted.caller();
        let (if_missing, if_exists) = (option(&request, IF_MISSING)?, option(&request, IF_EXISTS)?);
        let append = Append { table, if_missing, if_exists, caller, ..Append::default() };
        // In the address, or as headers.
        let header = |name: &str| request.headers.get(format!("{HEADER_PREFIX}{name}"));
        if let Some(name) = OPTIONS.into_iter().find(|name| header(name).is_some_and(|value| value.to_str().is_err())) {
            return Err(not_ascii(name).into());
        }
        let given = |name: &str| header(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let append = with_options(append, |name| request.query.get(name).cloned().or_else(|| given(name)))?;
        let columns = InsertColumns::from_query(&request.query)?;
        // Arrow carries its types, so the table is looked up only where columns are renamed or scaled.
        let schema = match format {
            InputFormat::Arrow if columns.is_empty() => None,
            _ => self.schema_of(&append.table, if_exists, append.caller.clone()).await?,
        };
        let types = schema.as_deref().filter(|_| format != InputFormat::Arrow).map(|table| columns.body_schema(table));
        let batches = self.insert_bodies.read(format, request.body, types).await?;
        let batches = columns.apply(batches, schema.as_deref())?;
        Ok(self.ingest.append(append, admitted.until_shutdown(batches)).await?)
    }

    /// Returns the schema of the table that a stream is appended to, if there is one.
    async fn schema_of(&self, table: &str, if_exists: IfExists, caller: Caller) -> Result<Option<SchemaRef>> {
        if if_exists != IfExists::Append {
            return Ok(None);
        }
        match self.query.table(table.to_owned(), caller).await {
            Ok(info) => Ok(Some(info.schema)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Parses an option of the query, or returns its default.
fn option<T: FromStr<Err = Error> + Default>(request: &HttpRequest, name: &str) -> Result<T> {
    let text = request.query.get(name);
    text.map_or_else(|| Ok(T::default()), |text| text.parse())
        .map_err(|error| Error::invalid(format!("{name}: {}", error.message())))
}
