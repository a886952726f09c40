//! What the journal asks of a disk: few enough operations that a test can play one.
//!
//! Paths are relative to the data directory. What was written is durable once it was synced, a name once its folder was: a
//! crash may keep any part of everything else. The simulated disk of the tests does the worst that this allows.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Bytes that writes and their offsets are a multiple of, so that they can go past the page cache.
pub const BLOCK: usize = 4096;

/// A directory on a disk.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Lists the names in a folder; none where there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Creates a folder unless it is there.
    fn create_folder(&self, folder: &str) -> io::Result<()>;

    /// Creates a file of so many zeros, which are on the disk when this returns; its name is not. Fails where there is one.
    fn create(&self, path: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Reads the first `bytes_max` bytes of a file, or all of a shorter one.
    fn read(&self, path: &str, bytes_max: u64) -> io::Result<Vec<u8>>;

    /// Fills `bytes` from a place in a file.
    fn read_at(&self, path: &str, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns the length of a file.
    fn len(&self, path: &str) -> io::Result<u64>;

    /// Gives a file another name, in the place of one that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a folder durable: what was created, renamed and removed there.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Writes all of `bytes`, whole blocks at a whole block; durable when this returns where `is_synced`. What was written before
    /// without that does not become durable by it.
    fn write_at(&self, bytes: &[u8], offset: u64, is_synced: bool) -> io::Result<()>;

    /// Makes all that was written durable.
    fn sync(&self) -> io::Result<()>;

    /// Gives back the space behind the first so many bytes; it may come back after a crash.
    fn shorten(&self, bytes: u64) -> io::Result<()>;
}
