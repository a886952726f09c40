//! The settings and their flags.

use crate::config::limits::LimitSettings;
use crate::ports::Durability;
use clap::{CommandFactory, Parser, ValueEnum};
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
    /// What answers: file:DIR, memory:, stub:, grpc://HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "URL", default_value = "file:zepto-data", env = "ZEPTO_BACKEND")]
    pub backend: String,
    /// Directory that tables are kept in: short for --backend file:DIR
    #[arg(long, value_name = "DIR", env = "ZEPTO_DATA_DIR", conflicts_with = "backend")]
    pub data_dir: Option<PathBuf>,
    /// Where a commit is before it is acknowledged: memory, wal (with the operating system) or fsync (on the disk)
    #[arg(long, value_name = "LEVEL", default_value = "fsync", value_parser = durability, env = "ZEPTO_DURABILITY")]
    pub durability: Durability,
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
    /// Answer reads only: refuse statements and streams that change anything
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, env = "ZEPTO_READ_ONLY")]
    pub read_only: bool,
    /// Show statements in the log with their literals, and error messages that repeat those
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, env = "ZEPTO_LOG_SQL")]
    pub log_sql: bool,
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

fn durability(text: &str) -> Result<Durability, String> {
    text.parse().map_err(|error: crate::ports::Error| error.message().to_owned())
}

impl Settings {
    /// Returns the URL of what answers.
    pub fn backend_url(&self) -> String {
        self.data_dir.as_ref().map_or_else(|| self.backend.clone(), |path| format!("file:{}", path.display()))
    }

    /// Refuses addresses beyond this machine that no flag allows, and limits under which nothing would be answered.
    pub(super) fn check(&self) -> Result<(), clap::Error> {
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
        let limits = [
            ("--connections-max", self.limits.connections_max),
            ("--query-concurrency-max", self.limits.query_concurrency_max),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((flag, _)) => {
                let message = format!("{flag} 0 would let nobody in; it has to be 1 at least\n");
                Err(Self::command().error(clap::error::ErrorKind::ValueValidation, message))
            }
            None => Ok(()),
        }
    }
}
