//! Manifests: which lists make up a checkpoint. Numbered, never changed, the newest counts.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::{BLOCK, Disk};
use crate::adapters::disk::part_reader::{damaged, read_failed};
use crate::adapters::disk::part_writer::disk_failed;
use crate::ports::{Error, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

/// Folder of the manifests.
pub const MANIFESTS: &str = "manifest";

/// Folder of the lists.
pub const LISTS: &str = "lists";

/// Folder of the parts.
pub const PARTS: &str = "parts";

/// What stands before the manifest itself: a hash of so many digits.
const HEAD: (&str, &str) = ("{\"hash\":\"", "\",\"manifest\":");
const HASH_DIGITS: usize = 16;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its number.
    pub version: u64,
    /// The store's, as a UUID.
    pub store: String,
    /// The last commit in it.
    pub lsn: u64,
    /// When that was made.
    pub time_us: i64,
    /// The id that the next table gets.
    pub next_table_id: u64,
    /// The list of each table, by the tables' ids.
    pub tables: BTreeMap<u64, ListRef>,
}

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRef {
    /// Its number.
    pub list: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Their XXH3.
    pub hash: u64,
}

/// Returns the path of a manifest.
pub fn manifest_path(version: u64) -> String {
    format!("{MANIFESTS}/{version:010}.json")
}

/// Returns the path of a list.
pub fn list_path(list: u64) -> String {
    format!("{LISTS}/{list:010}.list")
}

/// Returns the path of a part.
pub fn part_path(part: u64) -> String {
    format!("{PARTS}/{part:010}.arrow")
}

/// Returns the number of a file of these folders; none for anything else.
pub fn number_of(name: &str, extension: &str) -> Option<u64> {
    name.strip_suffix(extension).filter(|digits| digits.len() >= 10)?.parse().ok()
}

impl Manifest {
    /// Writes it to a file, whose name is durable when this returns.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` where there is no space, `Unavailable` where the disk fails.
    pub fn write(&self, disk: &dyn Disk) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::internal("a manifest could not be written").with_source(error))?;
        let text = format!("{}{:016x}{}{text}}}\n", HEAD.0, XxHash3_64::oneshot(text.as_bytes()), HEAD.1);
        let (path, new) = (manifest_path(self.version), format!("{MANIFESTS}/new"));
        let failed = |error| disk_failed(&path, &error);
        // One that was interrupted.
        let _ = disk.remove(&new);
        write_file(disk, &new, text.as_bytes(), b'\n')?;
        disk.rename(&new, &path).and_then(|()| disk.sync_folder(MANIFESTS)).map_err(failed)
    }

    /// Reads the manifest of a number.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it cannot be read, `Internal` where it is damaged.
    pub fn read(disk: &dyn Disk, version: u64) -> Result<Self> {
        let path = manifest_path(version);
        let bytes = disk.read(&path, u64::MAX).map_err(|error| read_failed(&path, &error))?;
        let broken = || damaged(&path, "it is not as it was written");
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end_matches('\n').strip_suffix('}'));
        let text = text.and_then(|text| text.strip_prefix(HEAD.0)).ok_or_else(broken)?;
        let (hash, text) = text.split_at_checked(HASH_DIGITS).ok_or_else(broken)?;
        let text = text.strip_prefix(HEAD.1).ok_or_else(broken)?;
        if u64::from_str_radix(hash, 16) != Ok(XxHash3_64::oneshot(text.as_bytes())) {
            return Err(broken());
        }
        let manifest: Self = serde_json::from_str(text).map_err(|error| damaged(&path, &error.to_string()))?;
        if manifest.version == version { Ok(manifest) } else { Err(damaged(&path, "it is another one")) }
    }
}

impl ListRef {
    /// Reads the list.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it cannot be read, `Internal` where it is damaged.
    pub fn read(&self, disk: &dyn Disk) -> Result<Bytes> {
        let path = list_path(self.list);
        let bytes = disk.read(&path, self.bytes).map_err(|error| read_failed(&path, &error))?;
        if bytes.len() as u64 == self.bytes && XxHash3_64::oneshot(&bytes) == self.hash {
            Ok(bytes.into())
        } else {
            Err(damaged(&path, "it is not as it was written"))
        }
    }
}

/// Writes a new file, which is on the disk when this returns, filled up to whole blocks; its name is not.
///
/// # Errors
///
/// `LimitExceeded` where there is no space, `Unavailable` where the disk fails; there is no such file then.
pub fn write_file(disk: &dyn Disk, path: &str, bytes: &[u8], fill: u8) -> Result<()> {
    let mut blocks = AlignedBuffer::new(bytes.len().next_multiple_of(BLOCK));
    blocks.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    blocks.as_mut_slice()[bytes.len()..].fill(fill);
    let file = disk.create(path, 0).map_err(|error| disk_failed(path, &error))?;
    let written = file.write_at(blocks.as_slice(), 0, false).and_then(|()| file.sync());
    written.map_err(|error| {
        let _ = disk.remove(path);
        disk_failed(path, &error)
    })
}
