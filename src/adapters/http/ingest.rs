//! Routes whose bodies are data: ingestion, and reads over a stream of the caller's own.

use crate::adapters::http::decode::{BodyFormat, Columns, batches};
use crate::adapters::http::handlers::{Handlers, answer, failed, presented, set};
use crate::adapters::http::incoming::{Failure, Incoming};
use crate::adapters::http::wire::{
    ARROW_STREAM, BATCHES, BYTES, FORMAT, IF_EXISTS, IF_MISSING, TABLE_CREATED, content_type, query_from_headers,
};
use crate::adapters::serving::AdmittedRequest as Admitted;
use crate::ports::{Append, Caller, Error, IfExists, IngestSummary, Result};
use arrow::datatypes::SchemaRef;
use http::{Method, StatusCode};
use serde_json::json;
use std::str::FromStr;
use warp::reply::Response;

impl Handlers {
    /// `POST /insert/{format}?table=`
    pub async fn insert(&self, format: &str, incoming: Incoming) -> Response {
        let Some(format) = BodyFormat::named(format) else { return self.unknown(incoming).await };
        if incoming.method != Method::POST {
            return self.refuse(&incoming, Failure::method("POST"));
        }
        let mut admitted = match self.admit(&incoming) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        match self.append(format, incoming, &admitted).await {
            Ok(summary) => {
                admitted.sent(summary.rows, summary.bytes);
                let is_arrow = format == BodyFormat::Arrow;
                let mut response = answer(Ok(json!({"inserted": summary.rows, "failed": 0})), &mut admitted);
                set(response.headers_mut(), FORMAT, if is_arrow { "arrow-stream" } else { format_name(format) });
                set(response.headers_mut(), BATCHES, &summary.batches.to_string());
                set(response.headers_mut(), BYTES, &summary.bytes.to_string());
                set(response.headers_mut(), TABLE_CREATED, &summary.table_created.to_string());
                response
            }
            Err(failure) => failed(failure, &mut admitted),
        }
    }

    async fn append(
        &self,
        format: BodyFormat,
        incoming: Incoming,
        admitted: &Admitted,
    ) -> Result<IngestSummary, Failure> {
        check_media_type(format, &incoming)?;
        let names = ["table", "table_name"].iter().find_map(|name| incoming.query.get(*name));
        let table = names.cloned().ok_or_else(|| Error::invalid("?table= says which table to insert into"))?;
        let caller = Caller { request_id: admitted.id().to_owned() };
        let (if_missing, if_exists) = (chosen(&incoming, IF_MISSING)?, chosen(&incoming, IF_EXISTS)?);
        let columns = Columns::of(&incoming.query)?;
        // Arrow has its types, and needs nobody to tell them.
        let schema = match format {
            BodyFormat::Arrow if columns.is_empty() => None,
            _ => self.schema_of(&table, if_exists).await?,
        };
        let types = schema.as_deref().filter(|_| format != BodyFormat::Arrow).map(|table| columns.of_body(table));
        let batches = batches(format, incoming.body, types, &self.options.limits).await?;
        let batches = columns.applied(batches, schema.as_deref())?;
        let request = Append { table, if_missing, if_exists, caller };
        Ok(self.ingest.append(request, admitted.until_shutdown(batches)).await?)
    }

    /// The schema of the table that a stream is appended to, if there is one.
    async fn schema_of(&self, table: &str, if_exists: IfExists) -> Result<Option<SchemaRef>> {
        if if_exists != IfExists::Append {
            return Ok(None);
        }
        let tables = self.query.tables().await?;
        Ok(tables.into_iter().find(|info| info.name == table).map(|info| info.schema))
    }

    /// `POST /exchange?query=`: a read that sees the body as the table `input`.
    pub async fn exchange(&self, incoming: Incoming) -> Response {
        if incoming.method != Method::POST {
            return self.refuse(&incoming, Failure::method("POST"));
        }
        let mut admitted = match self.admit(&incoming) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        let reply = async {
            let sql = incoming.query.get("query").cloned();
            let sql = sql.ok_or_else(|| Error::invalid("?query= says what to ask of the body, as the table input"))?;
            admitted.statement(&sql);
            let (style, presentation) = self.style(&incoming, None)?;
            let query = query_from_headers(sql, &incoming.headers, admitted.id())?;
            check_media_type(BodyFormat::Arrow, &incoming)?;
            let input = batches(BodyFormat::Arrow, incoming.body, None, &self.options.limits).await?;
            let input = admitted.until_shutdown(input);
            let reply = admitted.or_shutdown(self.query.exchange(query, input)).await?;
            Ok((admitted.or_shutdown(presented(reply, &presentation)).await?, style))
        };
        let reply = reply.await;
        self.stream(reply, admitted)
    }
}

/// What the query says of a table that may or may not be there.
fn chosen<T: FromStr<Err = Error> + Default>(incoming: &Incoming, name: &str) -> Result<T> {
    let text = incoming.query.get(name);
    text.map_or_else(|| Ok(T::default()), |text| text.parse())
        .map_err(|error| Error::invalid(format!("{name}: {}", error.message())))
}

fn format_name(format: BodyFormat) -> &'static str {
    BodyFormat::ALL.into_iter().find(|(_, known)| *known == format).map_or("", |(name, _)| name)
}

/// Refuses a body that says of itself that it is something else. What curl says unasked counts as nothing.
fn check_media_type(format: BodyFormat, incoming: &Incoming) -> Result<(), Failure> {
    let given = content_type(&incoming.headers);
    let says_nothing = matches!(given.as_str(), "" | "application/octet-stream" | "application/x-www-form-urlencoded");
    let others = BodyFormat::ALL.iter().filter(|(_, other)| *other != format).map(|(_, other)| other.media_type());
    let is_other = others.into_iter().any(|other| given == other.split(';').next().unwrap_or_default());
    if says_nothing || !(is_other || format == BodyFormat::Arrow && given != ARROW_STREAM) {
        return Ok(());
    }
    let message = format!("the body is to be {}, and says that it is {given}", format.media_type());
    Err(Failure::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message))
}
