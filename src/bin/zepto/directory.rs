//! `zepto backup`, `restore`, `verify` and `recover`: data directories.
//!
//! A backup is pulled from a running server and written here: the server writes to no path that a client names. The others work on a
//! directory that no server has, and take its lock.

use crate::progress::Progress;
use crate::remote::Remote;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use futures::StreamExt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use zepto_flight::adapters::disk::{restore, truncate, verify};
use zepto_flight::ports::{Error, Query, Result};

/// The file that makes a directory a data directory: written last.
const FORMAT: &str = "FORMAT";

/// Runs `zepto backup`.
///
/// # Errors
///
/// The server's, and `Unavailable` where the directory cannot be written.
pub async fn run_backup(remote: &Remote, to: &Path) -> Result<()> {
    let unwritable = |error: io::Error| {
        Error::unavailable(format!(
            "{} cannot be written: {error}; what is there is no backup, remove it",
            to.display()
        ))
    };
    fs::create_dir_all(to).map_err(unwritable)?;
    if fs::read_dir(to).map_err(unwritable)?.next().is_some() {
        return Err(Error::invalid(format!("{} is not empty; name a directory that is, or a new one", to.display())));
    }
    let mut rows = remote.query.query(Query::read("BACKUP")).await?.batches;
    let (mut open, mut format, mut files) = (None, Vec::new(), 0_u64);
    let mut progress = Progress::new(None);
    while let Some(batch) = rows.next().await {
        for (path, offset, bytes) in pieces(&batch?)? {
            if path == Path::new(FORMAT) {
                format.extend_from_slice(&bytes);
                continue;
            }
            if offset == 0 {
                close(open.take()).map_err(unwritable)?;
                open = Some(create(&to.join(&path)).map_err(unwritable)?);
                files += 1;
            }
            let file = open.as_ref().ok_or_else(|| Error::internal("the server's backup begins in a file"))?;
            file.write_all_at(&bytes, offset).map_err(unwritable)?;
            progress.add(0, bytes.len() as u64);
        }
    }
    close(open).map_err(unwritable)?;
    if format.is_empty() {
        return Err(Error::internal("the server's backup has no FORMAT"));
    }
    // Every name before the one that makes it a backup.
    let folders = ["parts", "lists", "manifest", "journal", ""].map(|folder| to.join(folder));
    let sync = |folder: &PathBuf| if folder.is_dir() { File::open(folder)?.sync_all() } else { Ok(()) };
    folders.iter().try_for_each(sync).map_err(unwritable)?;
    let file = create(&to.join(FORMAT)).map_err(unwritable)?;
    file.write_all_at(&format, 0).and_then(|()| close(Some(file))).map_err(unwritable)?;
    File::open(to).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    progress.finish_bytes(&format!("{files} files backed up to {}", to.display()));
    Ok(())
}

/// Takes the rows of a backup, whose paths stay below its directory.
fn pieces(batch: &RecordBatch) -> Result<Vec<(PathBuf, u64, Vec<u8>)>> {
    let wrong = || Error::internal("the server's backup has other columns");
    let column = |at: usize| batch.columns().get(at).ok_or_else(wrong);
    let paths = column(0)?.as_string_opt::<i32>().ok_or_else(wrong)?;
    let offsets = column(1)?.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
    let bytes = column(2)?.as_binary_opt::<i32>().ok_or_else(wrong)?;
    let piece = |row: usize| {
        let path = PathBuf::from(paths.value(row));
        match path.components().all(|part| matches!(part, Component::Normal(_))) {
            true => Ok((path, offsets.value(row), bytes.value(row).to_vec())),
            false => Err(Error::internal(format!("the server's backup names {path:?}, which is not below it"))),
        }
    };
    (0..batch.num_rows()).map(piece).collect()
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn close(file: Option<File>) -> io::Result<()> {
    file.map_or(Ok(()), |file| file.sync_all())
}

/// Runs `zepto restore`.
///
/// # Errors
///
/// Those of the backup and of the new directory.
pub fn run_restore(from: &Path, to: &Path) -> Result<()> {
    restore(from, to)?;
    say(&format!("restored to {}; start a server with --data-dir {}", to.display(), to.display()));
    Ok(())
}

/// Runs `zepto verify`.
///
/// # Errors
///
/// Those of the directory, and `Internal` where something is damaged.
pub fn run_verify(path: &Path) -> Result<()> {
    let mut progress = Progress::new(None);
    let verified = verify(path, |file, error| {
        let bytes = fs::metadata(path.join(file)).map_or(0, |metadata| metadata.len());
        progress.add(0, bytes);
        if let Some(error) = error {
            say(&format!("damaged: {}", error.message()));
        }
    })?;
    progress.finish_bytes(&format!("{} files read, up to commit {}", verified.files, verified.lsn));
    match verified.damaged {
        0 => Ok(()),
        damaged => Err(Error::internal(format!("{damaged} of {} files are damaged", verified.files))),
    }
}

/// Runs `zepto recover`.
///
/// # Errors
///
/// Those of the directory, and `InvalidQuery` where nobody said that something may be lost.
pub fn run_recover(path: &Path, truncates: bool) -> Result<()> {
    if !truncates {
        return Err(Error::invalid(
            "the way out of a damaged journal is to lose what is behind the damage: say --truncate if that is what you want",
        ));
    }
    match truncate(path)? {
        None => say("nothing is damaged, and nothing was changed"),
        Some(truncated) => {
            say(&truncated.why);
            say(&format!(
                "cut behind commit {}; what came after it is lost to the tables. {} went to {}",
                truncated.lsn,
                truncated.files.join(", "),
                path.join("quarantine").display()
            ));
        }
    }
    Ok(())
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
