//! The order of commits: applied one after the other, taken down in the journal, visible in the same order.
//!
//! A commit is checked and applied to the latest state under one lock, which gives it its number, and handed to the journal
//! under the same lock, so that the journal has them in this order. It becomes visible, and is acknowledged, when the journal
//! says so; meanwhile others go on from the latest state, which nobody reads. Where the journal refuses a commit, that commit
//! and all after it never were: the latest state is the visible one again.

use crate::domain::catalog::commit::{Commit, Context, Rejection};
use crate::domain::catalog::replay::Replayed;
use crate::domain::catalog::snapshot::Snapshot;
use crate::domain::storage::{Allocations, Table, WriterLimits};
use crate::ports::{Clock, Durability, Entry, Error, Journal, Limits, Lsn, Result, WriterState};
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};

/// Gives commits their order.
#[derive(Debug)]
pub struct Commits {
    /// Held while a commit is checked, applied and handed on: it is what orders commits.
    latest: Mutex<Latest>,
    visible: Arc<Visible>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    tables_max: usize,
    writer_limits: WriterLimits,
}

/// The state that the next commit is applied to.
#[derive(Debug)]
struct Latest {
    state: Arc<Snapshot>,
    time_us: i64,
    /// Counts how often the latest state was given up.
    generation: u64,
}

/// What readers see, and what is on its way there.
#[derive(Debug)]
struct Visible {
    current: ArcSwap<Snapshot>,
    /// The version of the last visible commit.
    announced: watch::Sender<u64>,
    waiting: Mutex<Waiting>,
}

/// Commits that are not visible yet, in their order.
#[derive(Debug, Default)]
struct Waiting {
    commits: VecDeque<WaitingCommit>,
    /// The generation that was given up last, where the latest state is still one of it.
    given_up: Option<u64>,
}

#[derive(Debug)]
struct WaitingCommit {
    state: Arc<Snapshot>,
    /// Whether the journal has to say something about it: what only rearranges segments follows the commit before it.
    is_journalled: bool,
    committer: oneshot::Sender<Result<()>>,
    _lock: Option<Arc<OwnedMutexGuard<()>>>,
}

fn forgotten(_: oneshot::error::RecvError) -> Result<()> {
    Err(Error::internal("the journal forgot a commit"))
}

impl Commits {
    /// Goes on from what the journal came to.
    pub fn new(replayed: Replayed, journal: Arc<dyn Journal>, clock: Arc<dyn Clock>, limits: &Limits) -> Self {
        let Replayed { state, time_us, .. } = replayed;
        let (version, state) = (state.version(), Arc::new(state));
        let tables_max = usize::try_from(limits.tables_max).unwrap_or(usize::MAX);
        let writer_limits = writer_limits(limits);
        let visible = Visible {
            current: ArcSwap::new(state.clone()),
            announced: watch::Sender::new(version),
            waiting: Mutex::default(),
        };
        let latest = Latest { state, time_us, generation: 0 };
        Self { latest: Mutex::new(latest), visible: Arc::new(visible), journal, clock, tables_max, writer_limits }
    }

    /// Returns the visible state.
    pub fn current(&self) -> Arc<Snapshot> {
        self.visible.current.load_full()
    }

