//! `zepto export`: a result into a file, which appears complete or not at all.

use crate::args::{Export, FileFormat};
use crate::files::format_of;
use crate::output::write_result;
use crate::progress::Progress;
use crate::remote::Remote;
use std::fs::File;
use std::io::BufWriter;
use zepto_flight::adapters::formats::Format;
use zepto_flight::ports::{Error, Query, Result};

/// Runs `zepto export`.
///
/// # Errors
///
/// The server's, and `Unavailable` for a file that cannot be written.
pub async fn run(remote: &Remote, export: Export) -> Result<()> {
    let format = match export.format.map_or_else(|| format_of(&export.to), Ok)? {
        FileFormat::Csv => Format::Csv,
        FileFormat::Ndjson => Format::Ndjson,
        FileFormat::Json => Format::Json,
        FileFormat::Arrow => Format::Arrow,
        FileFormat::Parquet => Format::Parquet,
    };
    let reply = remote.query.query(Query::read(export.statement)).await?;
    let unwritable =
        |error: std::io::Error| Error::unavailable(format!("{} cannot be written: {error}", export.to.display()));
    // Under another name until it is complete, so that no reader finds half of it.
    let mut partial = export.to.clone().into_os_string();
    partial.push(".partial");
    let mut file = BufWriter::new(File::create(&partial).map_err(unwritable)?);
    let mut progress = Progress::new(None);
    let written = write_result(reply.batches, format, &mut file, |rows, bytes| progress.add(rows, bytes)).await;
    // Closed before it is renamed or removed.
    drop(file);
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    std::fs::rename(&partial, &export.to).map_err(unwritable)?;
    progress.finish("exported", &format!("to {}", export.to.display()));
    Ok(())
}
