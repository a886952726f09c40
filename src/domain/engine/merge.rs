//! Merging of small segments, in the background, one task for each table at a time.

use crate::domain::engine::Inner;
use crate::domain::storage::{merge_run, mergeable_run};
use crate::ports::Result;
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
        self.runtime.spawn(async move {
            let _lock = lock;
            while let Ok(true) = inner.merge_once(&name, id) {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Merges one run of segments. False where there is none, or the table is gone.
    fn merge_once(&self, name: &str, id: u64) -> Result<bool> {
        let snapshot = self.catalog.present();
        let Some(base) = snapshot.tables().get(name).filter(|table| table.id() == id) else { return Ok(false) };
        let Some(run) = mergeable_run(base.segments()) else { return Ok(false) };
        let merged = merge_run(&base.segments()[run.clone()], &self.budget)?;
        let mut segments = base.segments().to_vec();
        segments.splice(run, [merged]);
        self.catalog.publish(|present| match present.tables().get(name) {
            Some(table) if table.id() == id => {
                Ok((vec![(name.to_owned(), Some(table.rewritten(base, segments)))], true))
            }
            _ => Ok((Vec::new(), false)),
        })
    }
}
