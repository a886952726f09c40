//! Routes whose bodies are data: ingestion, and reads over a stream of the caller's own.

use crate::adapters::gate::Request as Admitted;
use crate::adapters::http::handlers::{Handlers, answer, failed, set};
use crate::adapters::http::incoming::{Body, Failure, Incoming};
use crate::adapters::http::wire::{
    ARROW_STREAM, BATCHES, BYTES, IF_EXISTS, IF_MISSING, TABLE_CREATED, content_type, query_from_headers,
};
use crate::adapters::ipc::{DecodeLimits, Deframer};
use crate::ports::{Append, BatchStream, Caller, Error, IngestSummary, Limits, Result};
use arrow::array::RecordBatch;
use futures::stream::{self, StreamExt};
use http::{Method, StatusCode};
use serde_json::json;
use std::str::FromStr;
use warp::reply::Response;

impl Handlers {
    /// `POST /insert/arrow?table=`
    pub async fn insert(&self, incoming: Incoming) -> Response {
        if incoming.method != Method::POST {
            return self.refuse(&incoming, Failure::method("POST"));
        }
        let mut admitted = match self.admit(&incoming) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        match self.append(incoming, &admitted).await {
            Ok(summary) => {
                admitted.sent(summary.rows, summary.bytes);
                let mut response = answer(Ok(json!({"inserted": summary.rows, "failed": 0})), &mut admitted);
                set(response.headers_mut(), BATCHES, &summary.batches.to_string());
                set(response.headers_mut(), BYTES, &summary.bytes.to_string());
                set(response.headers_mut(), TABLE_CREATED, &summary.table_created.to_string());
                response
            }
            Err(failure) => failed(failure, &mut admitted),
        }
    }

    async fn append(&self, incoming: Incoming, admitted: &Admitted) -> Result<IngestSummary, Failure> {
        let names = ["table", "table_name"].iter().find_map(|name| incoming.query.get(*name));
        let table = names.cloned().ok_or_else(|| Error::invalid("?table= says which table to insert into"))?;
        let caller = Caller { request_id: admitted.id().to_owned() };
        let (if_missing, if_exists) = (chosen(&incoming, IF_MISSING)?, chosen(&incoming, IF_EXISTS)?);
        let batches = arrow_body(incoming, &self.options.limits).await?;
        let request = Append { table, if_missing, if_exists, caller };
        Ok(self.ingest.append(request, admitted.until_cut(batches)).await?)
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
            let style = self.style(&incoming)?;
            let query = query_from_headers(sql, &incoming.headers, admitted.id())?;
            let input = admitted.until_cut(arrow_body(incoming, &self.options.limits).await?);
            let reply = admitted.unless_cut(self.query.exchange(query, input)).await?;
            Ok((reply, style))
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

/// The batches of an Arrow body. Its schema has come when this returns.
async fn arrow_body(incoming: Incoming, limits: &Limits) -> Result<BatchStream, Failure> {
    let media_type = content_type(&incoming.headers);
    if !matches!(
        media_type.as_str(),
        "" | ARROW_STREAM | "application/octet-stream" | "application/x-www-form-urlencoded"
    ) {
        let message = format!("the body is an Arrow IPC stream ({ARROW_STREAM}), not {media_type}");
        return Err(Failure::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
    }
    let mut reading = Reading { body: incoming.body, deframer: Deframer::new(DecodeLimits::from(limits)) };
    let mut first = None;
    while reading.deframer.schema().is_none() {
        let Some(piece) = reading.body.next().await else { break };
        reading.deframer.push(piece?);
        first = reading.deframer.next_batch()?;
    }
    let Some(schema) = reading.deframer.schema() else {
        return Err(reading
            .deframer
            .finish()
            .map_or_else(Failure::from, |()| Error::invalid("the body is empty").into()));
    };
    let batches = stream::unfold((Some(reading), first), |(reading, first)| async move {
        let mut reading = reading?;
        if let Some(batch) = first {
            return Some((Ok(batch), (Some(reading), None)));
        }
        let next = reading.next_batch().await.transpose()?;
        let rest = next.is_ok().then_some(reading);
        Some((next, (rest, None)))
    });
    Ok(BatchStream::new(schema, batches))
}

struct Reading {
    body: Body,
    deframer: Deframer,
}

impl Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.deframer.next_batch()? {
                return Ok(Some(batch));
            }
            match self.body.next().await {
                Some(piece) => self.deframer.push(piece.map_err(Failure::into_error)?),
                None => return self.deframer.finish().map(|()| None),
            }
        }
    }
}
