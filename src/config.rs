//! Settings: a TOML file, the environment, flags – the last one wins – and where each value came from.
//!
//! There is one list of settings, [`Settings`], and one parser for all three sources: what the file says becomes the
//! default of the flag of the same name, so a value is checked the same way wherever it stands. Defaults of limits are
//! [`Limits::DEFAULT`]'s, except for the two that are fitted to the machine's memory.

use crate::ports::Limits;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

/// A protocol that the server can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Arrow Flight over gRPC.
    Flight,
    /// HTTP/1.1.
    Http,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Serves live time-series tables as Arrow, over Flight and HTTP.
#[derive(Debug, Clone, Parser)]
#[command(name = "zepto_flight_server", version, disable_help_subcommand = true)]
pub struct Settings {
    /// TOML file with settings: the long flags' names with _ for -
    #[arg(long, value_name = "FILE", env = "ZEPTO_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the settings in force and where each came from, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Address that Flight listens on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", env = "ZEPTO_FLIGHT_HOST")]
    pub flight_host: IpAddr,
    /// Port of Flight; 0 takes a free one
    #[arg(long, alias = "port", value_name = "PORT", default_value_t = 8815, env = "ZEPTO_FLIGHT_PORT")]
    pub flight_port: u16,
    /// Address that HTTP listens on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", env = "ZEPTO_HTTP_HOST")]
    pub http_host: IpAddr,
    /// Port of HTTP; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8123, env = "ZEPTO_HTTP_PORT")]
    pub http_port: u16,
    /// Protocols to serve, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "flight,http", env = "ZEPTO_PROTOCOLS")]
    pub protocols: Vec<Protocol>,
    /// What answers: memory:, stub:, grpc://HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "URL", default_value = "memory:", env = "ZEPTO_BACKEND")]
    pub backend: String,
    /// Rows of sample data in a table called trades; 0 makes no such table
    #[arg(long, short = 'n', value_name = "ROWS", default_value_t = 0, env = "ZEPTO_TICKS")]
    pub ticks: u64,
    /// Let a stream into an unknown table make that table
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, env = "ZEPTO_CREATE_TABLES")]
    pub create_tables: bool,
    /// Let Flight listen beyond this machine without TLS and without accounts
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, env = "ZEPTO_ALLOW_INSECURE_FLIGHT")]
    pub allow_insecure_flight: bool,
    /// Let HTTP listen beyond this machine without TLS and without accounts
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, env = "ZEPTO_ALLOW_PLAINTEXT_HTTP")]
    pub allow_plaintext_http: bool,
    /// Host names that HTTP answers to beside localhost and addresses, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "",
        hide_default_value = true,
        env = "ZEPTO_HTTP_ALLOWED_HOSTS"
    )]
    pub http_allowed_hosts: Vec<String>,
    /// Origins of web pages that may ask over HTTP, such as `https://desk.example`, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "",
        hide_default_value = true,
        env = "ZEPTO_HTTP_ALLOW_ORIGINS"
    )]
    pub http_allow_origins: Vec<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "ZEPTO_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,zepto_flight=debug
    #[arg(long, value_name = "FILTER", default_value = "info", env = "ZEPTO_LOG_LEVEL")]
    pub log_level: String,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitSettings,
}

