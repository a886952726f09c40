//! The log: commits come in at one end, are written in groups by a few threads, and are answered in their order.
//!
//! ```text
//! append → queue → [one thread at a time: take, encode, place] → [several at the same time: write] → answers, in order
//! ```
//!
//! No timer: a thread takes what is there. A commit that comes while groups are being written joins the next one, so one client
//! waits for one write, and many share one. Several groups are under way at the same time because a disk does more that
//! way; they are answered in order, so what is acknowledged is always a prefix.
//!
//! Where a group has no space, everything from it on is refused: the file is abandoned from there, durably, before anybody is told. After
//! any other error of a write nobody knows what is on the disk: the log has failed, and takes nothing any more. A second
//! attempt could seem to work and mean nothing.

use crate::adapters::disk::buffer::AlignedBuffer;
use crate::adapters::disk::group::Group;
use crate::adapters::disk::log_state::{Answer, Refused, State};
use crate::adapters::disk::spare::Spare;
use crate::adapters::disk::writer::{Place, Writer};
use crate::ports::{Durability, Effect, Entry, Error, ErrorKind, OnDone};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long nothing comes before a mark is written.
const MARK_AFTER: Duration = Duration::from_millis(50);

/// The log.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
    /// Something came, a group was written, or the log is to stop.
    changed: Condvar,
    writer: Mutex<Writer>,
    spare: Arc<Spare>,
    /// Held while answers are given, so that they are given in order.
    answering: Mutex<()>,
    /// Bytes from which on nothing more is put to a group.
    group_bytes: u64,
}

/// What is durable once a group was written.
#[derive(Debug, Clone, Copy)]
enum Synced {
    Nothing,
    Itself,
    /// With all before it.
    All,
}

/// What a thread is to do.
enum Work {
    Group(Group),
    Abandon(Refused),
    Stop,
}

impl Log {
    /// Makes a log that goes on after commit `last_lsn`, in groups of about `group_bytes`.
    pub fn new(writer: Writer, spare: Arc<Spare>, last_lsn: u64, time_us: i64, group_bytes: u64) -> Self {
        Self {
            state: Mutex::new(State::after(last_lsn, time_us)),
            changed: Condvar::new(),
            writer: Mutex::new(writer),
            spare,
            answering: Mutex::default(),
            group_bytes,
        }
    }

    /// Takes a commit in.
    pub fn append(&self, entry: Entry, on_done: OnDone) {
        let mut state = self.lock();
        let lsn = entry.lsn.0;
        // What is acknowledged before it is written needs space that is there already; else it waits as others do.
        let is_tight = entry.durability == Durability::Memory
            && state.queue.len() as u64 * SMALL_BYTES + bytes_of(&entry) > self.spare.ready_bytes() / 2;
        let durability = if is_tight { Durability::Wal } else { entry.durability };
        let refusal = match &state.failed {
            Some(failed) => Some(failed.clone()),
            // What this one was built on was refused, and it is with it.
            None if lsn != state.expected => Some(state.last_refusal.clone().unwrap_or_else(out_of_order)),
            None => None,
        };
        let is_refused = refusal.is_some();
        state.answers.push_back(Answer { lsn, durability, on_done, result: refusal.map(Err) });
        if !is_refused {
            state.expected += 1;
            state.time_us = entry.time_us;
            state.queue.push_back(entry);
            self.changed.notify_one();
        }
        drop(state);
        if is_refused || durability == Durability::Memory {
            self.answer();
        }
    }

    /// Writes what comes, until the log is stopped and everything is written.
    pub fn run(&self, staging: &mut AlignedBuffer) {
        while self.step(staging, true) {}
    }

    /// Writes what is there, without waiting for more: for a log without threads.
    pub fn drain(&self, staging: &mut AlignedBuffer) {
        while self.step(staging, false) {}
    }

