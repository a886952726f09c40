//! How far each writer of a table has come.
//!
//! A commit changes one writer, and a table may have thousands: they lie in chunks that states of the table share, of which a
//! commit copies one.

use crate::ports::{Error, ErrorKind, MemoryAccount, Reservation, Result, WriterCommit, WriterState};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Chunks of one table.
const CHUNKS: usize = 64;

/// The writers of one state of a table.
#[derive(Debug, Clone, Default)]
pub struct Writers {
    chunks: Vec<Arc<BTreeMap<String, Arc<Known>>>>,
    count: usize,
}

#[derive(Debug)]
struct Known {
    state: WriterState,
    _memory: Reservation,
}

/// What is kept of writers.
#[derive(Debug, Clone, Copy)]
pub struct WriterLimits {
    /// Writers of one table.
    pub writers_max: u64,
    /// Microseconds after which a writer that commits nothing is forgotten.
    pub keep_us: i64,
}

/// What a numbered commit is.
#[derive(Debug)]
pub enum Numbered {
    /// The next one: this is how far its writer comes with it, but for its rows and its place among all commits.
    Next(WriterState),
    /// One that was made already: this is how far its writer has come.
    Repeated(WriterState),
}

impl Writers {
    /// Returns how far a writer has come; none where it is not known at `now_us`.
    pub fn get(&self, writer: &str, limits: WriterLimits, now_us: i64) -> Option<&WriterState> {
        self.known(writer).filter(|state| now_us.saturating_sub(state.time_us) < limits.keep_us)
    }

    /// Decides what a commit is that comes at `now_us`.
    ///
    /// # Errors
    ///
    /// `Conflict` for a number that was skipped, and for an epoch that another one has taken over from.
    pub fn number(&self, commit: &WriterCommit, limits: WriterLimits, now_us: i64) -> Result<Numbered> {
        let WriterCommit { writer, epoch, sequence, offset } = commit;
        let before = self.get(writer, limits, now_us);
        let (last_epoch, last) = before.map_or((0, 0), |state| (state.epoch, state.sequence));
        let conflict = |message: String| Err(Error::new(ErrorKind::Conflict, message));
        if *epoch < last_epoch {
            return conflict(format!("writer {writer:?} was taken over by epoch {last_epoch}; this is epoch {epoch}"));
        }
        match before {
            Some(state) if *sequence <= last => Ok(Numbered::Repeated(state.clone())),
            _ if *sequence == last + 1 => Ok(Numbered::Next(WriterState {
                writer: writer.clone(),
                epoch: *epoch,
                sequence: *sequence,
                offset: offset.clone(),
                rows: before.map_or(0, |state| state.rows),
                ..WriterState::default()
            })),
            None => {
                conflict(format!("writer {writer:?} is not known, and a writer begins with commit 1, not {sequence}"))
            }
            Some(_) => conflict(format!("writer {writer:?} goes on with commit {}, not {sequence}", last + 1)),
        }
    }

    /// Returns the writers after one has come further. Where there are too many, those that were forgotten give way.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` for one writer too many, and where there is no memory for it.
    pub fn with(&self, state: WriterState, limits: WriterLimits, account: &MemoryAccount) -> Result<Self> {
        let mut next = self.clone();
        if self.known(&state.writer).is_none() && self.count as u64 >= limits.writers_max {
            next = next.without_forgotten(limits, state.time_us);
            if next.count as u64 >= limits.writers_max {
                return Err(Error::limit(format!("the table has {} writers already (writers_max)", next.count)));
            }
        }
        let bytes = size_of::<Known>() + 2 * state.writer.len() + state.offset.as_ref().map_or(0, String::len);
        let memory = account.reserve(bytes as u64)?;
        next.chunks.resize_with(CHUNKS, Arc::default);
        let chunk = Arc::make_mut(&mut next.chunks[chunk_of(&state.writer)]);
        let before = chunk.insert(state.writer.clone(), Arc::new(Known { state, _memory: memory }));
        next.count += usize::from(before.is_none());
        Ok(next)
    }

    /// Returns all writers, whether they are still known or not.
    pub fn states(&self) -> impl Iterator<Item = &WriterState> {
        self.chunks.iter().flat_map(|chunk| chunk.values()).map(|known| &known.state)
    }

    fn known(&self, writer: &str) -> Option<&WriterState> {
        self.chunks.get(chunk_of(writer))?.get(writer).map(|known| &known.state)
    }

    fn without_forgotten(mut self, limits: WriterLimits, now_us: i64) -> Self {
        for chunk in &mut self.chunks {
            Arc::make_mut(chunk).retain(|_, known| now_us.saturating_sub(known.state.time_us) < limits.keep_us);
        }
        self.count = self.chunks.iter().map(|chunk| chunk.len()).sum();
        self
    }
}

fn chunk_of(writer: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    writer.hash(&mut hasher);
    (hasher.finish() % CHUNKS as u64) as usize
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::writers::{Numbered, WriterLimits, Writers};
    use crate::ports::{ErrorKind, MemoryAccount, WriterCommit, WriterState};

    const LIMITS: WriterLimits = WriterLimits { writers_max: 3, keep_us: 100 };

    fn commit(writer: &str, epoch: u64, sequence: u64) -> WriterCommit {
        WriterCommit { writer: writer.into(), epoch, sequence, offset: Some(format!("at {sequence}")) }
    }

    fn after(writers: &Writers, commit: &WriterCommit, now_us: i64) -> Writers {
        let Numbered::Next(state) = writers.number(commit, LIMITS, now_us).unwrap() else { panic!("{commit:?}") };
        writers.with(WriterState { time_us: now_us, ..state }, LIMITS, &MemoryAccount::default()).unwrap()
    }

    #[test]
    fn a_commit_is_the_next_one_or_a_repeated_one_or_refused() {
        let writers = after(&after(&Writers::default(), &commit("w", 0, 1), 1), &commit("w", 5, 2), 2);
        for repeated in [1, 2] {
            let Numbered::Repeated(state) = writers.number(&commit("w", 5, repeated), LIMITS, 3).unwrap() else {
                panic!("{repeated}")
            };
            assert_eq!((state.sequence, state.offset.as_deref()), (2, Some("at 2")));
        }
        for refused in [commit("w", 5, 4), commit("w", 4, 3), commit("w", 4, 1), commit("v", 0, 2), commit("w", 5, 0)] {
            match writers.number(&refused, LIMITS, 3) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{refused:?}"),
                Ok(Numbered::Repeated(_)) => assert_eq!(refused.sequence, 0),
                Ok(numbered) => panic!("{refused:?}: {numbered:?}"),
            }
        }
        after(&writers, &commit("w", 6, 3), 3);
    }

    #[test]
    fn writers_are_forgotten_by_time_and_never_by_number() {
        let account = MemoryAccount::default();
        let mut writers = Writers::default();
        for writer in ["a", "b", "c"] {
            writers = after(&writers, &commit(writer, 0, 1), 0);
        }
        let fourth = WriterState { writer: "d".into(), sequence: 1, time_us: 50, ..WriterState::default() };
        assert_eq!(writers.with(fourth, LIMITS, &account).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(writers.get("a", LIMITS, 99).is_some() && writers.get("a", LIMITS, 100).is_none());
        assert!(writers.number(&commit("a", 0, 2), LIMITS, 100).is_err(), "forgotten is not known");
        let later = after(&writers, &commit("d", 0, 1), 100);
        assert_eq!((writers.count, later.count), (3, 1));
    }
}
