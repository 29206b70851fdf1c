//! Registrations on their way through the mesh: tried, written, then live.
//! Health and leases are live only: after a restart they are heard of again.

use std::time::Instant;

use selvage_certs::SpiffeId;
use selvage_core::registry::{
    Alarm, Event, InvalidRegistration, NotRegistered, Registration, WorkloadKey,
};

use super::Mesh;
use crate::store::StoreError;

/// Why a registration was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error(transparent)]
    Invalid(#[from] InvalidRegistration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Mesh {
    /// Creates or replaces a registration; on disk before it is live.
    ///
    /// # Errors
    /// It is refused, or the store cannot be written.
    pub(crate) async fn register(&self, registration: Registration) -> Result<(), RegisterError> {
        let _writer = self.writer.lock().await;
        // Tried on a copy, so that nothing is live that is not on disk.
        let mut trial = self.live.read().registry.clone();
        let changes = trial.register(registration.clone(), Instant::now())?;
        let mut revision = None;
        if !changes.is_empty() {
            let name = registration.key().to_string();
            let body = serde_json::to_value(&registration)
                .map_err(|_| StoreError::Damaged("registrations"))?;
            revision = Some(
                self.store
                    .call(move |db| db.put_registration(&name, &body))
                    .await?,
            );
        }
        let mut live = self.live.write();
        let made = live.registry.register(registration, Instant::now())?;
        live.revision = revision.unwrap_or(live.revision);
        // A heartbeat since the trial may have left more to change, or less.
        if revision.is_some() || !made.is_empty() {
            self.count_change(&mut live);
        }
        drop(live);
        for change in &changes {
            let message = format!("{:?} as a replica of {}", change.event, change.service);
            self.journal
                .record("registry", &change.workload.to_string(), message);
        }
        Ok(())
    }

    /// Extends a lease and takes the health reported. Not stored.
    ///
    /// # Errors
    /// There is no such registration of this identity.
    pub(crate) fn heartbeat(
        &self,
        key: &WorkloadKey,
        identity: &SpiffeId,
        health: &[(u16, bool)],
    ) -> Result<(), NotRegistered> {
        let mut live = self.live.write();
        let change = live
            .registry
            .heartbeat(key, identity, health, Instant::now())?;
        if change.is_some() {
            self.count_change(&mut live);
        }
        drop(live);
        if let Some(change) = change {
            self.journal
                .record("registry", &key.to_string(), format!("{:?}", change.event));
        }
        Ok(())
    }

    /// Removes a registration at once; `None` where this identity has none.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn deregister(
        &self,
        key: &WorkloadKey,
        identity: &SpiffeId,
    ) -> Result<Option<()>, StoreError> {
        let _writer = self.writer.lock().await;
        let owner = self.read(|live| {
            live.registry
                .entry(key)
                .map(|entry| entry.registration().identity.clone())
        });
        if owner.as_ref() != Some(identity) {
            return Ok(None);
        }
        let names = [key.to_string()];
        let revision = self
            .store
            .call(move |db| db.delete_registrations(&names))
            .await?;
        let mut live = self.live.write();
        live.revision = revision;
        let gone = live.registry.deregister(key, identity);
        if gone.is_ok() {
            self.count_change(&mut live);
        }
        drop(live);
        if gone.is_ok() {
            self.journal
                .record("registry", &key.to_string(), "deregistered");
        }
        Ok(gone.ok().map(drop))
    }

    /// Lets leases lapse. To be called about once a second.
    ///
    /// # Errors
    /// The store cannot be written; what was removed comes back at a restart.
    pub(crate) async fn expire(&self, now: Instant) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        let (expiry, alarm_before) = {
            let mut live = self.live.write();
            let expiry = live.registry.expire(now);
            if !expiry.changes.is_empty() {
                self.count_change(&mut live);
            }
            let before = std::mem::replace(&mut live.alarm, expiry.alarm);
            (expiry, before)
        };
        match (alarm_before, expiry.alarm) {
            (None, Some(Alarm { silent, of })) => {
                tracing::error!(
                    silent,
                    of,
                    "too many workloads fell silent at once: no lease lapses until they are heard of"
                );
                let message = format!("{silent} of {of} workloads fell silent: expiry is frozen");
                self.journal.record("alarm", "registry", message);
            }
            (Some(_), None) => self.journal.record("alarm", "registry", "expiry goes on"),
            _ => {}
        }
        let mut removed = Vec::new();
        for change in &expiry.changes {
            self.journal.record(
                "registry",
                &change.workload.to_string(),
                format!("{:?}", change.event),
            );
            if change.event == Event::Removed {
                removed.push(change.workload.to_string());
            }
        }
        if !removed.is_empty() {
            let revision = self
                .store
                .call(move |db| db.delete_registrations(&removed))
                .await?;
            let mut live = self.live.write();
            live.revision = revision;
            self.count_change(&mut live);
        }
        Ok(())
    }
}
