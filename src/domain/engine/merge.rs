//! Merging of small segments, in the background, one task for each table at a time.

use crate::domain::engine::Inner;
use crate::domain::storage::{merge_run, mergeable_run};
use std::sync::Arc;

impl Inner {
    /// Merges what is worth merging in a table, some time soon.
    pub(super) fn merge_later(self: &Arc<Self>, name: &str) {
        let snapshot = self.catalog.present();
        let Some(table) = snapshot.tables().get(name) else { return };
        if mergeable_run(table.segments()).is_none() {
            return;
        }
        // Whoever holds the lock is merging, and looks again before it stops; or it changes the table, which is soon
        // followed by the next append.
        let Ok(lock) = table.change_lock().try_lock_owned() else { return };
        let (inner, name, id) = (self.clone(), name.to_owned(), table.id());
        self.lanes.heavy.spawn(async move {
            let _lock = lock;
            let mut from = 0;
            while let Some(next) = inner.merge_once(&name, id, from) {
                from = next;
                tokio::task::yield_now().await;
            }
        });
    }

    /// Merges one run of segments at or after `from`: where to look for the next, if there may be one.
    fn merge_once(&self, name: &str, id: u64, from: usize) -> Option<usize> {
        let snapshot = self.catalog.present();
        let base = snapshot.tables().get(name).filter(|table| table.id() == id)?;
        let run = mergeable_run(base.segments().get(from..)?)?;
        let run = from + run.start..from + run.end;
        let merged = match merge_run(&base.segments()[run.clone()], &self.budget) {
            Ok(merged) => merged,
            Err(error) => {
                // Dictionaries that together outgrow their keys stay apart; what comes after may still be merged.
                tracing::debug!(table = name, %error, "a run of segments stays as it is");
                return Some(run.end);
            }
        };
        let mut segments = base.segments().to_vec();
        segments.splice(run, [merged]);
        let published = self.catalog.publish(|present| match present.tables().get(name) {
            Some(table) if table.id() == id => {
                Ok((vec![(name.to_owned(), Some(table.rewritten(base, segments)))], true))
            }
            _ => Ok((Vec::new(), false)),
        });
        published.is_ok_and(|published| published).then_some(from)
    }
}
