//! A directory of this machine.
//!
//! Journal files are written past the page cache where the file system lets us (O_DIRECT), and durable with the write itself
//! (RWF_DSYNC): one system call a group, and several at the same time. Elsewhere writes go through the cache and are synced
//! after it, which is slower and no less safe.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::device::{BLOCK, Disk, DiskFile};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::fs::{self, File};
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of zeros that are written at a time.
const ZEROS: usize = 1 << 20;

/// A directory.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// The file whose lock says that the directory is this process's.
    _lock: Option<File>,
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Whether writes go past the page cache.
    is_direct: bool,
}

impl RealDisk {
    /// Makes a disk of the directory at `root`, which is there.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), _lock: None }
    }

    /// Makes a disk of the directory at `root`, which keeps `lock` for as long as somebody uses it.
    pub fn locked(root: &Path, lock: File) -> Self {
        Self { _lock: Some(lock), ..Self::new(root) }
    }
}

impl Disk for RealDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        match fs::create_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            created => created,
        }
    }

    fn create(&self, path: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, is_direct) = match open(&path, flags | OFlags::DIRECT, Mode::from_raw_mode(0o600)) {
            Ok(file) => (file, true),
            // Some file systems create the file before they find out that they cannot.
            Err(Errno::INVAL) => {
                let _ = fs::remove_file(&path);
                (open(&path, flags, Mode::from_raw_mode(0o600))?, false)
            }
            Err(error) => return Err(error.into()),
        };
        let file = RealFile { file: file.into(), is_direct };
        let written = file.write_zeros(bytes).and_then(|()| file.file.sync_all());
        if let Err(error) = written {
            // A file that is not whole helps nobody, and its space may be what is missing.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn read(&self, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.root.join(path))?;
        let bytes = file.metadata()?.len().min(bytes_max);
        let mut read = Vec::with_capacity(usize::try_from(bytes).map_err(io::Error::other)?);
        file.take(bytes).read_to_end(&mut read)?;
        Ok(read)
    }

    fn read_at(&self, path: &str, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        File::open(self.root.join(path))?.read_exact_at(bytes, offset)
    }

    fn len(&self, path: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.root.join(path))?.len())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }
}

impl RealFile {
    fn write_zeros(&self, bytes: u64) -> io::Result<()> {
        let zeros = AlignedBuffer::new(ZEROS);
        let mut offset = 0;
        while offset < bytes {
            let part = (bytes - offset).min(ZEROS as u64);
            self.write_at(&zeros.as_slice()[..part as usize], offset, false)?;
            offset += part;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64, is_synced: bool) -> io::Result<()> {
        if !self.is_direct {
            self.file.write_all_at(bytes, offset)?;
            return if is_synced { self.sync().map_err(io::Error::other) } else { Ok(()) };
        }
        let flags = if is_synced { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let mut written = 0;
        while written < bytes.len() {
            match pwritev2(&self.file, &[IoSlice::new(&bytes[written..])], offset + written as u64, flags) {
                // A part of a block cannot be gone on from.
                Ok(more) if more == 0 || more % BLOCK != 0 => return Err(Errno::NOSPC.into()),
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                // An old kernel, or a file system that knows no flags.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.file.write_all_at(&bytes[written..], offset + written as u64)?;
                    return if is_synced { self.sync().map_err(io::Error::other) } else { Ok(()) };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}