macro_rules! limit_settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $env:literal,)+) => {
        /// A flag for each field of [`Limits`].
        #[derive(Debug, Clone, Args)]
        #[command(next_help_heading = "Limits")]
        pub struct LimitSettings {
            $($(#[doc = $doc])+ #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.$name, env = $env)] pub $name: u64,)+
        }

        impl From<&LimitSettings> for Limits {
            fn from(settings: &LimitSettings) -> Self {
                Self { $($name: settings.$name,)+ }
            }
        }
    };
}

limit_settings! {
    /// Bytes of all tables, ingestion and snapshots together [default: 60 % of the machine's memory]
    memory_bytes_max: "ZEPTO_MEMORY_BYTES_MAX",
    /// Bytes that running queries hold to sort, join and group [default: 20 % of the machine's memory]
    query_memory_bytes_max: "ZEPTO_QUERY_MEMORY_BYTES_MAX",
    /// Queries running at the same time
    query_concurrency_max: "ZEPTO_QUERY_CONCURRENCY_MAX",
    /// Milliseconds that one query may compute; 0: no limit
    query_timeout_ms: "ZEPTO_QUERY_TIMEOUT_MS",
    /// Milliseconds that a query waits for a client that does not read; 0: no limit
    stall_timeout_ms: "ZEPTO_STALL_TIMEOUT_MS",
    /// Bytes of one statement
    sql_bytes_max: "ZEPTO_SQL_BYTES_MAX",
    /// Operators and set operations in one statement
    sql_operators_max: "ZEPTO_SQL_OPERATORS_MAX",
    /// Levels of nesting in one statement
    sql_depth_max: "ZEPTO_SQL_DEPTH_MAX",
    /// Relations that one statement reads where all of it is written out
    plan_nodes_max: "ZEPTO_PLAN_NODES_MAX",
    /// Terms of one statement's expressions where all of it is written out
    plan_expressions_max: "ZEPTO_PLAN_EXPRESSIONS_MAX",
    /// Plans kept for statements that are asked again
    plans_max: "ZEPTO_PLANS_MAX",
    /// Rows of one ingested stream
    stream_rows_max: "ZEPTO_STREAM_ROWS_MAX",
    /// Bytes of one ingested stream
    stream_bytes_max: "ZEPTO_STREAM_BYTES_MAX",
    /// Bytes that all streams stage before only the oldest is read on
    staged_bytes_max: "ZEPTO_STAGED_BYTES_MAX",
    /// Bytes of one received message
    message_bytes_max: "ZEPTO_MESSAGE_BYTES_MAX",
    /// Bytes of one received message after decompression
    inflated_bytes_max: "ZEPTO_INFLATED_BYTES_MAX",
    /// Bytes of one sent message, unless a single row has more
    message_bytes_target: "ZEPTO_MESSAGE_BYTES_TARGET",
    /// Bytes of a request's headers
    header_bytes_max: "ZEPTO_HEADER_BYTES_MAX",
    /// Milliseconds for a request's headers to arrive over HTTP; 0: no limit
    header_timeout_ms: "ZEPTO_HEADER_TIMEOUT_MS",
    /// Milliseconds between two pieces of a request's body over HTTP; 0: no limit
    body_timeout_ms: "ZEPTO_BODY_TIMEOUT_MS",
    /// Open connections of each protocol; more wait
    connections_max: "ZEPTO_CONNECTIONS_MAX",
    /// Tables
    tables_max: "ZEPTO_TABLES_MAX",
    /// Columns of one table
    columns_max: "ZEPTO_COLUMNS_MAX",
    /// Snapshots pinned at the same time
    snapshots_max: "ZEPTO_SNAPSHOTS_MAX",
    /// Milliseconds that a ticket is good for after its last use
    ticket_ttl_ms: "ZEPTO_TICKET_TTL_MS",
    /// Bytes of memory for results that wait for their tickets
    held_bytes_max: "ZEPTO_HELD_BYTES_MAX",
    /// Bytes of disk for results that wait for their tickets
    spool_bytes_max: "ZEPTO_SPOOL_BYTES_MAX",
    /// Milliseconds given to running requests at a stop
    shutdown_grace_ms: "ZEPTO_SHUTDOWN_GRACE_MS",
}

/// Settings that are in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// Every setting's name, value, and where it came from.
    origins: Vec<(String, String, String)>,
}

/// Settings that only make sense where they are given.
const NOT_IN_FILE: [&str; 4] = ["config", "print_config", "help", "version"];

impl Config {
    /// Reads flags, environment and file.
    ///
    /// # Errors
    ///
    /// A message for the user, with clap's exit code: 2 for what is wrong, 0 for `--help` and `--version`.
    pub fn load(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let memory = machine_bytes().map(machine_limits);
        let command = fitted(Settings::command(), memory);
        let file = file_of(&command, &args)?;
        let (path, values) = match &file {
            Some(path) => (path.display().to_string(), read_file(&command, path)?),
            None => (String::new(), BTreeMap::new()),
        };
        let command = values.iter().fold(command, |command, (name, value)| {
            let value = value.clone();
            command.mut_arg(name, |arg| arg.default_value(value))
        });
        let matches = command.try_get_matches_from(args).map_err(|error| blame_file(error, &values, &path))?;
        let settings = Settings::from_arg_matches(&matches)?;
        settings.check()?;
        let origins = origins(&matches, &values, &path);
        Ok(Self { settings, origins })
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        Limits::from(&self.settings.limits)
    }

    /// What `--print-config` prints: TOML, with the origin of each value after it.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for (name, value, origin) in &self.origins {
            let _ = writeln!(out, "{name} = {value}  # {origin}");
        }
        out
    }
}

