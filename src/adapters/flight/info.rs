//! GetFlightInfo, GetSchema and ListFlights: what an answer will be, and the tickets for it.
//!
//! A raw command's count is exact, and where only running tells, the query runs here, once. A Flight SQL client's count is
//! what is known without running, because drivers wait for this answer before they read anything. A change that a driver
//! sends as a query is made here, once, and its ticket stands for an answer without columns.

use crate::adapters::flight::columns::described;
use crate::adapters::flight::command::{Command, command_of, no_transaction, select_all};
use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::service::Service;
use crate::adapters::flight::{metadata, put};
use crate::adapters::ipc::{Presentation, Strings, encode_schema};
use crate::ports::{Access, Caller, Error, Limits, Part, Query, Result, StatementKind, TableInfo};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::Command as SqlCommand;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use prost::Message as _;
use prost_types::Timestamp;
use std::sync::Arc;
use std::time::SystemTime;

/// What a call says beside its request.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Its id.
    pub request_id: String,
    /// Time until its deadline.
    pub timeout_ms: Option<u64>,
    /// How it wants columns.
    pub presentation: Presentation,
    /// How many endpoints it wants.
    pub endpoints: u32,
}

/// What to do about a count that only running tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// Run.
    Exact,
    /// Do without.
    IfKnown,
}

impl Call {
    /// The query of a handle, as this call asks for it.
    pub fn query(&self, handle: Handle, access: Access) -> Query {
        let caller = Caller { request_id: self.request_id.clone() };
        Query { timeout_ms: self.timeout_ms, caller, ..handle.into_query(access) }
    }

    /// A handle of a Flight SQL client: plain strings, unless it asks otherwise, and columns that say their types.
    pub fn of_driver(&self, handle: Handle) -> Handle {
        let presentation = self.presentation.clone().or(&Presentation::of_strings(Strings::Plain));
        Handle { described: true, presentation: handle.presentation.or(Some(presentation)), ..handle }
    }

    /// A handle of a client that speaks no Flight SQL: its columns as they lie, unless it asks otherwise.
    pub fn of_raw(&self, handle: Handle) -> Handle {
        Handle { presentation: handle.presentation.or_else(|| Some(self.presentation.clone())), ..handle }
    }
}

impl Handle {
    /// The schema under which an answer of `schema` leaves.
    pub fn schema_of(&self, schema: &Schema) -> SchemaRef {
        let presented = self.presentation.as_ref().map_or_else(|| schema.clone(), |made| made.schema(schema));
        Arc::new(if self.described { described(&presented) } else { presented })
    }
}

impl Service {
    /// The answer to GetFlightInfo.
    pub(super) async fn info(&self, descriptor: FlightDescriptor, call: &Call) -> Result<FlightInfo> {
        match command_of(&descriptor)? {
            Command::Text(sql) => {
                let handle = call.of_raw(Handle { sql, ..Handle::default() });
                self.read_info(descriptor, handle, call, Count::Exact).await
            }
            Command::Handle(handle) => self.read_info(descriptor, call.of_raw(*handle), call, Count::Exact).await,
            Command::Poll(_) => Err(Error::invalid("this descriptor is for PollFlightInfo")),
            Command::Sql(command) => match self.statement_of(&command, call)? {
                Some(handle) => self.statement_info(descriptor, handle, call).await,
                None => self.metadata_info(descriptor, &command, call).await,
            },
        }
    }

    /// The answer to GetSchema; runs nothing.
    pub(super) async fn schema(&self, descriptor: &FlightDescriptor, call: &Call) -> Result<SchemaRef> {
        let (handle, access) = match command_of(descriptor)? {
            Command::Text(sql) => (call.of_raw(Handle { sql, ..Handle::default() }), Access::Read),
            Command::Handle(handle) => (call.of_raw(*handle), Access::Read),
            Command::Poll(_) => return Err(Error::invalid("this descriptor is for PollFlightInfo")),
            Command::Sql(command) => match self.statement_of(&command, call)? {
                Some(handle) => (handle, Access::Change),
                None => return metadata::schema(&command),
            },
        };
        let described = self.query.describe(call.query(handle.clone(), access)).await?;
        Ok(match described.kind {
            StatementKind::Read => handle.schema_of(&described.schema),
            StatementKind::Change | StatementKind::Definition => Arc::new(Schema::empty()),
        })
    }

