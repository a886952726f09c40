//! The store of a data directory: the port, over parts, lists and manifests.
//!
//! A file is written, then the name of its folder is made durable, then whatever names it is written; so what can be found is whole.
//! Two checkpoints are kept, each with all that it names: should the newest be damaged, the journal still goes on from the one before.

use crate::adapters::disk::device::Disk;
use crate::adapters::disk::journal::StoreId;
use crate::adapters::disk::list_codec::{list_of_bytes, list_to_bytes};
use crate::adapters::disk::manifest::{
    LISTS, ListRef, MANIFESTS, Manifest, PARTS, list_path, manifest_path, number_of, part_path, write_file,
};
use crate::adapters::disk::part_reader::{PartReader, damaged, read_failed};
use crate::adapters::disk::part_writer::{disk_failed, of_one_part, write_part};
use crate::ports::{Checkpoint, ErrorKind, Lsn, Result, Store, StoreFile, StoredPart, StoredTable};
use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use twox_hash::XxHash3_64;

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// Bytes of footers that are remembered.
const FOOTER_BYTES_MAX: usize = 64 << 20;

/// A file that gives its space for a checkpoint where the disk is full: without one nothing could be freed.
const RESERVE: (&str, usize) = ("reserve", 1 << 20);

/// Keeps parts and checkpoints in a directory.
#[derive(Debug)]
pub struct DiskStore {
    pub(super) disk: Arc<dyn Disk>,
    id: StoreId,
    state: Mutex<State>,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The kept checkpoints, the oldest first.
    pub(super) kept: VecDeque<Kept>,
    /// The highest number of a manifest, of a list and of a part.
    versions: u64,
    lists: u64,
    parts: u64,
    /// Bytes of all parts that there are.
    part_bytes: HashMap<u64, u64>,
    /// Parts that nobody in this process reads.
    released: HashSet<u64>,
}

/// What a kept checkpoint names.
#[derive(Debug)]
pub(super) struct Kept {
    pub version: u64,
    pub lists: BTreeMap<u64, ListRef>,
    pub parts: HashSet<u64>,
}

#[derive(Debug, Default)]
struct Readers {
    by_part: HashMap<u64, Arc<PartReader>>,
    bytes: usize,
}

