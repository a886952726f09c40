//! The arguments of the command line. Doc comments here are its help text.

use crate::output::Layout;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use zepto_flight::ports::{IfExists, IfMissing};

/// Talks to a zepto-flight server.
#[derive(Debug, Parser)]
#[command(name = "zepto", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Args {
    /// The server: grpc://HOST:PORT or http://HOST:PORT
    #[arg(long, global = true, env = "ZEPTO_URL", default_value = "grpc://127.0.0.1:8815")]
    pub url: String,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a statement; without one, open a shell, or read statements from a pipe
    Sql {
        /// The statement, or several with ; between them
        statement: Option<String>,
        /// How to write results [default: table on a terminal, csv in a pipe]
        #[arg(long, short)]
        format: Option<Layout>,
    },
    /// Append files to a table, all of them or nothing
    Import(Import),
    /// Write a result to a file
    Export(Export),
    /// Check that the server answers
    Ping,
    /// Show the health of the server
    Health,
    /// Write all files of a running server to a directory, which a server can open
    Backup {
        /// A new directory, or an empty one
        directory: PathBuf,
    },
    /// Make a data directory of a backup, with a name of its own
    Restore {
        /// The backup
        from: PathBuf,
        /// A new directory, or an empty one
        to: PathBuf,
    },
    /// Read every byte of a data directory that no server has, and name what is damaged
    Verify {
        /// The directory
        directory: PathBuf,
    },
    /// Cut a damaged journal where it is damaged, in a data directory that no server has
    Recover {
        /// Lose what is behind the damage
        #[arg(long)]
        truncate: bool,
        /// The directory
        directory: PathBuf,
    },
    /// List the tables
    Tables {
        /// How to write the list
        #[arg(long, short)]
        format: Option<Layout>,
    },
    /// List the columns of a table
    Describe {
        /// The table
        table: String,
        /// How to write the list
        #[arg(long, short)]
        format: Option<Layout>,
    },
}

/// `import`
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Files, patterns such as 'data/*.parquet', or - for standard input
    #[arg(required = true)]
    pub files: Vec<String>,
    /// The table to append to
    #[arg(long, short)]
    pub table: String,
    /// The format of the files [default: by their names' extensions]
    #[arg(long, short)]
    pub format: Option<FileFormat>,
    /// What to do where the table is missing
    #[arg(long, value_enum, default_value_t = Missing::Create)]
    pub if_missing: Missing,
    /// What to do where the table exists
    #[arg(long, value_enum, default_value_t = Exists::Append)]
    pub if_exists: Exists,
    /// Read everything, show what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `export`
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The statement
    pub statement: String,
    /// The file to write
    #[arg(long, short)]
    pub to: PathBuf,
    /// The format to write [default: by the file's extension]
    #[arg(long, short)]
    pub format: Option<FileFormat>,
}

/// A format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Comma-separated values under a header line
    Csv,
    /// A JSON object on each line
    Ndjson,
    /// An Arrow IPC stream or file
    Arrow,
    /// A Parquet file
    Parquet,
    /// One JSON document; for export only
    Json,
}

/// An action where a table is missing.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Missing {
    /// Create it
    Create,
    /// Fail
    Fail,
}

/// An action where a table exists.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Exists {
    /// Append to it
    Append,
    /// Fail
    Fail,
    /// Replace its rows
    Replace,
}

impl From<Missing> for IfMissing {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Create => Self::Create,
            Missing::Fail => Self::Fail,
        }
    }
}

impl From<Exists> for IfExists {
    fn from(exists: Exists) -> Self {
        match exists {
            Exists::Append => Self::Append,
            Exists::Fail => Self::Fail,
            Exists::Replace => Self::Replace,
        }
    }
}
