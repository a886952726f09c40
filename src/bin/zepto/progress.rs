//! A progress bar on a terminal, and nothing anywhere else.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The progress of a transfer.
pub struct Progress {
    bar: ProgressBar,
    rows: u64,
    bytes: u64,
    began: Instant,
}

impl Progress {
    /// Begins a transfer of so many bytes, where that is known.
    pub fn new(total_bytes: Option<u64>) -> Self {
        let bar = match (std::io::stderr().is_terminal(), total_bytes) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(bytes)) => ProgressBar::new(bytes)
                .with_style(style("{bar:30} {bytes}/{total_bytes}  {msg}  {bytes_per_sec}  ETA {eta}")),
            (true, None) => ProgressBar::new_spinner().with_style(style("{spinner} {bytes}  {msg}  {bytes_per_sec}")),
        };
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, rows: 0, bytes: 0, began: Instant::now() }
    }

    /// Adds rows and bytes that were transferred.
    pub fn add(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
        self.bar.set_message(format!("{} rows", self.rows));
        self.bar.set_position(self.bar.length().map_or(self.bytes, |length| self.bytes.min(length)));
    }

    /// Ends the transfer, and prints a line about it on standard error.
    pub fn finish(self, verb: &str, place: &str) {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = self.rows as f64 / seconds.max(1e-9);
        let _ = writeln!(std::io::stderr(), "{} rows {verb} {place} in {seconds:.2} s ({rate:.0} rows/s)", self.rows);
    }
}

impl Progress {
    /// Ends a transfer of files, and prints a line about it on standard error.
    pub fn finish_bytes(self, what: &str) {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed().as_secs_f64();
        let megabytes = self.bytes as f64 / 1e6;
        let _ = writeln!(std::io::stderr(), "{what}, {megabytes:.1} MB in {seconds:.2} s");
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
