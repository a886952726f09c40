//! A disk that loses what it may: everything that was not synced, in any part.
//!
//! It remembers every operation. So one history has as many crashes as it has operations, and as many images of each as there are
//! seeds: of each unsynced write any sectors may be there, of each unsynced name any of the operations may have happened.

use crate::durability::random::Random;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use zepto_flight::adapters::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// What a disk does wrong on purpose: each of them has to be noticed by the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    SyncedWritesAreNot,
    SyncDoesNothing,
    FoldersAreNotSynced,
}

/// What the next operations come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    #[default]
    Fair,
    /// Nothing can be created or become longer.
    Full,
    /// The next write finds no space.
    NoSpaceOnce,
    /// The next write fails, and nobody knows what it did.
    ErrorOnce,
}

#[derive(Debug, Clone)]
enum Op {
    Create { path: String, inode: usize, bytes: usize },
    Write { inode: usize, offset: usize, bytes: Arc<[u8]>, is_synced: bool },
    Sync { inode: usize },
    Rename { from: String, to: String },
    Remove { path: String },
    SyncFolder { folder: String },
}

#[derive(Debug, Default)]
struct Sim {
    /// What was there at the beginning.
    base: Image,
    ops: Vec<Op>,
    /// As the process sees it.
    live: Image,
    weather: Weather,
}

/// Files and their names.
#[derive(Debug, Clone, Default)]
pub struct Image {
    inodes: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<Sim>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimDisk {
    pub fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(Sim { base: image.clone(), live: image, ..Sim::default() })))
    }

    /// Returns the number of operations until now.
    pub fn ops(&self) -> usize {
        self.0.lock().unwrap().ops.len()
    }

    pub fn set_weather(&self, weather: Weather) {
        self.0.lock().unwrap().weather = weather;
    }

    /// Returns everything as the process sees it: what a kill leaves.
    pub fn live(&self) -> Image {
        self.0.lock().unwrap().live.clone()
    }

    /// Returns what may be left after a crash in the middle of operation `at`, counted from 0.
    pub fn crash(&self, at: usize, random: &mut Random, fault: Option<Fault>) -> Image {
        let sim = self.0.lock().unwrap();
        let mut crash = Crash { image: sim.base.clone(), writes: Vec::new(), names: Vec::new(), fault };
        crash.ops(&sim.ops[..at]);
        if let Some(op) = sim.ops.get(at) {
            crash.interrupted(op);
        }
        crash.settle(random)
    }

    fn file(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), inode })
    }
}

/// What is durable, and what is not.
struct Crash {
    image: Image,
    writes: Vec<(usize, usize, Arc<[u8]>)>,
    names: Vec<Op>,
    fault: Option<Fault>,
}

impl Crash {
    fn ops(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Create { inode, bytes, .. } => {
                    self.image.inodes.resize(inode + 1, Vec::new());
                    self.image.inodes[*inode] = vec![0; *bytes];
                    self.names.push(op.clone());
                }
                Op::Write { inode, offset, bytes, is_synced } => {
                    if *is_synced && self.fault != Some(Fault::SyncedWritesAreNot) {
                        put(&mut self.image.inodes[*inode], *offset, bytes);
                    } else {
                        self.writes.push((*inode, *offset, bytes.clone()));
                    }
                }
                Op::Sync { inode } if self.fault != Some(Fault::SyncDoesNothing) => {
                    let (synced, rest) =
                        std::mem::take(&mut self.writes).into_iter().partition(|write| write.0 == *inode);
                    self.writes = rest;
                    let synced: Vec<_> = synced;
                    synced
                        .iter()
                        .for_each(|(inode, offset, bytes)| put(&mut self.image.inodes[*inode], *offset, bytes));
                }
                Op::SyncFolder { folder } if self.fault != Some(Fault::FoldersAreNotSynced) => {
                    let (synced, rest) = std::mem::take(&mut self.names).into_iter().partition(|op| op.is_in(folder));
                    self.names = rest;
                    let synced: Vec<_> = synced;
                    synced.iter().for_each(|op| op.name(&mut self.image.names));
                }
                Op::Sync { .. } | Op::SyncFolder { .. } => {}
                Op::Rename { .. } | Op::Remove { .. } => self.names.push(op.clone()),
            }
        }
    }

    /// An operation that had begun may have happened in any part.
    fn interrupted(&mut self, op: &Op) {
        match op {
            Op::Write { inode, offset, bytes, .. } => self.writes.push((*inode, *offset, bytes.clone())),
            Op::Create { inode, .. } => {
                self.image.inodes.resize(inode + 1, Vec::new());
                self.names.push(op.clone());
            }
            Op::Rename { .. } | Op::Remove { .. } => self.names.push(op.clone()),
            Op::Sync { .. } | Op::SyncFolder { .. } => {}
        }
    }

    /// Decides what is left.
    fn settle(mut self, random: &mut Random) -> Image {
        // Everything, nothing, or anything in between.
        let kept = [0, 50, 90, 100][random.below(4)];
        for op in self.names {
            if random.below(100) < kept {
                op.name(&mut self.image.names);
            }
        }
        for (inode, offset, bytes) in self.writes {
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                if random.below(100) < kept {
                    put(&mut self.image.inodes[inode], offset + at * SECTOR, sector);
                } else if random.below(20) == 0 {
                    let garbage: Vec<u8> = sector.iter().map(|_| random.below(256) as u8).collect();
                    put(&mut self.image.inodes[inode], offset + at * SECTOR, &garbage);
                }
            }
        }
        self.image
    }
}

