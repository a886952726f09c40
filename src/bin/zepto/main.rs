//! `zepto`, the command-line client: SQL in a shell or a pipe, files in and out, small questions.
//!
//! A client and nothing else: it speaks to a server through the same ports as everything here, over Flight or HTTP as the
//! URL says, and no engine is part of it. What was asked for goes to standard output, everything else to standard error.
//! Exit codes: 0; 1 for an error of the server, or of a file; 2 for wrong usage.

mod args;
mod export;
mod files;
mod import;
mod output;
mod progress;
mod remote;
mod shell;
mod words;

use crate::args::{Args, Verb};
use crate::output::{Layout, Output};
use crate::remote::Remote;
use clap::Parser;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use zepto_flight::ports::{Caller, Error, Result};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Error::internal(format!("no threads: {error}"))),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> ExitCode {
    // Whoever closed standard error does not want to read it.
    let _ = writeln!(std::io::stderr(), "error: {}", error.message());
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<()> {
    let remote = Remote::new(&args.url)?;
    match args.verb {
        Verb::Sql { statement, format } => sql(&remote, statement, format).await,
        Verb::Import(import) => import::run(&remote, import).await,
        Verb::Export(export) => export::run(&remote, export).await,
        Verb::Ping => {
            let began = std::time::Instant::now();
            remote.query.snapshot(Caller::default()).await?;
            say(&format!("pong from {} in {:.2} ms", args.url, began.elapsed().as_secs_f64() * 1e3))
        }
        Verb::Health => say(&remote.health().await?),
        Verb::Tables { format } => show(&remote, "SHOW TABLES", format).await,
        Verb::Describe { table, format } => {
            let sql = format!("DESCRIBE \"{}\"", table.replace('"', "\"\""));
            show(&remote, &sql, format).await
        }
    }
}

async fn sql(remote: &Remote, statement: Option<String>, format: Option<Layout>) -> Result<()> {
    let statement = match statement {
        Some(statement) => statement,
        None if std::io::stdin().is_terminal() => return shell::run(remote, format).await,
        None => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Error::invalid(format!("standard input cannot be read: {error}")))?;
            text
        }
    };
    for statement in words::statements(&statement) {
        show(remote, statement, format).await?;
    }
    Ok(())
}

async fn show(remote: &Remote, statement: &str, format: Option<Layout>) -> Result<()> {
    let layout = format.unwrap_or(if std::io::stdout().is_terminal() { Layout::Table } else { Layout::Csv });
    let began = std::time::Instant::now();
    Output::standard(layout).answer(remote.run(statement).await?, began).await
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| output::unwritten(&error))
}
