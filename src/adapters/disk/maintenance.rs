//! What is done to a directory that no server has: a backup becomes a store of its own, everything is checked, a damaged journal is
//! cut.

use crate::adapters::disk::device::{BLOCK, Disk};
use crate::adapters::disk::directory::{DataDirectory, NewFormat};
use crate::adapters::disk::file::{FOLDER, NO_JOURNAL, number_of, path_of};
use crate::adapters::disk::manifest::{LISTS, MANIFESTS, Manifest, PARTS, number_of as numbered, write_file};
use crate::adapters::disk::reader::{Base, Reader};
use crate::adapters::disk::real_disk::RealDisk;
use crate::adapters::disk::store::DiskStore;
use crate::ports::{Error, Lsn, Result, Store};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a cut journal's files go.
const QUARANTINE: &str = "quarantine";

/// What was found in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that were read, the journal as one.
    pub files: u64,
    /// Those that are damaged.
    pub damaged: u64,
    /// The last commit that can be read.
    pub lsn: Lsn,
}

/// What was cut off a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated {
    /// The last commit that is left.
    pub lsn: Lsn,
    /// What was damaged.
    pub why: String,
    /// Files that were moved or copied away.
    pub files: Vec<String>,
}

/// Makes a data directory at `to` of the backup at `from`, with a name of its own, so that the two are never taken for one another.
///
/// # Errors
///
/// `InvalidQuery` where `from` is no backup or `to` has something in it, `Internal` where the backup is damaged, `Unavailable` where a
/// directory cannot be read or written; `to` is no data directory then.
pub fn restore(from: &Path, to: &Path) -> Result<()> {
    let unusable = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Error::unavailable(format!("{path} cannot be used: {error}"))
    };
    if !from.join("FORMAT").exists() {
        return Err(Error::invalid(format!("{} is no backup: it has no FORMAT", from.display())));
    }
    let has_journal = list(&from.join(FOLDER)).iter().any(|name| number_of(name).is_some());
    if has_journal {
        return Err(Error::invalid(format!(
            "{} is a data directory that a server has had, not a backup: start a server with --data-dir on it, and take one with zepto backup",
            from.display()
        )));
    }
    fs::create_dir_all(to).map_err(unusable(to))?;
    if !list(to).is_empty() {
        return Err(Error::invalid(format!("{} is not empty; name a directory that is, or a new one", to.display())));
    }
    let DataDirectory { disk, id } = DataDirectory::open(from)?;
    let mut damage = None;
    DiskStore::new(disk.clone(), id).verify(|_, error| damage = damage.take().or(error))?;
    if let Some(error) = damage {
        return Err(error);
    }
    let versions = list(&from.join(MANIFESTS)).iter().filter_map(|name| numbered(name, ".json")).max();
    let version = versions.ok_or_else(|| Error::invalid(format!("{} has no checkpoint", from.display())))?;
    let manifest = Manifest::read(disk.as_ref(), version)?;
    for folder in [PARTS, LISTS, MANIFESTS, FOLDER] {
        fs::create_dir(to.join(folder)).map_err(unusable(to))?;
    }
    for folder in [PARTS, LISTS] {
        for name in list(&from.join(folder)) {
            let target = to.join(folder).join(name.as_str());
            fs::copy(from.join(folder).join(&name), &target).map_err(unusable(&target))?;
            File::open(&target).and_then(|file| file.sync_all()).map_err(unusable(&target))?;
        }
    }
    let (made, format) = (RealDisk::new(to), NewFormat::new());
    Manifest { store: format.store(), ..manifest }.write(&made)?;
    write_file(&made, NO_JOURNAL, b"", 0)?;
    for folder in [PARTS, LISTS, FOLDER, ""] {
        made.sync_folder(folder).map_err(unusable(to))?;
    }
    format.write(to).map_err(unusable(to))
}