    /// Does one thing; false where there is nothing to do any more.
    fn step(&self, staging: &mut AlignedBuffer, waits: bool) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match self.next_work(waits) {
            Work::Stop => return false,
            Work::Abandon(refused) => {
                match writer.abandon_from(refused.offset, refused.lsn - 1) {
                    Ok(()) => self.lock().synced_all(refused.lsn - 1),
                    Err(error) => self.refuse(refused.lsn, unknown(&error)),
                }
                self.refuse(refused.lsn, refused.error);
            }
            Work::Group(mut group) => {
                if let Some(place) = self.place(&mut writer, &mut group) {
                    self.write(writer, &group, &place, staging);
                }
            }
        }
        self.answer();
        true
    }

    /// Writes a group where it has its place.
    fn write(&self, mut writer: MutexGuard<'_, Writer>, group: &Group, place: &Place, staging: &mut AlignedBuffer) {
        let wants_sync = group.durability == Some(Durability::Fsync);
        if wants_sync && writer.is_dirty {
            // What was written without a sync becomes durable by one that comes after all of it.
            let others = self.lock();
            drop(self.changed.wait_while(others, |state| state.writing > 1).unwrap_or_else(PoisonError::into_inner));
            let written = group.write(place, staging, false);
            // After a sync that failed nothing is known, whatever it says: the system may have dropped what it could not write.
            let written = written.and_then(|()| place.file.sync().map_err(io::Error::other));
            writer.is_dirty = written.is_err();
            give_back_mark(&mut writer, group, place, &written);
            self.written(group, place, Synced::All, written);
        } else if group.is_mark {
            // Nobody else writes now.
            let written = group.write(place, staging, true);
            give_back_mark(&mut writer, group, place, &written);
            self.written(group, place, Synced::Nothing, written);
        } else {
            writer.is_dirty |= !wants_sync;
            drop(writer);
            let written = group.write(place, staging, wants_sync);
            self.written(group, place, if wants_sync { Synced::Itself } else { Synced::Nothing }, written);
        }
    }

    /// Waits for something to do. Commits are taken until a group is large enough.
    fn next_work(&self, waits: bool) -> Work {
        let mut state = self.lock();
        loop {
            let is_idle = state.writing == 0;
            if state.refused.is_some() {
                if let Some(refused) = state.refused.take_if(|_| is_idle) {
                    return Work::Abandon(refused);
                }
            } else if !state.queue.is_empty() {
                return Work::Group(self.take_group(state));
            } else if !waits {
                return Work::Stop;
            } else if state.is_stopped {
                return if is_idle && state.wants_mark() { Work::Group(state.mark()) } else { Work::Stop };
            } else if is_idle && state.wants_mark() {
                let waited = self.changed.wait_timeout(state, MARK_AFTER).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                let nothing_came = state.queue.is_empty() && state.writing == 0 && !state.is_stopped;
                if waited.1.timed_out() && nothing_came {
                    return Work::Group(state.mark());
                }
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take_group<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Group {
        let mut group = Group::new();
        while group.bytes() < self.group_bytes {
            let Some(entry) = state.queue.pop_front() else { break };
            drop(state);
            if let Err(error) = group.add(&entry) {
                self.refuse(entry.lsn.0, error);
                break;
            }
            state = self.lock();
        }
        group
    }

    /// Finds the place of a group and counts it as being written; none where there is none, or it is empty.
    fn place(&self, writer: &mut Writer, group: &mut Group) -> Option<Place> {
        if group.is_empty() {
            return None;
        }
        if !writer.has_room(group.bytes(), group.only_takes_away) {
            if group.is_mark {
                return None;
            }
            if self.all_written().is_over(group.first_lsn()) {
                return None;
            }
            if let Err(error) = writer.next_file(group.first_lsn() - 1, group.bytes()) {
                // Nothing of this group was written: nothing has to be abandoned.
                self.refuse(group.first_lsn(), if is_full(&error) { full(&error) } else { unknown(&error) });
                return None;
            }
            // Beginning a file makes the one before it durable.
            self.lock().synced_all(group.first_lsn() - 1);
        }
        let mut state = self.lock();
        if state.is_over(group.first_lsn()) {
            return None;
        }
        state.writing += 1;
        group.seal(writer.salt(), state.synced);
        Some(writer.place(group.bytes()))
    }

    /// Waits until no group is being written.
    fn all_written(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.writing > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Notes what became of a group.
    fn written(&self, group: &Group, place: &Place, synced: Synced, written: io::Result<()>) {
        let mut state = self.lock();
        state.writing -= 1;
        let (first, last) = (group.first_lsn(), group.last_lsn());
        match written {
            Ok(()) => {
                if !group.is_mark {
                    state.written(first, last);
                }
                match synced {
                    Synced::Nothing => {}
                    Synced::Itself => state.synced_itself(first, last),
                    Synced::All => state.synced_all(last),
                }
            }
            Err(error) if group.is_mark && is_full(&error) => {}
            Err(error) if is_full(&error) && !state.is_acknowledged(first) => {
                let refused = Refused { lsn: first, offset: place.offset, error: full(&error) };
                let is_first = state.refused.as_ref().is_none_or(|before| refused.lsn < before.lsn);
                if is_first {
                    state.refused = Some(refused);
                }
            }
            Err(error) => state.fail(first, unknown(&error)),
        }
        self.changed.notify_all();
    }

    /// Refuses the commits from `lsn` on that have come until now.
    fn refuse(&self, lsn: u64, error: Error) {
        let mut state = self.lock();
        if state.failed.is_some() {
            return;
        }
        if error.kind() == ErrorKind::Unavailable {
            state.fail(lsn, error);
        } else if state.is_acknowledged(lsn) {
            state.fail(lsn, unknown(&io::Error::other(error.to_string())));
        } else {
            state.refuse(lsn, &error);
            state.expected = lsn;
        }
    }

    /// Gives the answers that are known, in order.
    fn answer(&self) {
        let _in_order = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let answer = self.lock().next_answer();
            let Some(answer) = answer else { return };
            (answer.on_done)(answer.result.unwrap_or(Ok(())));
        }
    }

    /// Returns whether it takes nothing any more.
    pub fn is_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    /// Has the threads stop once everything is written.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether an error says that there is no space, after which everything is known to be as it was.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Takes back the place of a mark that found no space: without it nothing is lost, but nothing may be written behind a gap.
fn give_back_mark(writer: &mut Writer, group: &Group, place: &Place, written: &io::Result<()>) {
    if group.is_mark && written.as_ref().is_err_and(is_full) {
        writer.give_back(place);
    }
}

fn full(error: &io::Error) -> Error {
    Error::limit(format!("the disk of the data directory is full ({error}); nothing of this commit was stored"))
}

fn unknown(error: &io::Error) -> Error {
    Error::unavailable(format!(
        "the journal could not be written ({error}): whether this commit is stored is known after a restart; until then nothing is taken"
    ))
}

/// Bytes that a commit in the queue takes, about, where nobody counted.
const SMALL_BYTES: u64 = 4 << 10;

/// Returns about how many bytes a commit takes.
fn bytes_of(entry: &Entry) -> u64 {
    let batches = |effect: &Effect| match effect {
        Effect::Create { batches, .. } | Effect::Append { batches, .. } => {
            batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum()
        }
        Effect::Update { values, .. } => values.get_array_memory_size() as u64,
        _ => 0,
    };
    SMALL_BYTES + entry.effects.iter().map(batches).sum::<u64>()
}

fn out_of_order() -> Error {
    Error::internal("a commit came out of order")
}
