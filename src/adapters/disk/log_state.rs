//! What the log knows: which commits wait, which are being written, what is durable, and what was refused.

use crate::adapters::disk::group::Group;
use crate::ports::{Durability, Entry, Error, OnDone, Result};
use std::collections::{BTreeMap, VecDeque};

/// The state.
#[derive(Debug)]
pub struct State {
    pub queue: VecDeque<Entry>,
    pub answers: VecDeque<Answer>,
    /// The number that the next entry has to have.
    pub expected: u64,
    /// The highest number that is durable, with all before it.
    pub synced: u64,
    /// Groups that are durable beyond that: their last numbers by their first ones.
    pub synced_ahead: BTreeMap<u64, u64>,
    /// The highest number that was acknowledged.
    pub answered: u64,
    /// The number that the last mark vouched for.
    pub marked: u64,
    pub time_us: i64,
    pub writing: usize,
    pub refused: Option<Refused>,
    pub last_refusal: Option<Error>,
    pub failed: Option<Error>,
    pub is_stopped: bool,
}

/// A commit that somebody waits for.
pub struct Answer {
    pub lsn: u64,
    pub durability: Durability,
    pub on_done: OnDone,
    pub result: Option<Result<()>>,
}

/// Groups that found no space: everything from there on is to be refused.
#[derive(Debug)]
pub struct Refused {
    pub lsn: u64,
    /// Where the first of them began.
    pub offset: u64,
    pub error: Error,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("lsn", &self.lsn).field("result", &self.result).finish_non_exhaustive()
    }
}

impl State {
    /// Makes the state of a log that goes on after commit `last_lsn`, which was made at `time_us`.
    pub fn after(last_lsn: u64, time_us: i64) -> Self {
        Self {
            queue: VecDeque::new(),
            answers: VecDeque::new(),
            expected: last_lsn + 1,
            synced: last_lsn,
            synced_ahead: BTreeMap::new(),
            answered: last_lsn,
            marked: last_lsn,
            time_us,
            writing: 0,
            refused: None,
            last_refusal: None,
            failed: None,
            is_stopped: false,
        }
    }

    pub fn wants_mark(&self) -> bool {
        self.synced > self.marked && self.failed.is_none()
    }

    pub fn mark(&mut self) -> Group {
        self.marked = self.synced;
        Group::mark(self.synced, self.time_us)
    }

    /// Notes that the commits of one group are durable.
    pub fn synced_itself(&mut self, first: u64, last: u64) {
        if last > self.synced {
            self.synced_ahead.insert(first, last);
        }
        while let Some(last) = self.synced_ahead.remove(&(self.synced + 1)) {
            self.synced = last;
        }
    }

    /// Notes that all commits up to one are durable.
    pub fn synced_all(&mut self, last: u64) {
        self.synced = self.synced.max(last);
        self.synced_ahead.retain(|first, _| *first > last);
    }

    /// Returns whether a group before commit `lsn` has found no space or failed, and that commit with it.
    pub fn is_over(&self, lsn: u64) -> bool {
        self.failed.is_some() || self.refused.as_ref().is_some_and(|refused| refused.lsn <= lsn)
    }

    pub fn is_acknowledged(&self, lsn: u64) -> bool {
        self.answered >= lsn
    }

    /// Answers the commits from `lsn` on with an error, which have come until now.
    pub fn refuse(&mut self, lsn: u64, error: &Error) {
        self.queue.clear();
        self.last_refusal = Some(error.clone());
        for answer in self.answers.iter_mut().filter(|answer| answer.lsn >= lsn && answer.result.is_none()) {
            answer.result = Some(Err(error.clone()));
        }
    }

    pub fn fail(&mut self, lsn: u64, error: Error) {
        tracing::error!(%error, "the journal has failed; this server only reads from now on");
        self.refuse(lsn, &error);
        self.failed.get_or_insert(error);
    }
}
