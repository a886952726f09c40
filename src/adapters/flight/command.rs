//! Decodes tickets, commands and descriptors.
//!
//! The bytes are a handle of this server, else a Flight SQL message, else SQL text. They are Flight SQL only if they
//! decode as an `Any` with a type URL of Flight SQL: some SQL text is well-formed protobuf.

use crate::adapters::flight::ticket::{HANDLE_MARK, Handle};
use crate::adapters::serving::numbered_put::{OPTIONS, options_of, with_options};
use crate::ports::{Append, Error, IfExists, IfMissing, Result};
use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Any, Command as SqlCommand, CommandStatementIngest, CommandStatementUpdate, ProstMessageExt,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;

/// Prefix of the type URLs of Flight SQL messages.
pub const FLIGHT_SQL_PREFIX: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// The only catalogue. The engine takes names of tables that are qualified with it and [`DB_SCHEMA`].
pub const CATALOG: &str = "zepto";
/// The only schema.
pub const DB_SCHEMA: &str = "public";

/// Our own options of a Flight SQL ingestion, for what its fields cannot express.
const SUMMARY: &str = "zepto.summary";
const IF_MISSING: &str = "zepto.if_missing";
const IF_EXISTS: &str = "zepto.if_exists";

/// Prefix of the options of a stream (`serving::numbered_put`) in a Flight SQL ingestion.
const OPTION_PREFIX: &str = "zepto.";

/// Prefix of a descriptor that asks for the progress of a query.
const POLL_MARK: &[u8] = b"\xffzepto\x02";

/// A decoded ticket or command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// SQL text.
    Text(String),
    /// A handle of this server.
    Handle(Box<Handle>),
    /// A Flight SQL message.
    Sql(Box<SqlCommand>),
    /// A query that was started by PollFlightInfo.
    Poll(u128),
}

impl Command {
    /// Decodes a ticket or command.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for bytes that are none of these, `Unsupported` for an unknown Flight SQL message.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(HANDLE_MARK) {
            return Handle::decode(bytes).map(|handle| Self::Handle(Box::new(handle)));
        }
        if let Some(id) = bytes.strip_prefix(POLL_MARK) {
            let id = id.try_into().map_err(|_| Error::invalid("the handle is not one of this server's"))?;
            return Ok(Self::Poll(u128::from_be_bytes(id)));
        }
        if let Some(any) = Any::decode(bytes).ok().filter(|any| any.type_url.starts_with(FLIGHT_SQL_PREFIX)) {
            return match SqlCommand::try_from(any) {
                Ok(SqlCommand::Unknown(any)) => Err(unknown_command(&any.type_url)),
                Ok(command) => Ok(Self::Sql(Box::new(command))),
                Err(error) => Err(Error::invalid(format!("the Flight SQL message does not decode: {error}"))),
            };
        }
        match std::str::from_utf8(bytes) {
            Ok(sql) => Ok(Self::Text(sql.to_owned())),
            Err(_) => Err(Error::invalid("the ticket or command is neither UTF-8 SQL nor a handle of this server")),
        }
    }

    /// Encodes a change as a Flight SQL command.
    pub fn encode_update(sql: &str) -> Bytes {
        CommandStatementUpdate { query: sql.to_owned(), transaction_id: None }.as_any().encode_to_vec().into()
    }

    /// Encodes an ingestion as a Flight SQL command that asks for the whole summary.
    pub fn encode_append(append: &Append) -> Bytes {
        let options = [
            (SUMMARY.to_owned(), "json".to_owned()),
            (IF_MISSING.to_owned(), append.if_missing.as_str().to_owned()),
            (IF_EXISTS.to_owned(), append.if_exists.as_str().to_owned()),
        ];
        let own = options_of(append).into_iter().map(|(name, value)| (format!("{OPTION_PREFIX}{name}"), value));
        let ingest = CommandStatementIngest {
            table: append.table.clone(),
            options: options.into_iter().chain(own).collect(),
            ..CommandStatementIngest::default()
        };
        ingest.as_any().encode_to_vec().into()
    }

    /// Encodes the command that asks for the progress of query `id`.
    pub fn encode_poll(id: u128) -> Bytes {
        [POLL_MARK, &id.to_be_bytes()].concat().into()
    }
}

/// Decodes a descriptor.
///
/// # Errors
///
/// `InvalidQuery` if it has neither a command nor a path, and as [`Command::decode`].
pub fn command_of(descriptor: &FlightDescriptor) -> Result<Command> {
    match descriptor.r#type() {
        DescriptorType::Cmd => Command::decode(&descriptor.cmd),
        DescriptorType::Path => Ok(Command::Text(select_all(&path_table(descriptor)?))),
        DescriptorType::Unknown => Err(no_descriptor()),
    }
}

fn no_descriptor() -> Error {
    Error::invalid("the descriptor is neither a command nor a path")
}

