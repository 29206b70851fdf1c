//! The live state of the mesh: resources, registrations, revision. Every
//! change takes the same road: decided by the core, written to the store, then
//! live, then published. Knows no protocol: the services and the operator API
//! call it.

mod folder;
mod publish;
mod registrations;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use selvage_certs::TrustDomain;
use selvage_core::diagnostic::{Diagnostic, Diagnostics, Place};
use selvage_core::parse;
use selvage_core::registry::{Alarm, Registry};
use selvage_core::resource::{Resource, ResourceKey};
use selvage_core::world::{Action, Apply, Change, World};
use tokio::sync::{Mutex, watch};

use crate::journal::Journal;
use crate::store::{Edit, Key, Store, StoreError};

pub(crate) use publish::{Published, Viewer};
pub(crate) use registrations::RegisterError;

/// Stamps of a folder's resources begin here: what is applied comes first.
const FOLDER_STAMPS: u64 = 1 << 40;

/// Why a change of the resources was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The documents are refused; nothing changed.
    #[error("the documents are refused")]
    Refused(Diagnostics),
    /// A resource of the watched folder is changed there.
    #[error("{0} stands in the watched folder; change it there")]
    InFolder(ResourceKey),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is there now.
pub(crate) struct Live {
    pub(crate) world: World,
    pub(crate) registry: Registry,
    pub(crate) revision: u64,
    pub(crate) alarm: Option<Alarm>,
    /// Resources that come from the watched folder.
    pub(crate) in_folder: BTreeSet<ResourceKey>,
}

impl Live {
    fn next_stamp(&self) -> u64 {
        let applied = self
            .world
            .resources()
            .map(|stored| stored.stamp)
            .filter(|stamp| *stamp < FOLDER_STAMPS);
        applied.max().unwrap_or(0) + 1
    }

    /// Registered workloads by `namespace/service`.
    pub(crate) fn endpoints_by_service(&self) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        for entry in self.registry.entries() {
            *counts
                .entry(entry.registration().service_name().to_string())
                .or_insert(0) += 1;
        }
        counts
    }
}

/// How documents are applied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ApplyOptions {
    pub(crate) dry_run: bool,
    pub(crate) strict: bool,
}

/// The state and the road every change of it takes.
pub(crate) struct Mesh {
    store: Store,
    journal: Arc<Journal>,
    /// Held from decision to store to live, so that writes are made one after
    /// the other. Heartbeats do not need it: they are not stored.
    writer: Mutex<()>,
    live: RwLock<Live>,
    /// How many changes went live. Counted while `live` is held for writing, so
    /// that whoever sees a change finds it counted.
    changes: watch::Sender<u64>,
    published: watch::Sender<Arc<Published>>,
}

impl Mesh {
    /// Takes back what the store holds. Leases begin now.
    ///
    /// # Errors
    /// The store cannot be read, or holds what this version does not take.
    pub(crate) async fn load(
        store: Store,
        trust_domain: TrustDomain,
        lease: std::time::Duration,
        bundle: selvage_api::v1::TrustBundle,
        journal: Arc<Journal>,
    ) -> anyhow::Result<Self> {
        let (kept, registrations, revision) = store
            .call(|db| Ok((db.resources()?, db.registrations()?, db.revision()?)))
            .await?;
        let mut world = World::new(trust_domain);
        let mut resources = Vec::new();
        for stored in kept {
            let read = parse::parse("store", &stored.document.to_string()).map_err(|found| {
                anyhow::anyhow!(
                    "the store holds what this version refuses:\n{}",
                    found.render(false)
                )
            })?;
            resources.extend(read.into_iter().map(|resource| (resource, stored.order)));
        }
        world.reset(resources);
        let mut registry = Registry::new(Instant::now(), lease);
        for body in registrations {
            registry.restore(serde_json::from_value(body)?);
        }
        let published = Published::new(&world, &registry, revision, bundle);
        let live = Live {
            world,
            registry,
            revision,
            alarm: None,
            in_folder: BTreeSet::new(),
        };
        Ok(Self {
            store,
            journal,
            writer: Mutex::new(()),
            live: RwLock::new(live),
            changes: watch::Sender::new(0),
            published: watch::Sender::new(Arc::new(published)),
        })
    }

