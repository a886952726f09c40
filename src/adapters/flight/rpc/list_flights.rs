//! ListFlights: lists the tables, all of them or those whose names match a pattern.

use crate::adapters::flight::call::{Items, RpcResult, admit, items, reply};
use crate::adapters::flight::command::select_all;
use crate::adapters::flight::state::State;
use crate::adapters::flight::wire::table_json;
use crate::adapters::ipc::encode_schema;
use crate::ports::{Caller, Error, ErrorKind, Result, TableInfo};
use arrow_flight::{Criteria, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use tonic::Request;

/// Longest pattern, and most `*` in one: matching tries every way.
const PATTERN_CHARS_MAX: usize = 256;
const PATTERN_STARS_MAX: usize = 4;

/// Answers a ListFlights.
pub async fn list_flights(state: &State, request: Request<Criteria>) -> RpcResult<Items<FlightInfo>> {
    let mut admitted = admit(state, "ListFlights", &request)?;
    let tables = matching_tables(state, &request.get_ref().expression, admitted.caller()).await;
    reply(&mut admitted, tables.map(|tables| items(tables.iter().map(table_info).collect())))
}

/// Describes a table. Its ticket is plain SQL, which never expires.
fn table_info(table: &TableInfo) -> FlightInfo {
    let mut info = FlightInfo::new()
        .with_descriptor(FlightDescriptor::new_path(vec![table.name.clone()]))
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(select_all(&table.name))))
        .with_total_records(or_unknown(table.rows))
        .with_total_bytes(or_unknown(table.bytes))
        .with_app_metadata(table_json(table))
        .with_ordered(true);
    info.schema = encode_schema(&table.schema);
    info
}

/// Returns a count as Flight has it: -1 is not known.
fn or_unknown(count: Option<u64>) -> i64 {
    count.and_then(|count| i64::try_from(count).ok()).unwrap_or(-1)
}

/// Returns whether a pattern matches one name only: itself.
pub fn is_plain(pattern: &str) -> bool {
    !pattern.is_empty() && !pattern.contains(['*', '?']) && pattern.chars().count() <= PATTERN_CHARS_MAX
}

/// Finds the tables whose names match `criteria`; all of them if that is empty.
async fn matching_tables(state: &State, criteria: &[u8], caller: Caller) -> Result<Vec<TableInfo>> {
    let pattern = std::str::from_utf8(criteria).map_err(|_| Error::invalid("the criteria are not UTF-8"))?;
    if !is_plain(pattern) {
        return filter_tables(state.query.tables(caller).await?, pattern);
    }
    match state.query.table(pattern.to_owned(), caller).await {
        Ok(table) => Ok(vec![table]),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn filter_tables(tables: Vec<TableInfo>, pattern: &str) -> Result<Vec<TableInfo>> {
    let pattern: Vec<char> = pattern.chars().collect();
    let stars = pattern.iter().filter(|sign| **sign == '*').count();
    if pattern.len() > PATTERN_CHARS_MAX || stars > PATTERN_STARS_MAX {
        return Err(Error::invalid("the criteria are too long, or have more than four *"));
    }
    let fits = |table: &TableInfo| matches(&pattern, &table.name.chars().collect::<Vec<_>>());
    Ok(tables.into_iter().filter(|table| pattern.is_empty() || fits(table)).collect())
}

/// Returns whether `name` as a whole matches a pattern of `*` and `?`.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        (Some(('?', rest)), Some((_, name))) => matches(rest, name),
        (Some((want, rest)), Some((have, name))) if want == have => matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::rpc::list_flights::matches;

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