    /// Schema, count and tickets of a read, in as many endpoints as its caller wants.
    async fn read_info(
        &self,
        descriptor: FlightDescriptor,
        handle: Handle,
        call: &Call,
        count: Count,
    ) -> Result<FlightInfo> {
        let snapshot = match handle.snapshot {
            Some(pinned) => pinned,
            None => self.query.snapshot().await?,
        };
        let query_id = Some(uuid::Uuid::new_v4().as_u128());
        let handle = Handle { snapshot: Some(snapshot), query_id, change: false, ..handle };
        let mut info = FlightInfo::new().with_descriptor(descriptor).with_total_bytes(-1).with_ordered(true);
        let mut total = Some(0);
        let endpoints = call.endpoints.max(1);
        let bytes = (handle.encode()?.len() as u64).saturating_mul(u64::from(endpoints));
        if bytes > self.options.limits.message_bytes_max {
            return Err(Error::limit(format!(
                "{endpoints} tickets would take {bytes} bytes, more than {} (message_bytes_max); ask for fewer endpoints",
                self.options.limits.message_bytes_max
            )));
        }
        for index in 0..endpoints {
            let part = if endpoints > 1 { Some(Part::new(index, endpoints)?) } else { handle.part };
            let (schema, handle, rows) = self.endpoint(Handle { part, ..handle.clone() }, call, count).await?;
            info.schema = encode_schema(&schema);
            info = info.with_endpoint(self.endpoint_of(&handle)?);
            total = total.zip(rows).map(|(total, rows)| total + rows);
        }
        Ok(info.with_total_records(total.and_then(|total| i64::try_from(total).ok()).unwrap_or(-1)))
    }

    /// The schema of one endpoint, what stands for it until its ticket comes back, and its rows.
    pub(super) async fn endpoint(
        &self,
        handle: Handle,
        call: &Call,
        count: Count,
    ) -> Result<(SchemaRef, Handle, Option<u64>)> {
        let query = call.query(handle.clone(), Access::Read);
        let described = self.query.describe(query.clone()).await?;
        let schema = handle.schema_of(&described.schema);
        if described.rows.is_some() || count == Count::IfKnown {
            return Ok((schema, handle, described.rows));
        }
        // The count is part of the answer, so the query runs, once: its ticket stands for what it found.
        let reply = self.query.query(query).await?;
        let (held, rows) = self.results.hold(reply.batches).await?;
        let Handle { described, presentation, query_id, .. } = handle;
        let handle = Handle { held: Some(held), described, presentation, query_id, ..Handle::default() };
        Ok((schema, handle, Some(rows)))
    }

    /// The endpoint of a handle that is good for a while, and may be redeemed as often as one likes.
    pub(super) fn endpoint_of(&self, handle: &Handle) -> Result<FlightEndpoint> {
        let mut endpoint = FlightEndpoint::new().with_ticket(Ticket::new(handle.encode()?));
        endpoint.expiration_time = expiry(&self.options.limits);
        Ok(endpoint)
    }

