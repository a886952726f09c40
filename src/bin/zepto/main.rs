//! `zepto`, the command-line client: SQL in a shell or a pipe, import and export of files, the server's state.
//!
//! It has no engine: it calls a server through the ports, over Flight or HTTP as the URL says. Results go to standard
//! output, everything else to standard error.
//! Exit codes: 0; 1 for an error of the server, or of a file; 2 for wrong usage.

mod args;
mod directory;
mod export;
mod files;
mod import;
mod lexer;
mod output;
mod progress;
mod remote;
mod shell;

use crate::args::{Args, Command};
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
        Err(error) => return report_error(&Error::internal(format!("the runtime could not be started: {error}"))),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_error(&error),
    }
}

fn report_error(error: &Error) -> ExitCode {
    // Where standard error is closed, there is nowhere to report to.
    let _ = writeln!(std::io::stderr(), "error: {}", error.message());
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<()> {
    let remote = Remote::new(&args.url)?;
    match args.command {
        Command::Backup { directory } => directory::run_backup(&remote, &directory).await,
        Command::Restore { from, to } => directory::run_restore(&from, &to),
        Command::Verify { directory } => directory::run_verify(&directory),
        Command::Recover { truncate, directory } => directory::run_recover(&directory, truncate),
        Command::Sql { statement, format } => sql(&remote, statement, format).await,
        Command::Import(import) => import::run(&remote, import).await,
        Command::Export(export) => export::run(&remote, export).await,
        Command::Ping => {
            let began = std::time::Instant::now();
            remote.query.snapshot(Caller::default()).await?;
            print_line(&format!("pong from {} in {:.2} ms", args.url, began.elapsed().as_secs_f64() * 1e3))
        }
        Command::Health => print_line(&remote.health().await?),
        Command::Tables { format } => show(&remote, "SHOW TABLES", format).await,
        Command::Describe { table, format } => {
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
    for statement in lexer::split_statements(&statement) {
        show(remote, statement, format).await?;
    }
    Ok(())
}

async fn show(remote: &Remote, statement: &str, format: Option<Layout>) -> Result<()> {
    let layout = format.unwrap_or(if std::io::stdout().is_terminal() { Layout::Table } else { Layout::Csv });
    let began = std::time::Instant::now();
    Output::standard(layout).print(remote.run(statement).await?, began).await
}

fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| output::output_error(&error))
}
