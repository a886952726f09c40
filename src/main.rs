//! The binary: settings, logging and signals; everything else is the library's.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zepto_flight::app;
use zepto_flight::config::{Config, LogFormat, unknown_variables};
use zepto_flight::ports::ErrorKind;

fn main() -> ExitCode {
    let config = match Config::load(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
    if config.settings.print_config {
        print(&config.print());
        return ExitCode::SUCCESS;
    }
    if let Err(message) = start_log(&config) {
        print_error(&message);
        return ExitCode::from(2);
    }
    for (name, close) in unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        tracing::warn!(name, did_you_mean = close, "unknown setting in the environment");
    }
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().thread_name("sockets").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("no threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let stop = {
        let _within = runtime.enter();
        stop_signal()
    };
    let served = match stop {
        Ok(stop) => runtime.block_on(app::serve(&config, stop, print)),
        Err(error) => {
            print_error(&format!("signals cannot be caught: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match served {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_error(error.message());
            // A backend that does not exist is the user's mistake, an address that is taken is the machine's.
            if error.kind() == ErrorKind::InvalidQuery { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn start_log(config: &Config) -> Result<(), String> {
    let level = &config.settings.log_level;
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level {level:?}: {error}"))?;
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match config.settings.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "a panic was caught");
    }));
    Ok(())
}

/// Returns what resolves on SIGINT or SIGTERM. Both are caught from this call on, not only once the server waits for them, so
/// that a stop right after the banner is still an orderly one.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; running requests may finish");
    })
}

fn print(text: &str) {
    // A closed standard output is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print_error(message: &str) {
    let _ = writeln!(std::io::stderr(), "error: {message}");
}
