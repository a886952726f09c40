//! All files of a checkpoint: for a copy of them, and to check each.

use crate::adapters::disk::file::NO_JOURNAL;
use crate::adapters::disk::manifest::{list_path, manifest_path, part_path};
use crate::adapters::disk::part_reader::read_failed;
use crate::adapters::disk::store::{DiskStore, parts_of};
use crate::ports::{Error, Result, Store, StoreFile};
use bytes::Bytes;
use std::collections::HashSet;

impl DiskStore {
    /// Lists what a directory needs to be opened with the newest checkpoint and nothing after it.
    ///
    /// # Errors
    ///
    /// `Unavailable` where they cannot be read.
    pub(super) fn files_of_newest(&self) -> Result<Vec<StoreFile>> {
        let (version, lists, parts) = {
            let state = self.lock();
            let kept = state.kept.back().ok_or_else(|| Error::internal("there is no checkpoint"))?;
            (kept.version, kept.lists.clone(), kept.parts.clone())
        };
        let disk = self.disk.as_ref();
        let whole = |path: String| {
            let content: Bytes = disk.read(&path, u64::MAX).map_err(|error| read_failed(&path, &error))?.into();
            Ok::<_, Error>(StoreFile { path, bytes: content.len() as u64, content: Some(content) })
        };
        let mut parts: Vec<u64> = parts.into_iter().collect();
        parts.sort_unstable();
        let part = |part: u64| {
            let path = part_path(part);
            let bytes = disk.len(&path).map_err(|error| read_failed(&path, &error))?;
            Ok::<_, Error>(StoreFile { path, bytes, content: None })
        };
        let marker = StoreFile { path: NO_JOURNAL.to_owned(), bytes: 0, content: Some(Bytes::new()) };
        let mut files: Vec<StoreFile> = parts.into_iter().map(part).collect::<Result<_>>()?;
        for list in lists.values() {
            files.push(whole(list_path(list.list))?);
        }
        // What makes it a data directory comes last.
        files.extend([whole(manifest_path(version))?, marker, whole("FORMAT".to_owned())?]);
        Ok(files)
    }

    /// Checks every byte that the newest checkpoint needs; calls `each` with every file and what is wrong with it.
    ///
    /// # Errors
    ///
    /// Those of reading the checkpoint itself.
    pub fn verify(&self, mut each: impl FnMut(&str, Option<Error>)) -> Result<()> {
        let Some(checkpoint) = self.newest()? else { return Ok(()) };
        let mut seen = HashSet::new();
        for part in parts_of(&checkpoint.tables).filter(|part| seen.insert(part.id)) {
            let read = self.reader(part).and_then(|reader| reader.verify(self.disk.as_ref()));
            each(&part_path(part.id), read.err());
        }
        Ok(())
    }
}
