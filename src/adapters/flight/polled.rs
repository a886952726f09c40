//! PollFlightInfo: a long query runs by itself while its client asks how it is doing.
//!
//! The query is answered in parts, one after the other: each that is done is one more endpoint and so much more progress. A
//! client may read the first parts while the last are computed. A query that nobody asks about for as long as a ticket is
//! good is stopped and forgotten.

use crate::adapters::flight::command::{Command, command_of};
use crate::adapters::flight::handle::Handle;
use crate::adapters::flight::info::{Call, Count, expiry};
use crate::adapters::flight::recent::Recent;
use crate::adapters::flight::service::Service;
use crate::adapters::ipc::encode_schema;
use crate::ports::{Access, Error, ErrorKind, Limits, Part, Result, StatementKind};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Parts that a query is answered in.
const PARTS: u32 = 16;

/// How long one call waits for news.
const PATIENCE: Duration = Duration::from_millis(500);

/// Queries that may be under way this way at the same time.
const QUERIES_MAX: usize = 256;

/// All queries that were started by PollFlightInfo.
pub type Polled = Recent<Polling>;

/// How long a query goes on that nobody asks about, where tickets are good for ever.
const IDLE: Duration = Duration::from_secs(600);

/// None yet.
pub fn none(limits: &Limits) -> Polled {
    let ttl = if limits.ticket_ttl_ms == 0 { IDLE } else { limits.ticket_ttl() };
    Recent::new(ttl, QUERIES_MAX)
}

/// One query, for as long as it is asked about.
#[derive(Debug)]
pub struct Polling {
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a query is doing.
#[derive(Debug, Clone)]
enum State {
    /// So much is there, and it is so far.
    Running(FlightInfo, f64),
    Done(FlightInfo),
    Failed(Error),
}

impl Service {
    /// The answer to PollFlightInfo: starts a query, or tells how one is doing.
    pub(super) async fn poll(&self, descriptor: FlightDescriptor, call: Call) -> Result<PollInfo> {
        let (id, mut state) = match command_of(&descriptor)? {
            Command::Poll(id) => (id, self.polled.with(id, |polling| polling.state.clone()).ok_or_else(forgotten)?),
            _ => self.start(descriptor, call)?,
        };
        // News is more endpoints, or the end.
        let changed = tokio::time::timeout(PATIENCE, state.changed()).await;
        let now = state.borrow_and_update().clone();
        // What was told of a query is news no more.
        self.polled.with(id, |polling| polling.state = state);
        let state = match (changed, now) {
            (Ok(Err(_)), State::Running(..)) => State::Failed(Error::internal("the query stopped without an answer")),
            (_, now) => now,
        };
        let mut poll = PollInfo { expiration_time: expiry(&self.options.limits), ..PollInfo::default() };
        let command = Command::encode_poll(id);
        match state {
            State::Running(mut info, progress) => {
                info.app_metadata = command.clone();
                poll.info = Some(info);
                poll.progress = Some(progress);
                poll.flight_descriptor = Some(FlightDescriptor::new_cmd(command));
            }
            State::Done(info) => {
                self.polled.forget(id);
                poll.info = Some(info);
                poll.progress = Some(1.0);
            }
            State::Failed(error) => {
                self.polled.forget(id);
                return Err(error);
            }
        }
        Ok(poll)
    }

    fn start(&self, descriptor: FlightDescriptor, call: Call) -> Result<(u128, watch::Receiver<State>)> {
        let id = uuid::Uuid::new_v4().as_u128();
        let nothing = FlightInfo::new().with_descriptor(descriptor.clone()).with_ordered(true);
        let (sender, state) = watch::channel(State::Running(nothing.with_total_records(-1).with_total_bytes(-1), 0.0));
        // The time that a caller gives is one call's, and not the query's.
        let call = Call { timeout_ms: None, ..call };
        let service = self.clone();
        let task = tokio::spawn(async move {
            let last = match service.answer_in_parts(descriptor, &call, &sender).await {
                Ok(info) => State::Done(info),
                Err(error) => State::Failed(error),
            };
            sender.send_replace(last);
        });
        if !self.polled.keep(id, Polling { state: state.clone(), task }) {
            let full = format!("{QUERIES_MAX} queries are being polled already; send this one as a ticket");
            return Err(Error::limit(full));
        }
        // What is there already is no news.
        Ok((id, state))
    }

    async fn answer_in_parts(
        &self,
        descriptor: FlightDescriptor,
        call: &Call,
        sender: &watch::Sender<State>,
    ) -> Result<FlightInfo> {
        let handle = match command_of(&descriptor)? {
            Command::Text(sql) => call.of_raw(Handle { sql, ..Handle::default() }),
            Command::Handle(handle) => call.of_raw(*handle),
            Command::Poll(_) => return Err(Error::invalid("a poll is no query")),
            Command::Sql(command) => match self.statement_of(&command, call)? {
                Some(handle) => {
                    let described = self.query.describe(call.query(handle.clone(), Access::Change)).await?;
                    if described.kind != StatementKind::Read {
                        return self.info(descriptor, call).await;
                    }
                    handle
                }
                None => return self.info(descriptor, call).await,
            },
        };
        let snapshot = match handle.snapshot {
            Some(pinned) => Some(pinned),
            None => Some(self.query.snapshot().await?),
        };
        let query_id = Some(uuid::Uuid::new_v4().as_u128());
        let handle = Handle { snapshot, query_id, change: false, ..handle };
        let mut info = FlightInfo::new().with_descriptor(descriptor).with_total_bytes(-1).with_ordered(true);
        let mut total = 0;
        for index in 0..PARTS {
            let part = Some(Part::new(index, PARTS)?);
            let (schema, handle, rows) = self.endpoint(Handle { part, ..handle.clone() }, call, Count::Exact).await?;
            let rows = rows.unwrap_or(0);
            total += rows;
            info.schema = encode_schema(&schema);
            // What cannot be divided leaves nothing for the other parts.
            if rows > 0 || (index + 1 == PARTS && info.endpoint.is_empty()) {
                info = info.with_endpoint(self.endpoint_of(&handle)?);
            }
            let progress = f64::from(index + 1) / f64::from(PARTS);
            sender.send_replace(State::Running(info.clone().with_total_records(-1), progress));
        }
        Ok(info.with_total_records(i64::try_from(total).unwrap_or(-1)))
    }
}

fn forgotten() -> Error {
    Error::new(ErrorKind::NotFound, "the query is not known here any more; start it again")
}