impl Op {
    fn is_in(&self, folder: &str) -> bool {
        let path = match self {
            Self::Create { path, .. } | Self::Remove { path } | Self::Rename { to: path, .. } => path,
            _ => return false,
        };
        path.rsplit_once('/').map_or("", |(folder, _)| folder) == folder
    }

    /// Does what it does to names; one that is not there is not there.
    fn name(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create { path, inode, .. } => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
            Self::Rename { from, to } => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            _ => {}
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl Image {
    /// Returns the names of all files.
    pub fn paths(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Returns the bytes of a file.
    pub fn bytes(&mut self, path: &str) -> &mut Vec<u8> {
        &mut self.inodes[self.names[path]]
    }

    pub fn remove(&mut self, path: &str) {
        self.names.remove(path);
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let inode = self.names.remove(from).unwrap();
        self.names.insert(to.to_owned(), inode);
    }

    pub fn copy(&mut self, from: &str, to: &str) {
        let bytes = self.bytes(from).clone();
        self.inodes.push(bytes);
        self.names.insert(to.to_owned(), self.inodes.len() - 1);
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let sim = self.0.lock().unwrap();
        let in_folder = sim.live.names.keys().filter_map(|path| path.rsplit_once('/').filter(|(at, _)| *at == folder));
        Ok(in_folder.map(|(_, name)| name.to_owned()).collect())
    }

    fn create_folder(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut sim = self.0.lock().unwrap();
        if sim.live.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if sim.weather == Weather::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        sim.live.inodes.push(vec![0; bytes as usize]);
        let inode = sim.live.inodes.len() - 1;
        sim.live.names.insert(path.to_owned(), inode);
        sim.ops.push(Op::Create { path: path.to_owned(), inode, bytes: bytes as usize });
        drop(sim);
        Ok(self.file(inode))
    }

    fn read(&self, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let sim = self.0.lock().unwrap();
        let inode = *sim.live.names.get(path).ok_or_else(missing)?;
        let bytes = &sim.live.inodes[inode];
        Ok(bytes[..bytes.len().min(usize::try_from(bytes_max).unwrap_or(usize::MAX))].to_vec())
    }

    fn read_at(&self, path: &str, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let all = self.read(path, u64::MAX)?;
        let part = all.get(offset as usize..offset as usize + bytes.len());
        bytes.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self, path: &str) -> io::Result<u64> {
        Ok(self.read(path, u64::MAX)?.len() as u64)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sim = self.0.lock().unwrap();
        let op = Op::Rename { from: from.to_owned(), to: to.to_owned() };
        op.name(&mut sim.live.names);
        sim.ops.push(op);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut sim = self.0.lock().unwrap();
        sim.live.names.remove(path).ok_or_else(missing)?;
        sim.ops.push(Op::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.0.lock().unwrap().ops.push(Op::SyncFolder { folder: folder.to_owned() });
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64, is_synced: bool) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096), "whole blocks");
        let mut sim = self.disk.0.lock().unwrap();
        let (inode, offset) = (self.inode, offset as usize);
        let grows = sim.live.inodes[inode].len() < offset + bytes.len();
        let op = Op::Write { inode, offset, bytes: bytes.into(), is_synced };
        match sim.weather {
            Weather::Full if grows => return Err(io::ErrorKind::StorageFull.into()),
            Weather::NoSpaceOnce | Weather::ErrorOnce => {
                let error =
                    if sim.weather == Weather::NoSpaceOnce { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                sim.weather = Weather::Fair;
                // Any part of it may have been written.
                put(&mut sim.live.inodes[inode], offset, bytes);
                sim.ops.push(Op::Write { inode, offset, bytes: bytes.into(), is_synced: false });
                return Err(error.into());
            }
            _ => {}
        }
        put(&mut sim.live.inodes[inode], offset, bytes);
        sim.ops.push(op);
        Ok(())
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        let mut sim = self.disk.0.lock().unwrap();
        sim.live.inodes[self.inode].truncate(bytes as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.0.lock().unwrap().ops.push(Op::Sync { inode: self.inode });
        Ok(())
    }
}