    /// Looks at the state. `look` must not block.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Live) -> T) -> T {
        look(&self.live.read())
    }

    /// Applies documents: all or nothing. On a dry run nothing is changed, and
    /// the answer is what would have been done.
    ///
    /// # Errors
    /// The documents are refused, or the store cannot be written.
    pub(crate) async fn apply(
        &self,
        resources: Vec<Resource>,
        options: ApplyOptions,
    ) -> Result<(Change, u64), ChangeError> {
        let _writer = self.writer.lock().await;
        let (next, change, revision) = {
            let live = self.live.read();
            let mut taken = Diagnostics::default();
            for resource in resources
                .iter()
                .filter(|resource| live.in_folder.contains(&resource.key))
            {
                let message = format!(
                    "{} stands in the watched folder; change it there",
                    resource.key
                );
                taken.push(Diagnostic::error(&resource.place, "metadata.name", message));
            }
            if !taken.is_empty() {
                return Err(ChangeError::Refused(taken));
            }
            let how = Apply {
                first_stamp: live.next_stamp(),
                registered: &live.registry.services(),
                strict: options.strict,
            };
            let (next, change) = live
                .world
                .plan(resources, how)
                .map_err(ChangeError::Refused)?;
            (next, change, live.revision)
        };
        let changed = change
            .applied
            .iter()
            .filter(|applied| applied.action != Action::Unchanged);
        let edits: Vec<_> = changed
            .filter_map(|applied| {
                let stored = next.resource(&applied.key)?;
                Some(Edit::Put(
                    key_of(&applied.key),
                    stored.resource.document.clone(),
                    applied.stamp,
                ))
            })
            .collect();
        if options.dry_run || edits.is_empty() {
            return Ok((change, revision));
        }
        let revision = self.store.call(move |db| db.edit(&edits)).await?;
        self.go_live(next, revision);
        for applied in change
            .applied
            .iter()
            .filter(|applied| applied.action != Action::Unchanged)
        {
            let action = if applied.action == Action::Created {
                "created"
            } else {
                "configured"
            };
            self.journal
                .record("applied", &applied.key.to_string(), action);
        }
        Ok((change, revision))
    }

    /// Deletes one resource; false where there is none.
    ///
    /// # Errors
    /// It stands in the watched folder, or the store cannot be written.
    pub(crate) async fn delete(&self, key: &ResourceKey) -> Result<Option<u64>, ChangeError> {
        let _writer = self.writer.lock().await;
        let mut next = {
            let live = self.live.read();
            if live.in_folder.contains(key) {
                return Err(ChangeError::InFolder(key.clone()));
            }
            live.world.clone()
        };
        if !next.delete(key) {
            return Ok(None);
        }
        let edit = [Edit::Delete(key_of(key))];
        let revision = self.store.call(move |db| db.edit(&edit)).await?;
        self.go_live(next, revision);
        self.journal.record("deleted", &key.to_string(), "deleted");
        Ok(Some(revision))
    }

    /// Replaces what comes from the watched folder by these texts, given as
    /// name and contents.
    ///
    /// # Errors
    /// They are refused; what came from the folder before stays.
    pub(crate) async fn replace_folder(
        &self,
        texts: &[(String, String)],
    ) -> Result<Diagnostics, ChangeError> {
        let sources = texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        let resources = parse::parse_all(sources).map_err(ChangeError::Refused)?;
        let _writer = self.writer.lock().await;
        let keys: BTreeSet<_> = resources
            .iter()
            .map(|resource| resource.key.clone())
            .collect();
        let (next, change) = {
            let live = self.live.read();
            let mut base = live.world.clone();
            for key in &live.in_folder {
                base.delete(key);
            }
            let mut taken = Diagnostics::default();
            for resource in resources
                .iter()
                .filter(|resource| base.resource(&resource.key).is_some())
            {
                let message = format!(
                    "{} was applied already; delete it there first",
                    resource.key
                );
                taken.push(Diagnostic::error(&resource.place, "metadata.name", message));
            }
            if !taken.is_empty() {
                return Err(ChangeError::Refused(taken));
            }
            let how = Apply {
                first_stamp: FOLDER_STAMPS,
                registered: &live.registry.services(),
                strict: false,
            };
            base.plan(resources, how).map_err(ChangeError::Refused)?
        };
        let revision = self.store.call(|db| db.touch("folder")).await?;
        self.live.write().in_folder = keys;
        self.go_live(next, revision);
        self.journal.record(
            "applied",
            "folder",
            format!("{} resources in force", change.applied.len()),
        );
        Ok(change.warnings)
    }

    fn go_live(&self, world: World, revision: u64) {
        let mut live = self.live.write();
        live.world = world;
        live.revision = revision;
        self.count_change(&mut live);
    }

    /// Counts a change that `live` was just given; its publication follows.
    fn count_change(&self, _held: &mut Live) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// How many changes went live so far. A picture with as many shows all
    /// that anybody was told before.
    pub(crate) fn changes(&self) -> u64 {
        *self.changes.borrow()
    }

    /// What is published, now and later.
    pub(crate) fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Follows a folder of resources until told to stop.
    pub(crate) async fn follow_folder(
        &self,
        path: PathBuf,
        stop: tokio_util::sync::CancellationToken,
    ) {
        folder::follow(self, path, stop).await;
    }
}

fn key_of(key: &ResourceKey) -> Key {
    Key {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// A finding about a source as a whole.
pub(crate) fn about(source: &str, message: impl Into<String>) -> Diagnostics {
    let mut found = Diagnostics::default();
    found.push(Diagnostic::error(&Place::of_source(source), "", message));
    found
}