    /// A statement of a Flight SQL client, which may be anything.
    async fn statement_info(&self, descriptor: FlightDescriptor, handle: Handle, call: &Call) -> Result<FlightInfo> {
        let described = self.query.describe(call.query(handle.clone(), Access::Change)).await?;
        if described.kind == StatementKind::Read {
            return self.read_info(descriptor, handle, call, Count::IfKnown).await;
        }
        let reply = self.query.query(call.query(handle, Access::Change)).await?;
        let changed = put::count_of(reply).await?;
        let done = Handle { done: true, ..Handle::default() };
        let mut info = FlightInfo::new()
            .with_descriptor(descriptor)
            .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(done.encode()?)))
            .with_total_records(changed)
            .with_total_bytes(-1);
        info.schema = encode_schema(&Schema::empty());
        Ok(info)
    }

    /// A question about the catalogue. Its ticket is the question itself.
    async fn metadata_info(
        &self,
        descriptor: FlightDescriptor,
        command: &SqlCommand,
        call: &Call,
    ) -> Result<FlightInfo> {
        let answer = self.metadata(command, call).await?;
        let ticket = Ticket::new(command.clone().into_any().encode_to_vec());
        let mut info = FlightInfo::new()
            .with_descriptor(descriptor)
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_total_records(i64::try_from(answer.num_rows()).unwrap_or(-1))
            .with_total_bytes(-1);
        info.schema = encode_schema(answer.schema_ref());
        Ok(info)
    }

    /// The statement behind a Flight SQL message; none where it asks for something else.
    pub(super) fn statement_of(&self, command: &SqlCommand, call: &Call) -> Result<Option<Handle>> {
        let handle = match command {
            SqlCommand::CommandStatementQuery(query) => {
                no_transaction(query.transaction_id.as_ref())?;
                Handle { sql: query.query.clone(), change: true, ..Handle::default() }
            }
            SqlCommand::CommandPreparedStatementQuery(query) => {
                self.bound.recall(Handle::decode(&query.prepared_statement_handle)?)
            }
            SqlCommand::TicketStatementQuery(ticket) => Handle::decode(&ticket.statement_handle)?,
            _ => return Ok(None),
        };
        Ok(Some(call.of_driver(handle)))
    }

    /// The answer to a question about the catalogue.
    pub(super) async fn metadata(&self, command: &SqlCommand, call: &Call) -> Result<RecordBatch> {
        let tables = if metadata::asks_for_tables(command) { self.query.tables().await? } else { Vec::new() };
        let presentation = call.presentation.clone().or(&Presentation::of_strings(Strings::Plain));
        metadata::answer(command, &tables, &self.options, &presentation)
    }
}

/// The instant at which a ticket that is made now and never used expires, if it does.
#[expect(clippy::disallowed_methods, reason = "clients compare this instant with their own clock")]
pub(super) fn expiry(limits: &Limits) -> Option<Timestamp> {
    SystemTime::now().checked_add(limits.ticket_ttl()).map(Timestamp::from)
}

/// A table as ListFlights lists it. Its ticket is plain SQL: it works on any later day.
pub(super) fn table_info(table: &TableInfo) -> FlightInfo {
    let mut info = FlightInfo::new()
        .with_descriptor(FlightDescriptor::new_path(vec![table.name.clone()]))
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(select_all(&table.name))))
        .with_total_records(i64::try_from(table.rows).unwrap_or(-1))
        .with_total_bytes(i64::try_from(table.bytes).unwrap_or(-1))
        .with_ordered(true);
    info.schema = encode_schema(&table.schema);
    info
}

/// Whether `name` matches a pattern of `*` and `?`.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        (Some(('?', rest)), Some((_, name))) => matches(rest, name),
        (Some((want, rest)), Some((have, name))) if want == have => matches(rest, name),
        _ => false,
    }
}

/// Longest pattern, and most `*` in one: matching tries every way.
const PATTERN_CHARS_MAX: usize = 256;
const PATTERN_STARS_MAX: usize = 4;

/// The tables that ListFlights is asked for; all of them where nothing is.
pub(super) fn chosen(tables: Vec<TableInfo>, criteria: &[u8]) -> Result<Vec<TableInfo>> {
    let pattern = std::str::from_utf8(criteria).map_err(|_| Error::invalid("the criteria are not UTF-8"))?;
    let pattern: Vec<char> = pattern.chars().collect();
    let stars = pattern.iter().filter(|sign| **sign == '*').count();
    if pattern.len() > PATTERN_CHARS_MAX || stars > PATTERN_STARS_MAX {
        return Err(Error::invalid("the criteria are too long, or have more than four *"));
    }
    let fits = |table: &TableInfo| matches(&pattern, &table.name.chars().collect::<Vec<_>>());
    Ok(tables.into_iter().filter(|table| pattern.is_empty() || fits(table)).collect())
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::info::matches;

    #[test]
    fn patterns_match_whole_names() {
        let check = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name) in
            [("trades", "trades"), ("t*", "trades"), ("*des", "trades"), ("tr?de*", "trades"), ("*", "")]
        {
            assert!(check(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("trade", "trades"), ("?", ""), ("t*x", "trades"), ("", "t")] {
            assert!(!check(pattern, name), "{pattern} {name}");
        }
    }
}