impl DiskStore {
    /// Makes the store of a directory.
    pub fn new(disk: Arc<dyn Disk>, id: StoreId) -> Self {
        Self { disk, id, state: Mutex::default(), readers: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the numbers of the files in a folder.
    fn numbers(&self, folder: &str, extension: &str) -> Result<Vec<u64>> {
        let names = self.disk.list(folder).map_err(|error| read_failed(folder, &error))?;
        let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name, extension)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads a checkpoint and notes what it names.
    fn load(&self, version: u64) -> Result<(Checkpoint, Kept)> {
        let disk = self.disk.as_ref();
        let manifest = Manifest::read(disk, version)?;
        if manifest.store != self.store() {
            return Err(damaged(&manifest_path(version), "it belongs to another store"));
        }
        let table = |list: &ListRef| {
            let path = list_path(list.list);
            list_of_bytes(list.read(disk)?).map_err(|error| damaged(&path, error.message()))
        };
        let tables: Vec<StoredTable> = manifest.tables.values().map(table).collect::<Result<_>>()?;
        let parts: HashMap<u64, u64> = parts_of(&tables).map(|part| (part.id, part.bytes)).collect();
        for (part, bytes) in &parts {
            let path = part_path(*part);
            let length = disk.len(&path).map_err(|error| read_failed(&path, &error))?;
            if length < *bytes {
                return Err(damaged(&path, &format!("it has {length} bytes, and {bytes} were written")));
            }
        }
        let Manifest { lsn, time_us, next_table_id, tables: lists, .. } = manifest;
        let checkpoint = Checkpoint { lsn: Lsn(lsn), time_us, next_table_id, tables };
        Ok((checkpoint, Kept { version, lists, parts: parts.into_keys().collect() }))
    }

    fn store(&self) -> String {
        uuid::Uuid::from_u128(self.id.store).to_string()
    }

    /// Writes the lists and the manifest of a checkpoint.
    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Kept> {
        let (version, before) = {
            let mut state = self.lock();
            state.versions += 1;
            (state.versions, state.kept.back().map(|kept| kept.lists.clone()).unwrap_or_default())
        };
        let disk = self.disk.as_ref();
        let (mut lists, mut written) = (BTreeMap::new(), Vec::new());
        let write = || {
            for table in &checkpoint.tables {
                let bytes = list_to_bytes(table)?;
                let id = table.definition.id;
                let (length, hash) = (bytes.len() as u64, XxHash3_64::oneshot(&bytes));
                let same = before.get(&id).filter(|list| list.bytes == length && list.hash == hash);
                let list = match same {
                    Some(same) => *same,
                    None => {
                        let list = self.next_list();
                        write_file(disk, &list_path(list), &bytes, 0)?;
                        written.push(list);
                        ListRef { list, bytes: length, hash }
                    }
                };
                lists.insert(id, list);
            }
            disk.sync_folder(LISTS).map_err(|error| disk_failed(LISTS, &error))?;
            let Checkpoint { lsn, time_us, next_table_id, .. } = *checkpoint;
            let (store, tables) = (self.store(), lists.clone());
            Manifest { version, store, lsn: lsn.0, time_us, next_table_id, tables }.write(disk)
        };
        if let Err(error) = { write }() {
            written.iter().for_each(|list| drop(disk.remove(&list_path(*list))));
            return Err(error);
        }
        let parts = parts_of(&checkpoint.tables).map(|part| part.id).collect();
        Ok(Kept { version, lists, parts })
    }

    fn next_list(&self) -> u64 {
        let mut state = self.lock();
        state.lists += 1;
        state.lists
    }

    /// Removes what nobody reads and no kept checkpoint names. What cannot be removed now is removed another time.
    fn sweep(&self) {
        let (parts, lists, oldest) = {
            let state = self.lock();
            let is_named = |part: &u64| state.kept.iter().any(|kept| kept.parts.contains(part));
            let parts: Vec<u64> = state.released.iter().copied().filter(|part| !is_named(part)).collect();
            let lists: HashSet<u64> =
                state.kept.iter().flat_map(|kept| kept.lists.values().map(|list| list.list)).collect();
            (parts, lists, state.kept.front().map_or(0, |kept| kept.version))
        };
        let removed: Vec<u64> = parts.into_iter().filter(|part| self.removed(&part_path(*part))).collect();
        {
            let mut state = self.lock();
            for part in &removed {
                state.released.remove(part);
                state.part_bytes.remove(part);
            }
        }
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        removed.iter().for_each(|part| readers.forget(*part));
        drop(readers);
        for version in self.numbers(MANIFESTS, ".json").unwrap_or_default() {
            let _ = version < oldest && self.removed(&manifest_path(version));
        }
        for list in self.numbers(LISTS, ".list").unwrap_or_default() {
            let _ = !lists.contains(&list) && self.removed(&list_path(list));
        }
    }

    fn removed(&self, path: &str) -> bool {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path, %error, "a file that nobody needs could not be removed");
                false
            }
            _ => true,
        }
    }

    pub(super) fn reader(&self, part: &StoredPart) -> Result<Arc<PartReader>> {
        let known = self.readers.lock().unwrap_or_else(PoisonError::into_inner).by_part.get(&part.id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let opened = PartReader::open(self.disk.as_ref(), part_path(part.id), part.bytes, part.digest)?;
        let opened = Arc::new(opened);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).remember(part.id, opened.clone());
        Ok(opened)
    }

    /// Writes batches to one part, which shares its dictionaries.
    fn write_one(&self, table: u64, batches: &[RecordBatch]) -> Result<StoredPart> {
        let id = {
            let mut state = self.lock();
            state.parts += 1;
            state.parts
        };
        let written = write_part(self.disk.as_ref(), &part_path(id), batches)?;
        self.lock().part_bytes.insert(id, written.bytes);
        let batches = u32::try_from(batches.len()).unwrap_or(u32::MAX);
        Ok(StoredPart { id, table, batches, bytes: written.bytes, digest: written.digest })
    }
}

impl Readers {
    fn remember(&mut self, part: u64, reader: Arc<PartReader>) {
        if self.bytes > FOOTER_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += reader.footer_bytes;
        self.by_part.insert(part, reader);
    }

    fn forget(&mut self, part: u64) {
        if let Some(reader) = self.by_part.remove(&part) {
            self.bytes = self.bytes.saturating_sub(reader.footer_bytes);
        }
    }
}

pub(super) fn parts_of(tables: &[StoredTable]) -> impl Iterator<Item = &StoredPart> {
    tables.iter().flat_map(|table| &table.batches).map(|batch| &batch.part)
}

