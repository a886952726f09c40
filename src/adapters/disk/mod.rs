//! A data directory on this machine's disk.
//!
//! ```text
//! FORMAT              which format, whose store
//! LOCK                held by the process that has it
//! journal/N.wal       commits in their order, N from 1
//! parts/N.arrow       rows, as Arrow IPC files
//! lists/N.list        which rows of which parts a table has
//! manifest/N.json     which lists make up a checkpoint; the newest counts
//! reserve             space for a checkpoint on a full disk
//! ```
//!
//! What is acknowledged is in the journal, on the disk. From time to time rows are flushed to parts, a checkpoint is published, and the
//! journal before it is trimmed. At the start the newest checkpoint is read, then the journal after it (`reader.rs`, which tells an
//! interrupted write from damage), and a new file is begun, so that nothing is ever written behind something that may be torn.

mod buffer;
mod device;
mod directory;
mod entry_codec;
mod file;
mod group;
mod heads;
mod journal;
mod journal_files;
mod list_codec;
mod log;
mod log_state;
mod maintenance;
mod manifest;
mod part_layout;
mod part_reader;
mod part_writer;
mod reader;
mod real_disk;
mod record;
mod sections;
mod spare;
mod store;
mod store_files;
mod writer;

pub use device::{BLOCK, Disk, DiskFile};
pub use directory::DataDirectory;
pub use journal::{DiskJournal, JournalOptions, StoreId};
pub use maintenance::{Truncated, Verified, restore, truncate, verify};
pub use real_disk::RealDisk;
pub use store::DiskStore;
