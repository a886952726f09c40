//! A data directory: what makes a directory one, and who has it.
//!
//! `FORMAT` says which format it has and whose store it is; it is written last when a directory is made, so one without it is
//! nobody's. `LOCK` is held for as long as the process lives, and never removed: what it says is only for the message.

use crate::adapters::disk::device::Disk;
use crate::adapters::disk::journal::StoreId;
use crate::adapters::disk::real_disk::RealDisk;
use crate::ports::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// The format that this build writes.
const FORMAT: u32 = 2;

/// Bytes of a `FORMAT` at most.
const FORMAT_BYTES_MAX: u64 = 64 << 10;

/// Features of a directory that this build knows.
const FEATURES: [&str; 0] = [];

/// Names that a directory may have before it has its format.
const BEFORE_FORMAT: [&str; 3] = ["LOCK", "FORMAT.new", "journal"];

/// An open data directory, which no other process has.
#[derive(Debug)]
pub struct DataDirectory {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Whose it is.
    pub id: StoreId,
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
    /// The oldest format that a build has to know in order to read it.
    min_reader: u32,
    features: Vec<String>,
    /// The store's number, as a UUID.
    store: String,
    /// The number before that of the first commit.
    before: u64,
}

impl DataDirectory {
    /// Opens the directory at `path`, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it cannot be read or written or another process has it, `InvalidQuery` for a directory that is something else
    /// or of a newer format.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| no_access(path, &error))?;
        // Before anything is written to what may be somebody else's.
        check_ours(path)?;
        let lock = lock(path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::locked(path, lock));
        let id = match disk.read("FORMAT", FORMAT_BYTES_MAX) {
            Ok(bytes) => read_format(path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(|error| no_access(path, &error))?
            }
            Err(error) => return Err(no_access(path, &error)),
        };
        Ok(Self { disk, id })
    }
}

/// Refuses a directory without a format that has something else in it, or commits.
fn check_ours(path: &Path) -> Result<()> {
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| no_access(path, &error))?;
    let names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.iter().find(|name| !BEFORE_FORMAT.contains(&name.as_str())) {
        Some(foreign) if !names.iter().any(|name| name == "FORMAT") => Err(Error::invalid(format!(
            "{} is no data directory: it has {foreign:?} and no FORMAT; name another one or an empty one",
            path.display()
        ))),
        Some(_) => Ok(()),
        // A store that has lost its name is not to be given another one.
        None if !names.iter().any(|name| name == "FORMAT") && has_commits(path) => Err(Error::internal(format!(
            "{0}/FORMAT is missing, and {0}/journal has commits; restore the directory from a backup",
            path.display()
        ))),
        None => Ok(()),
    }
}

fn has_commits(path: &Path) -> bool {
    fs::read_dir(path.join("journal")).is_ok_and(|mut entries| entries.next().is_some())
}

/// Takes the directory's lock, and says in it who has it.
fn lock(path: &Path) -> Result<File> {
    let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("LOCK"));
    let mut lock = options.map_err(|error| no_access(path, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "another process" } else { holder };
            return Err(Error::unavailable(format!(
                "the data directory {} is in use by {holder}; stop that first, or name another one with --data-dir",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(no_access(path, &error)),
    }
    let said =
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "process {}", std::process::id()));
    said.map_err(|error| no_access(path, &error))?;
    Ok(lock)
}

fn read_format(path: &Path, bytes: &[u8]) -> Result<StoreId> {
    let shown = path.display();
    let format: Format = serde_json::from_slice(bytes).map_err(|error| {
        Error::internal(format!("{shown}/FORMAT is damaged: {error}; restore the directory from a backup"))
    })?;
    let unknown = format.features.iter().find(|feature| !FEATURES.contains(&feature.as_str()));
    if format.min_reader > FORMAT || unknown.is_some() {
        let what = unknown.map_or_else(String::new, |feature| format!(" with {feature:?}"));
        return Err(Error::invalid(format!(
            "{shown} was written by a newer version, in format {}{what}; this one knows format {FORMAT}. Nothing was changed",
            format.format
        )));
    }
    let store = Uuid::parse_str(&format.store).map_err(|error| {
        Error::internal(format!("{shown}/FORMAT is damaged: {error}; restore the directory from a backup"))
    })?;
    Ok(StoreId { store: store.as_u128(), before: format.before })
}

/// Makes an empty directory a data directory. Its commits begin at a number of its own, so that those of another store mean
/// nothing to it.
fn make(path: &Path) -> io::Result<StoreId> {
    let format = NewFormat::new();
    format.write(path)?;
    Ok(StoreId { store: format.store.as_u128(), before: format.before })
}

/// The format of a directory that is being made.
#[derive(Debug)]
pub struct NewFormat {
    store: Uuid,
    before: u64,
}

impl NewFormat {
    /// Makes a name that no other store has.
    pub fn new() -> Self {
        Self { store: Uuid::new_v4(), before: Uuid::new_v4().as_u64_pair().0 >> 3 }
    }

    /// Returns that name.
    pub fn store(&self) -> String {
        self.store.to_string()
    }

    /// Makes the directory at `path` a data directory: it is one when this returns, and was none before.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let format = Format {
            format: FORMAT,
            min_reader: FORMAT,
            features: Vec::new(),
            store: self.store(),
            before: self.before,
        };
        let new = path.join("FORMAT.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&format)?)?;
        file.sync_all()?;
        fs::rename(&new, path.join("FORMAT"))?;
        File::open(path)?.sync_all()?;
        // The directory itself may be new.
        if let Some(parent) = path.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

fn no_access(path: &Path, error: &io::Error) -> Error {
    Error::unavailable(format!(
        "the data directory {} cannot be used: {error}; name another one with --data-dir, or keep tables in memory with --backend memory:",
        path.display()
    ))
}
