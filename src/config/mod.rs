//! Configuration: a TOML file, the environment, flags – the last one wins – and where each value came from.
//!
//! There is one list of settings, [`Settings`], and one parser for all three sources: what the file says becomes the
//! default of the flag of the same name, so a value is checked the same way wherever it stands. Defaults of limits are
//! [`Limits::DEFAULT`]'s, except for the two that are fitted to the machine's memory.

mod limits;
mod machine;
mod settings;

pub use limits::LimitSettings;
pub use settings::{LogFormat, Protocol, Settings};

use crate::ports::Limits;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

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
        let command = machine::fitted(Settings::command());
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

    /// Returns the limits in force.
    pub fn limits(&self) -> Limits {
        Limits::from(&self.settings.limits)
    }

    /// Prints the settings for `--print-config`: TOML, with the origin of each value after it.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for (name, value, origin) in &self.origins {
            let _ = writeln!(out, "{name} = {value}  # {origin}");
        }
        out
    }
}

/// Finds the settings file, by flag or environment. Everything else may still be wrong at this point.
fn file_of(command: &Command, args: &[OsString]) -> Result<Option<PathBuf>, clap::Error> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(args)?;
    Ok(matches.try_get_one::<PathBuf>("config").ok().flatten().cloned())
}

/// Reads the values of a settings file as a user would write them after a flag.
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

/// Names the file in an error about a value that stands in it.
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
    let message = format!("{path}: invalid value {value:?} for {flag}\n");
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

/// Finds environment variables that look like settings and are not, each with the name that was perhaps meant.
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
    fn a_data_directory_is_a_backend() {
        assert_eq!(load(&["--data-dir", "some/where"]).unwrap().settings.backend_url(), "file:some/where");
        refused(&["--data-dir", "here", "--backend", "memory:"], &["--data-dir", "--backend"]);
        refused(&["--durability", "sometimes"], &["sometimes", "memory, wal, fsync"]);
    }

    #[test]
    fn limits_that_let_nobody_in_are_refused() {
        refused(&["--connections-max", "0"], &["--connections-max", "at least"]);
        refused(&["--query-concurrency-max", "0"], &["--query-concurrency-max", "at least"]);
        load(&["--connections-max", "1", "--query-concurrency-max", "1"]).unwrap();
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
