//! What the log knows: which commits wait, which are being written, what is durable, and what was refused.

use crate::adapters::disk::group::Group;
use crate::ports::{Durability, Entry, Error, ErrorKind, OnDone, Result};
use std::collections::{BTreeMap, VecDeque};

/// The state.
#[derive(Debug)]
pub struct State {
    /// Commits that no group has taken.
    pub queue: VecDeque<Entry>,
    /// Those that somebody waits for, in their order.
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
    /// The last commit when the last mark was written, which makes durable what was only written.
    pub flushed: u64,
    /// When the last commit was made.
    pub time_us: i64,
    /// Groups that are being written.
    pub writing: usize,
    /// What found no space and is not refused yet.
    pub refused: Option<Refused>,
    /// Why commits were refused the last time.
    pub last_refusal: Option<Error>,
    /// Why the log takes nothing any more.
    pub failed: Option<Error>,
    /// Whether the threads are to end.
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
            flushed: last_lsn,
            time_us,
            writing: 0,
            refused: None,
            last_refusal: None,
            failed: None,
            is_stopped: false,
        }
    }

    /// Returns the last commit that was taken in.
    fn last(&self) -> u64 {
        self.expected - 1
    }

    /// Returns whether a mark would say more than the last one, or make more durable.
    pub fn wants_mark(&self) -> bool {
        (self.synced > self.marked || self.last() > self.flushed) && self.failed.is_none()
    }

    /// Makes a mark behind the last commit, when all of them are written.
    pub fn mark(&mut self) -> Group {
        (self.marked, self.flushed) = (self.synced, self.last());
        Group::mark(self.last(), self.time_us)
    }

    /// Takes the next answer that is due.
    pub fn next_answer(&mut self) -> Option<Answer> {
        let is_due = |answer: &mut Answer| answer.result.is_some() || answer.durability == Durability::Memory;
        let answer = self.answers.pop_front_if(is_due)?;
        if answer.result.as_ref().is_none_or(Result::is_ok) {
            self.answered = answer.lsn;
        }
        Some(answer)
    }

    /// Notes that the commits of a group are written.
    pub fn written(&mut self, first: u64, last: u64) {
        let is_ours = |answer: &&mut Answer| answer.lsn >= first && answer.lsn <= last && answer.result.is_none();
        for answer in self.answers.iter_mut().filter(is_ours) {
            answer.result = Some(Ok(()));
        }
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

    /// Returns whether somebody was told that a commit is there.
    pub fn is_acknowledged(&self, lsn: u64) -> bool {
        self.answered >= lsn
    }

    /// Answers the commits from `lsn` on with an error, which have come until now.
    pub fn refuse(&mut self, lsn: u64, error: &Error) {
        self.queue.clear();
        self.synced_ahead.retain(|_, last| *last < lsn);
        let follower = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::LimitExceeded => error.clone(),
            _ => Error::limit("a commit before this one was refused, and this one with it; send it again"),
        };
        // Whatever became of those behind it: they were built on it.
        for answer in self.answers.iter_mut().filter(|answer| answer.lsn >= lsn) {
            answer.result = Some(Err(if answer.lsn == lsn { error.clone() } else { follower.clone() }));
        }
        self.last_refusal = Some(follower);
    }

    /// Takes nothing any more, and says so to the commits from `lsn` on.
    pub fn fail(&mut self, lsn: u64, error: Error) {
        tracing::error!(%error, "the journal has failed; this server only reads from now on");
        self.refuse(lsn, &error);
        self.failed.get_or_insert(error);
    }
}