/// Reads everything that the directory at `path` needs, and calls `each` with every file and what is wrong with it.
///
/// # Errors
///
/// Those of the directory, and of a checkpoint that cannot be read at all.
pub fn verify(path: &Path, mut each: impl FnMut(&str, Option<&Error>)) -> Result<Verified> {
    let DataDirectory { disk, id } = existing(path)?;
    let store = DiskStore::new(disk.clone(), id);
    let mut verified = Verified::default();
    let mut note = |file: &str, error: Option<&Error>| {
        verified.files += 1;
        verified.damaged += u64::from(error.is_some());
        each(file, error);
    };
    store.verify(|file, error| note(file, error.as_ref()))?;
    let checkpoint = store.newest()?.map(|checkpoint| checkpoint.lsn.0);
    let base = Base { lsn: checkpoint.unwrap_or(id.before), is_checkpoint: checkpoint.is_some() };
    let read = || {
        let mut reader = Reader::open(disk.clone(), id.store, base)?;
        while reader.next_entry()?.is_some() {}
        Ok(Lsn(reader.end().lsn))
    };
    let journal: Result<Lsn> = read();
    note(FOLDER, journal.as_ref().err());
    verified.lsn = journal.unwrap_or(Lsn(base.lsn));
    Ok(verified)
}

/// Cuts the journal of the directory at `path` where it is damaged; what was behind is moved away, and lost to the tables. None where
/// nothing is damaged.
///
/// # Errors
///
/// Those of the directory, and `Internal` where more than the journal's content is damaged.
pub fn truncate(path: &Path) -> Result<Option<Truncated>> {
    let DataDirectory { disk, id } = existing(path)?;
    let checkpoint = DiskStore::new(disk.clone(), id).newest()?.map(|checkpoint| checkpoint.lsn.0);
    let base = Base { lsn: checkpoint.unwrap_or(id.before), is_checkpoint: checkpoint.is_some() };
    let mut reader = Reader::open(disk.clone(), id.store, base)?;
    let error = loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) => break error,
        }
    };
    let (end, files) = (reader.end(), reader.files());
    let failed = |error: io::Error| Error::unavailable(format!("{} cannot be changed: {error}", path.display()));
    fs::create_dir_all(path.join(QUARANTINE)).map_err(failed)?;
    let read: Vec<u64> = files.iter().map(|file| file.number).take_while(|number| *number != end.number).collect();
    let mut moved = Vec::new();
    for name in list(&path.join(FOLDER)) {
        let Some(number) = number_of(&name).filter(|number| !read.contains(number)) else { continue };
        let (from, to) = (path.join(path_of(number)), path.join(QUARANTINE).join(&name));
        if number == end.number {
            fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all()).map_err(failed)?;
            cut(&from, end.offset).map_err(failed)?;
        } else {
            fs::rename(&from, &to).map_err(failed)?;
        }
        moved.push(name);
    }
    if end.number == 0 && base.is_checkpoint {
        write_file(disk.as_ref(), NO_JOURNAL, b"", 0)?;
    }
    disk.sync_folder(FOLDER).and_then(|()| disk.sync_folder(QUARANTINE)).map_err(failed)?;
    Ok(Some(Truncated { lsn: Lsn(end.lsn), why: error.message().to_owned(), files: moved }))
}

fn existing(path: &Path) -> Result<DataDirectory> {
    if path.join("FORMAT").exists() {
        return DataDirectory::open(path);
    }
    Err(Error::invalid(format!("{} is no data directory: it has no FORMAT", path.display())))
}

/// Overwrites a file with zeros from a place on: nothing behind it is taken for a record again.
fn cut(path: &Path, from: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let (mut at, bytes) = (from, file.metadata()?.len());
    while at < bytes {
        let part = (bytes - at).min(256 * BLOCK as u64);
        file.write_all_at(&vec![0; part as usize], at)?;
        at += part;
    }
    file.sync_all()
}

fn list(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}