    /// Returns a watch on the version of the last commit that became visible.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.visible.announced.subscribe()
    }

    /// Returns when the last commit was made, in microseconds since 1970 UTC.
    pub fn time_us(&self) -> i64 {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).time_us
    }

    /// Returns how far a writer of a table has come, as everybody sees it; none where it is not known.
    pub fn writer(&self, table: &Table, writer: &str) -> Option<WriterState> {
        let now_us = self.clock.now_ns().div_euclid(1_000);
        table.writers().get(writer, self.writer_limits, now_us).cloned()
    }

    /// Applies a commit and waits until it is visible.
    ///
    /// # Errors
    ///
    /// The first change's rejection, `LimitExceeded` for one table too many, and the journal's errors. Nothing has changed then, but
    /// where the journal cannot say.
    pub async fn commit(
        &self,
        commit: Commit,
        durability: Durability,
        allocations: &Allocations,
    ) -> Result<(), Rejection> {
        if commit.changes.is_empty() {
            return Ok(());
        }
        // The state before is let go here, in its committer's time: the last holder of a large table takes a while to free it.
        match self.begin(commit, durability, allocations) {
            Ok((_before, decided)) => decided.await.unwrap_or_else(forgotten).map_err(Rejection::Failed),
            Err(rejection) => {
                // What it was rejected for may not be visible yet: whoever tries again looks at what is.
                self.settled().await;
                Err(rejection)
            }
        }
    }

    /// Waits until all that was committed before is decided.
    async fn settled(&self) {
        let decided = {
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            let (committer, decided) = oneshot::channel();
            let state = latest.state.clone();
            self.visible.rearranged(WaitingCommit { state, is_journalled: false, committer, _lock: None }, &latest);
            decided
        };
        // Whatever became of them.
        let _ = decided.await;
    }

    /// Applies a commit to the latest state and hands it on.
    fn begin(
        &self,
        commit: Commit,
        durability: Durability,
        allocations: &Allocations,
    ) -> Result<(Arc<Snapshot>, oneshot::Receiver<Result<()>>), Rejection> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        self.visible.forget_refused(&mut latest);
        let before = latest.state.clone();
        let (mut next, mut effects) = (before.next(), Vec::new());
        // The clock may go back; commits do not.
        let time_us = latest.time_us.max(self.clock.now_ns().div_euclid(1_000));
        let context = Context { allocations, writer_limits: self.writer_limits, time_us };
        for change in commit.changes {
            change.apply(&mut next, &context, &mut effects)?;
        }
        if next.len() > self.tables_max && next.len() > before.len() {
            return Err(Error::limit(format!("there are {} tables already (tables_max)", self.tables_max)).into());
        }
        let is_journalled = !effects.is_empty();
        if !is_journalled {
            next = next.numbered(before.version());
        }
        let lsn = Lsn(next.version());
        let (committer, visible) = oneshot::channel();
        latest.state = Arc::new(next);
        let waiting = WaitingCommit { state: latest.state.clone(), is_journalled, committer, _lock: commit.lock };
        if is_journalled {
            self.visible.waiting().commits.push_back(waiting);
            latest.time_us = time_us;
            let entry = Entry { lsn, time_us, durability, effects };
            let (shown, generation) = (self.visible.clone(), latest.generation);
            self.journal.append(entry, Box::new(move |result| shown.decided(lsn, generation, result)));
        } else {
            self.visible.rearranged(waiting, &latest);
        }
        Ok((before, visible))
    }
}

/// Returns what is kept of writers under `limits`.
fn writer_limits(limits: &Limits) -> WriterLimits {
    let keep_us = match limits.writers_keep_ms {
        0 => i64::MAX,
        keep_ms => i64::try_from(keep_ms).unwrap_or(i64::MAX).saturating_mul(1_000),
    };
    WriterLimits { writers_max: limits.writers_max, keep_us }
}

impl Visible {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes back to the visible state where commits of the latest one were refused.
    fn forget_refused(&self, latest: &mut Latest) {
        let mut waiting = self.waiting();
        if waiting.given_up.take_if(|generation| *generation == latest.generation).is_some() {
            latest.generation += 1;
            latest.state = self.current.load_full();
        }
    }

    /// Does what the journal decided about a commit: shows it, or refuses it with everything that was built on it.
    fn decided(&self, lsn: Lsn, generation: u64, result: Result<()>) {
        let mut waiting = self.waiting();
        match result {
            Ok(()) => {
                let is_it = |commit: &WaitingCommit| commit.is_journalled && commit.state.version() == lsn.0;
                debug_assert!(waiting.commits.front().is_some_and(is_it), "the journal keeps the order");
                if let Some(commit) = waiting.commits.pop_front_if(|commit| is_it(commit)) {
                    self.show(commit);
                }
                self.show_front(&mut waiting);
            }
            Err(error) => {
                let is_it = |commit: &WaitingCommit| commit.state.version() == lsn.0;
                while let Some(commit) = waiting.commits.pop_front_if(|commit| is_it(commit)) {
                    let _ = commit.committer.send(Err(error.clone()));
                }
                waiting.given_up = waiting.given_up.max(Some(generation));
                self.show_front(&mut waiting);
            }
        }
    }

    /// Shows a commit that the journal has nothing to say about, once those before it are shown. One that was made from a state that
    /// was given up meanwhile is refused with it.
    fn rearranged(&self, commit: WaitingCommit, latest: &Latest) {
        let mut waiting = self.waiting();
        if waiting.given_up == Some(latest.generation) {
            let refused = Err(Error::unavailable("a commit before this one was refused"));
            let _ = commit.committer.send(refused);
            return;
        }
        waiting.commits.push_back(commit);
        self.show_front(&mut waiting);
    }

    fn show_front(&self, waiting: &mut Waiting) {
        while let Some(commit) = waiting.commits.pop_front_if(|commit| !commit.is_journalled) {
            self.show(commit);
        }
    }

    fn show(&self, commit: WaitingCommit) {
        let version = commit.state.version();
        self.current.store(commit.state);
        self.announced.send_replace(version);
        // Whoever asked may have gone away.
        let _ = commit.committer.send(Ok(()));
    }
}
