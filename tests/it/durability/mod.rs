//! What is acknowledged is there: the journal over a disk that loses what it may, and the server over a real one.

mod crashes;
mod damage;
mod engine_crashes;
pub mod flushed;
mod random;
pub mod restarted;
mod sim_disk;
