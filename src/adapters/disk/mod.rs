//! A data directory on this machine's disk.
//!
//! ```text
//! FORMAT              which format, whose store
//! LOCK                held by the process that has it
//! journal/N.wal       commits in their order, N from 1
//! ```
//!
//! What is acknowledged is in the journal, on the disk. At the start all of it is read again (`reader.rs`, which tells an
//! interrupted write from damage), and a new file is begun, so that nothing is ever written behind something that may be torn.

mod buffer;
mod device;
mod directory;
mod entry_codec;
mod file;
mod group;
mod journal;
mod log;
mod log_state;
mod reader;
mod real_disk;
mod record;
mod spare;
mod writer;

pub use device::{BLOCK, Disk, DiskFile};
pub use directory::DataDirectory;
pub use journal::{DiskJournal, JournalOptions, StoreId};
pub use real_disk::RealDisk;