impl Settings {
    /// Addresses beyond this machine need an explicit word each.
    fn check(&self) -> Result<(), clap::Error> {
        let exposed = |protocol, host: IpAddr, allowed: bool| {
            self.protocols.contains(&protocol) && !host.is_loopback() && !allowed
        };
        let refuse = |what: &str, host: IpAddr, flag: &str| {
            let message = format!(
                "{what} would listen on {host} in the clear and without accounts; say {flag} if that is what you want\n"
            );
            Err(Self::command().error(clap::error::ErrorKind::ValueValidation, message))
        };
        if exposed(Protocol::Flight, self.flight_host, self.allow_insecure_flight) {
            return refuse("Flight", self.flight_host, "--allow-insecure-flight");
        }
        if exposed(Protocol::Http, self.http_host, self.allow_plaintext_http) {
            return refuse("HTTP", self.http_host, "--allow-plaintext-http");
        }
        Ok(())
    }
}

/// The command with defaults that fit the machine.
fn fitted(command: Command, limits: Option<[(&'static str, u64); 2]>) -> Command {
    limits.into_iter().flatten().fold(command, |command, (name, bytes)| {
        command.mut_arg(name, |arg| arg.default_value(bytes.to_string()).hide_default_value(true))
    })
}

fn machine_limits(bytes: u64) -> [(&'static str, u64); 2] {
    [("memory_bytes_max", bytes / 10 * 6), ("query_memory_bytes_max", bytes / 10 * 2)]
}

/// Memory that this process may have, where the system says: the machine's, or what its container is held to.
fn machine_bytes() -> Option<u64> {
    let held_to = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let held_to = held_to.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    // Without a limit there is the word `max`, or a number that no machine has.
    physical_bytes().into_iter().chain(held_to).min()
}

fn physical_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The settings file, by flag or environment. Everything else may still be wrong at this point.
fn file_of(command: &Command, args: &[OsString]) -> Result<Option<PathBuf>, clap::Error> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(args)?;
    Ok(matches.try_get_one::<PathBuf>("config").ok().flatten().cloned())
}

/// The values of a settings file as a user would write them after a flag.
fn read_file(command: &Command, path: &PathBuf) -> Result<BTreeMap<String, String>, clap::Error> {
    let refuse = |message: String| {
        command.clone().error(clap::error::ErrorKind::InvalidValue, format!("{}: {message}\n", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| refuse(error.message().to_owned()))?;
    let known = known_names(command);
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let name = key.replace('-', "_");
        if !known.contains(&name) {
            let close = nearest(&name, &known).map(|close| format!("; did you mean {close:?}?")).unwrap_or_default();
            return Err(refuse(format!("unknown key {key:?}{close}")));
        }
        let text = match &value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
            toml::Value::Table(_) => return Err(refuse(format!("{key:?} is not a section"))),
            other => other.to_string(),
        };
        values.insert(name, text);
    }
    Ok(values)
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn known_names(command: &Command) -> Vec<String> {
    let ids = command.get_arguments().map(|arg| arg.get_id().to_string());
    ids.filter(|name| !NOT_IN_FILE.contains(&name.as_str())).collect()
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let likeness = |known: &String| strsim::jaro_winkler(name, known);
    known.iter().filter(|known| likeness(known) > 0.7).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Says that a wrong value stands in the file, where it does.
fn blame_file(error: clap::Error, values: &BTreeMap<String, String>, path: &str) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let (Some(ContextValue::String(arg)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return error;
    };
    let flag = arg.split_whitespace().next().unwrap_or_default().trim_start_matches('-').replace('-', "_");
    if values.get(&flag) != Some(value) {
        return error;
    }
    let message = format!("{path}: {flag} can't be {value:?}\n");
    Settings::command().error(clap::error::ErrorKind::InvalidValue, message)
}

fn origins(matches: &ArgMatches, values: &BTreeMap<String, String>, path: &str) -> Vec<(String, String, String)> {
    let command = Settings::command();
    let names = known_names(&command);
    let origin = |name: &String| {
        let env = command.get_arguments().find(|arg| arg.get_id() == name.as_str()).and_then(|arg| arg.get_env());
        match matches.value_source(name) {
            Some(ValueSource::CommandLine) => "flag".to_owned(),
            Some(ValueSource::EnvVariable) => format!("environment, {}", env.unwrap_or_default().to_string_lossy()),
            _ if values.contains_key(name) => format!("file, {path}"),
            _ => "default".to_owned(),
        }
    };
    let shown = |name: &String| {
        let raw = matches.get_raw(name).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        let text = raw.collect::<Vec<_>>().join(",");
        let bare = text.parse::<u64>().is_ok() || text == "true" || text == "false";
        if bare { text } else { toml::Value::String(text).to_string() }
    };
    names.iter().map(|name| (name.clone(), shown(name), origin(name))).collect()
}

/// Environment variables that look like settings and are none, each with the name that was perhaps meant.
pub fn unknown_variables(variables: impl Iterator<Item = String>) -> Vec<(String, Option<String>)> {
    let command = Settings::command();
    let env = command.get_arguments().filter_map(|arg| arg.get_env());
    let known: Vec<String> = env.map(|name| name.to_string_lossy().into_owned()).collect();
    let ours = variables.filter(|name| name.starts_with("ZEPTO_") && !known.contains(name));
    ours.map(|name| (nearest(&name, &known).cloned(), name)).map(|(close, name)| (name, close)).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, LogFormat, Protocol, unknown_variables};
    use std::io::Write;

    fn load(args: &[&str]) -> Result<Config, clap::Error> {
        Config::load(["zepto_flight_server"].iter().chain(args))
    }

    fn refused(args: &[&str], words: &[&str]) {
        let error = load(args).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} in {error}");
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file =
            file("flight_port = 1\nhttp-port = 2\nprotocols = [\"http\"]\nlog_format = \"json\"\nsql_bytes_max = 7\n");
        let path = file.path().to_str().unwrap();
        let config = load(&["--config", path, "--port", "9"]).unwrap();
        assert_eq!((config.settings.flight_port, config.settings.http_port), (9, 2));
        assert_eq!(config.settings.protocols, [Protocol::Http]);
        assert_eq!(config.settings.log_format, LogFormat::Json);
        assert_eq!(config.limits().sql_bytes_max, 7);
        let printed = config.print();
        for line in ["flight_port = 9  # flag", &format!("http_port = 2  # file, {path}"), "ticks = 0  # default"] {
            assert!(printed.contains(line), "{line} in\n{printed}");
        }
    }

    #[test]
    fn what_is_unknown_is_refused_with_the_nearest_name() {
        refused(&["--flight-prt", "1"], &["--flight-port"]);
        refused(&["--protocols", "flight,htp"], &["htp", "http"]);
        refused(&["--ticks", "many"], &["many", "--ticks"]);
        let unknown = file("flight_prt = 1\n");
        refused(&["--config", unknown.path().to_str().unwrap()], &["flight_prt", "flight_port"]);
        let wrong = file("flight_port = \"high\"\n");
        refused(
            &["--config", wrong.path().to_str().unwrap()],
            &["flight_port", "high", wrong.path().to_str().unwrap()],
        );
        refused(&["--config", "/no/such/file"], &["/no/such/file"]);
        let names = ["ZEPTO_TICKSS", "ZEPTO_TICKS", "HOME"].map(str::to_owned);
        let unknown = unknown_variables(names.into_iter());
        assert_eq!(unknown, [("ZEPTO_TICKSS".to_owned(), Some("ZEPTO_TICKS".to_owned()))]);
    }

    #[test]
    fn other_addresses_than_loopback_need_a_word_each() {
        refused(&["--flight-host", "0.0.0.0"], &["--allow-insecure-flight"]);
        refused(&["--http-host", "10.0.0.1"], &["--allow-plaintext-http"]);
        load(&["--http-host", "0.0.0.0", "--protocols", "flight"]).unwrap();
        load(&["--flight-host", "0.0.0.0", "--allow-insecure-flight"]).unwrap();
        load(&["--flight-host", "::1", "--http-host", "127.0.0.2"]).unwrap();
    }

    #[test]
    fn every_limit_has_a_flag_a_variable_and_its_default() {
        let config = load(&[]).unwrap();
        let mut limits = config.limits();
        assert!(limits.memory_bytes_max > 0 && limits.query_memory_bytes_max > 0);
        limits.memory_bytes_max = crate::ports::Limits::DEFAULT.memory_bytes_max;
        limits.query_memory_bytes_max = crate::ports::Limits::DEFAULT.query_memory_bytes_max;
        assert_eq!(limits, crate::ports::Limits::DEFAULT);
        let printed = config.print();
        let named = format!("{limits:?}").matches("_max").count();
        assert!(printed.lines().filter(|line| line.contains("_max")).count() >= named);
    }
}
