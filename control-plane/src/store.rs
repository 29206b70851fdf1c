//! The embedded store: one redb file, versioned records, a revision for every
//! change, and a watch from a revision. What it has acknowledged is on disk.
//! Records are opaque here as far as possible: what a resource means is the
//! core's, who may register what is decided by those who call.
//!
//! [`Db`] is synchronous and does the work; [`Store`] is what the rest of the
//! control plane holds: it runs `Db` off the runtime's threads and tells
//! watchers of new revisions.

mod db;
mod record;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use db::{Changes, Db, Edit};
pub(crate) use record::{Binding, Certificate, Key, StoredResource, Token};

/// How many changes are kept for watchers; one that is further behind starts over.
pub(crate) const CHANGES_KEPT: u64 = 10_000;

/// What the store cannot do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Another process holds the file.
    #[error("the store is in use by another process")]
    InUse,
    /// A record of a later version of this program.
    #[error("a record has schema version {0}, which this version does not know")]
    Schema(u8),
    /// A record that does not parse, or has no version.
    #[error("a record of table `{0}` is damaged")]
    Damaged(&'static str),
    /// The token is unknown, spent or expired; which of these is not said.
    #[error("the join token is not valid: unknown, expired, or used up")]
    Token,
    /// A certificate could not be made; nothing was recorded.
    #[error("signing failed: {0}")]
    Signing(String),
    /// The disk, or redb itself.
    #[error("store: {0}")]
    Storage(Box<redb::Error>),
    /// The runtime is shutting down.
    #[error("the control plane is stopping")]
    Stopping,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Storage(Box::new(error.into()))
    }
}

/// The store as the rest of the control plane holds it; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    db: Arc<Db>,
    revision: watch::Sender<u64>,
}

impl Store {
    /// Wraps an open database.
    ///
    /// # Errors
    /// Its revision cannot be read.
    pub(crate) fn try_new(db: Db) -> Result<Self, StoreError> {
        let revision = db.revision()?;
        Ok(Self {
            db: Arc::new(db),
            revision: watch::Sender::new(revision),
        })
    }

    /// Runs one operation on a thread that may block. It runs to its end even
    /// if the caller goes away: an acknowledged write is whole.
    ///
    /// # Errors
    /// Those of the operation.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let result = operation(&this.db);
            if let Ok(now) = this.db.revision() {
                this.revision.send_if_modified(|seen| {
                    let newer = now > *seen;
                    *seen = now.max(*seen);
                    newer
                });
            }
            result
        })
        .await
        .map_err(|_| StoreError::Stopping)?
    }

    /// Follows the changes after `revision`, in order, without a gap.
    pub(crate) fn watch(&self, revision: u64) -> Watch {
        Watch {
            store: self.clone(),
            seen: revision,
            news: self.revision.subscribe(),
        }
    }
}

/// A reader of changes.
#[derive(Debug)]
pub(crate) struct Watch {
    store: Store,
    seen: u64,
    news: watch::Receiver<u64>,
}

impl Watch {
    /// Waits for changes after the last ones given. [`Changes::Reset`] says
    /// that some are not kept any more: read everything anew.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Changes, StoreError> {
        let seen = self.seen;
        self.news
            .wait_for(|revision| *revision > seen)
            .await
            .map_err(|_| StoreError::Stopping)?;
        let changes = self.store.call(move |db| db.changes_since(seen)).await?;
        self.seen = match &changes {
            Changes::List(list) => list.last().map_or(seen, |change| change.revision),
            Changes::Reset { revision } => *revision,
        };
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[tokio::test]
    async fn a_watch_sees_every_change_after_its_revision() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::try_new(Db::open(&folder.path().join("store.redb")).unwrap()).unwrap();
        let first = store.call(|db| db.touch("before")).await.unwrap();
        let mut watch = store.watch(first);
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for index in 0..20 {
                writer
                    .call(move |db| db.touch(&index.to_string()))
                    .await
                    .unwrap();
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 20 {
            match watch.next().await.unwrap() {
                Changes::List(list) => seen.extend(list.into_iter().map(|c| c.revision)),
                Changes::Reset { .. } => panic!("nothing was dropped"),
            }
        }
        assert_eq!(seen, (first + 1..=first + 20).collect::<Vec<_>>());
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_watch_from_too_long_ago_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("store.redb")).unwrap();
        db.touch_many(CHANGES_KEPT + 5).unwrap();
        let store = Store::try_new(db).unwrap();
        let reset = store.watch(1).next().await.unwrap();
        assert!(matches!(reset, Changes::Reset { revision } if revision == CHANGES_KEPT + 5));
        let listed = store.watch(5).next().await.unwrap();
        assert!(matches!(listed, Changes::List(list) if list.len() as u64 == CHANGES_KEPT));
    }
}