/// The target of a DoPut.
#[derive(Debug, Clone, PartialEq)]
pub enum PutTarget {
    /// A table; the answer is the summary as JSON.
    Table(Append),
    /// A table, in Flight SQL's form; the answer is the number of rows.
    Ingest(Append),
    /// None: the command is a change.
    Update(Box<Handle>),
    /// None: the command is a prepared change, and batches that follow are its parameters.
    Prepared(Box<Handle>),
    /// A prepared statement, whose parameters the batches are.
    Bind(Box<Handle>),
}

/// Decodes the descriptor of a DoPut.
///
/// # Errors
///
/// `InvalidQuery` if it has no target, `Unsupported` for parts of Flight SQL that this server does not have.
pub fn put_target(descriptor: &FlightDescriptor) -> Result<PutTarget> {
    let table = |table| PutTarget::Table(Append { table, ..Append::default() });
    let command = match descriptor.r#type() {
        DescriptorType::Path => return path_table(descriptor).map(table),
        DescriptorType::Unknown => return Err(no_descriptor()),
        DescriptorType::Cmd => Command::decode(&descriptor.cmd)?,
    };
    let command = match command {
        Command::Text(text) if text.starts_with('{') => return described_append(&text).map(PutTarget::Table),
        Command::Text(name) => return Ok(table(name)),
        Command::Handle(handle) => return Ok(PutTarget::Update(handle)),
        Command::Poll(_) => return Err(no_descriptor()),
        Command::Sql(command) => *command,
    };
    match command {
        SqlCommand::CommandStatementUpdate(update) => {
            no_transaction(update.transaction_id.as_ref())?;
            Ok(PutTarget::Update(Box::new(Handle { sql: update.query, may_change: true, ..Handle::default() })))
        }
        SqlCommand::CommandPreparedStatementUpdate(update) => {
            Ok(PutTarget::Prepared(Box::new(Handle::decode(&update.prepared_statement_handle)?)))
        }
        SqlCommand::CommandPreparedStatementQuery(query) => {
            Ok(PutTarget::Bind(Box::new(Handle::decode(&query.prepared_statement_handle)?)))
        }
        SqlCommand::CommandStatementIngest(ingest) if ingest.options.contains_key(SUMMARY) => {
            ingest_target(ingest).map(PutTarget::Table)
        }
        SqlCommand::CommandStatementIngest(ingest) => ingest_target(ingest).map(PutTarget::Ingest),
        other => Err(Error::invalid(format!("{} is not for DoPut", short_name(other.type_url())))),
    }
}

fn ingest_target(ingest: CommandStatementIngest) -> Result<Append> {
    no_transaction(ingest.transaction_id.as_ref())?;
    if ingest.temporary {
        return Err(Error::unsupported("there are no temporary tables; ingest into a table and drop it"));
    }
    let elsewhere =
        |name: &Option<String>, only: &str| name.as_ref().is_some_and(|name| !["", only].contains(&name.as_str()));
    if elsewhere(&ingest.catalog, CATALOG) || elsewhere(&ingest.schema, DB_SCHEMA) {
        return Err(Error::new(
            crate::ports::ErrorKind::NotFound,
            format!("there is one catalogue, {CATALOG:?}, with one schema, {DB_SCHEMA:?}"),
        ));
    }
    let TableDefinitionOptions { if_not_exist, if_exists } = ingest.table_definition_options.unwrap_or_default();
    let if_missing = match TableNotExistOption::try_from(if_not_exist) {
        _ if ingest.options.contains_key(IF_MISSING) => ingest.options[IF_MISSING].parse()?,
        Ok(TableNotExistOption::Create) => IfMissing::Create,
        Ok(TableNotExistOption::Fail) => IfMissing::Fail,
        _ => return Err(Error::invalid("the ingestion does not say what to do where the table does not exist")),
    };
    let if_exists = match TableExistsOption::try_from(if_exists) {
        _ if ingest.options.contains_key(IF_EXISTS) => ingest.options[IF_EXISTS].parse()?,
        Ok(TableExistsOption::Append) => IfExists::Append,
        Ok(TableExistsOption::Fail) => IfExists::Fail,
        Ok(TableExistsOption::Replace) => IfExists::Replace,
        _ => return Err(Error::invalid("the ingestion does not say what to do where the table exists")),
    };
    let append = Append { table: ingest.table, if_missing, if_exists, ..Append::default() };
    with_options(append, |name| ingest.options.get(&format!("{OPTION_PREFIX}{name}")).cloned())
}