impl Store for DiskStore {
    fn newest(&self) -> Result<Option<Checkpoint>> {
        for folder in [MANIFESTS, LISTS, PARTS] {
            self.disk.create_folder(folder).map_err(|error| disk_failed(folder, &error))?;
        }
        self.disk.sync_folder("").map_err(|error| disk_failed("the data directory", &error))?;
        let versions = self.numbers(MANIFESTS, ".json")?;
        let (lists, parts) = (self.numbers(LISTS, ".list")?, self.numbers(PARTS, ".arrow")?);
        let mut state = State {
            versions: versions.last().copied().unwrap_or(0),
            lists: lists.last().copied().unwrap_or(0),
            parts: parts.last().copied().unwrap_or(0),
            ..State::default()
        };
        for part in &parts {
            let path = part_path(*part);
            let bytes = self.disk.len(&path).map_err(|error| read_failed(&path, &error))?;
            state.part_bytes.insert(*part, bytes);
        }
        let mut newest = None;
        let mut refused = None;
        for version in versions.iter().rev().copied() {
            match self.load(version) {
                Ok((checkpoint, kept)) => {
                    newest = newest.or(Some(checkpoint));
                    state.kept.push_front(kept);
                }
                // The one before counts where the journal still goes on from it, which it will say.
                Err(error) if error.kind() == ErrorKind::Internal && newest.is_none() && refused.is_none() => {
                    tracing::error!(%error, "the newest checkpoint cannot be read; the one before is tried");
                    refused = Some(error);
                }
                // What comes before the newest is only kept for then.
                Err(_) if newest.is_some() => break,
                Err(error) => return Err(refused.unwrap_or(error)),
            }
            if state.kept.len() == KEPT {
                break;
            }
        }
        if let (None, Some(refused)) = (&newest, refused) {
            return Err(refused);
        }
        // What no checkpoint names is what a crash interrupted, or somebody's last hope: it goes with the next checkpoint.
        let named: HashSet<u64> =
            newest.iter().flat_map(|newest| parts_of(&newest.tables)).map(|part| part.id).collect();
        state.released = parts.into_iter().filter(|part| !named.contains(part)).collect();
        *self.lock() = state;
        Ok(newest)
    }

    fn write(&self, table: u64, batches: &[RecordBatch]) -> Result<Vec<StoredPart>> {
        let (mut parts, mut rest) = (Vec::new(), batches);
        let mut write = || {
            while !rest.is_empty() {
                let (one, others) = rest.split_at(of_one_part(rest));
                parts.push(self.write_one(table, one)?);
                rest = others;
            }
            self.disk.sync_folder(PARTS).map_err(|error| disk_failed(PARTS, &error))
        };
        let written = write();
        if written.is_err() {
            parts.iter().for_each(|part| self.release(part));
        }
        written.map(|()| parts)
    }

    fn read(&self, part: &StoredPart, batch: u32, columns: &[u32]) -> Result<Vec<ArrayRef>> {
        self.reader(part)?.read(self.disk.as_ref(), batch, columns)
    }

    fn publish(&self, checkpoint: &Checkpoint) -> Result<()> {
        let kept = match self.write_checkpoint(checkpoint) {
            Err(error) if error.kind() == ErrorKind::LimitExceeded && self.disk.remove(RESERVE.0).is_ok() => {
                self.write_checkpoint(checkpoint)?
            }
            written => written?,
        };
        {
            let mut state = self.lock();
            state.kept.push_back(kept);
            while state.kept.len() > KEPT {
                state.kept.pop_front();
            }
        }
        self.sweep();
        if self.disk.len(RESERVE.0).is_err() {
            // On a full disk there is none, and nothing is lost by that.
            let made = write_file(self.disk.as_ref(), RESERVE.0, &vec![0; RESERVE.1], 0);
            if let Err(error) = made {
                tracing::debug!(%error, "there is no space for the reserve");
            }
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<StoreFile>> {
        self.files_of_newest()
    }

    fn read_file(&self, path: &str, offset: u64, bytes: u64) -> Result<Bytes> {
        let mut read = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        self.disk.read_at(path, &mut read, offset).map_err(|error| read_failed(path, &error))?;
        Ok(read.into())
    }

    fn path(&self, part: &StoredPart) -> String {
        part_path(part.id)
    }

    fn release(&self, part: &StoredPart) {
        self.lock().released.insert(part.id);
    }

    fn bytes(&self) -> u64 {
        let state = self.lock();
        let lists: u64 = state.kept.iter().flat_map(|kept| kept.lists.values()).map(|list| list.bytes).sum();
        state.part_bytes.values().sum::<u64>() + lists
    }

    fn released_bytes(&self) -> u64 {
        let state = self.lock();
        state.released.iter().filter_map(|part| state.part_bytes.get(part)).sum()
    }
}