/// Reads where a stream goes from a command in JSON: the table, and the options of a stream.
fn described_append(text: &str) -> Result<Append> {
    let fields: serde_json::Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("the command of the stream is not a JSON object: {error}")))?;
    let known = |name: &str| ["table", "if_missing", "if_exists"].contains(&name) || OPTIONS.contains(&name);
    if let Some(unknown) = fields.keys().find(|name| !known(name)) {
        return Err(Error::invalid(format!("the command of a stream has no {unknown:?}")));
    }
    let field = |name: &str| match fields.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let table = field("table").ok_or_else(|| Error::invalid("the command of the stream names no table"))?;
    let if_missing = field("if_missing").map_or(Ok(IfMissing::default()), |text| text.parse())?;
    let if_exists = field("if_exists").map_or(Ok(IfExists::default()), |text| text.parse())?;
    with_options(Append { table, if_missing, if_exists, ..Append::default() }, field)
}

/// Refuses a statement that is to be part of a transaction.
///
/// # Errors
///
/// `Unsupported`.
pub fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(Error::unsupported("there are no transactions; every statement is one")),
        _ => Ok(()),
    }
}

/// Returns the error for an unknown Flight SQL message.
pub fn unknown_command(type_url: &str) -> Error {
    let name: String = short_name(type_url).chars().take(80).collect();
    Error::unsupported(format!("the Flight SQL message {name} is not supported; send SQL text as ticket or command"))
}

/// Strips the common prefix from a type URL.
pub fn short_name(type_url: &str) -> &str {
    type_url.strip_prefix(FLIGHT_SQL_PREFIX).unwrap_or(type_url)
}

fn path_table(descriptor: &FlightDescriptor) -> Result<String> {
    match descriptor.path.as_slice() {
        [table] => Ok(table.clone()),
        path => Err(Error::invalid(format!("a path names one table, and this one has {} parts", path.len()))),
    }
}

/// Returns the SQL that reads all of a table.
pub fn select_all(table: &str) -> String {
    format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::command::{Command, PutTarget, put_target};
    use crate::adapters::flight::ticket::Handle;
    use crate::ports::{ErrorKind, IfExists, IfMissing};
    use arrow_flight::FlightDescriptor;
    use arrow_flight::sql::{CommandStatementIngest, ProstMessageExt, TableDefinitionOptions};
    use prost::Message as _;

    #[test]
    fn bytes_are_told_apart() {
        let handle = Handle { sql: "SELECT 1".into(), ..Handle::default() };
        let bytes = handle.encode().unwrap();
        assert_eq!(Command::decode(&bytes).unwrap(), Command::Handle(Box::new(handle)));
        assert_eq!(Command::decode(b"\n\x05hello").unwrap(), Command::Text("\n\u{5}hello".into()));
        assert_eq!(Command::decode(&Command::encode_poll(7)).unwrap(), Command::Poll(7));
        let update = FlightDescriptor::new_cmd(Command::encode_update("DELETE FROM t"));
        assert!(matches!(put_target(&update).unwrap(), PutTarget::Update(handle) if handle.sql == "DELETE FROM t"));
        for wrong in [b"\xff\xfe".as_slice(), b"\xffzepto\x01garbage", b"\xffzepto\x02short"] {
            assert_eq!(Command::decode(wrong).unwrap_err().kind(), ErrorKind::InvalidQuery);
        }
    }

    #[test]
    fn descriptors_without_a_target_are_refused() {
        let two = FlightDescriptor::new_path(vec!["a".into(), "b".into()]);
        for descriptor in [two, FlightDescriptor::default()] {
            assert_eq!(put_target(&descriptor).unwrap_err().kind(), ErrorKind::InvalidQuery);
        }
    }

    #[test]
    fn ingestions_say_what_they_want_or_are_refused() {
        let check =
            |ingest: CommandStatementIngest| put_target(&FlightDescriptor::new_cmd(ingest.as_any().encode_to_vec()));
        let options = |if_not_exist, if_exists| Some(TableDefinitionOptions { if_not_exist, if_exists });
        let ingest = CommandStatementIngest {
            table: "t".into(),
            table_definition_options: options(1, 3),
            schema: Some("public".into()),
            ..CommandStatementIngest::default()
        };
        let Ok(PutTarget::Ingest(append)) = check(ingest.clone()) else { panic!("it is an ingestion") };
        assert_eq!((append.if_missing, append.if_exists), (IfMissing::Create, IfExists::Replace));
        for (wrong, kind) in [
            (CommandStatementIngest { temporary: true, ..ingest.clone() }, ErrorKind::Unsupported),
            (CommandStatementIngest { transaction_id: Some("x".into()), ..ingest.clone() }, ErrorKind::Unsupported),
            (CommandStatementIngest { catalog: Some("other".into()), ..ingest.clone() }, ErrorKind::NotFound),
            (CommandStatementIngest { table_definition_options: options(0, 2), ..ingest }, ErrorKind::InvalidQuery),
        ] {
            assert_eq!(check(wrong).unwrap_err().kind(), kind);
        }
    }
}
