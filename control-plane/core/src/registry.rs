//! The registry: which workloads are there, by leases. Stands beside the
//! world; a service that workloads register exists without a document.
//! Refuses to know how registrations arrive and are kept.
//!
//! A lease that lapses means `unhealthy`; removal comes [`REMOVAL_AFTER`]
//! later, and only an explicit deregistration is immediate. A registry that
//! hears nothing is more likely deaf than the mesh dead, therefore:
//! - none expires for two leases after the start;
//! - if more than [`FREEZE_PERCENT`] of the workloads, and more than one, lapse
//!   within one lease, expiry freezes and an alarm is raised, until so many
//!   are heard of again (or deregistered) that the share is no longer passed.

mod registration;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use selvage_certs::SpiffeId;

use crate::resource::ServiceName;
pub use registration::{
    InvalidRegistration, RegisteredPort, Registration, WorkloadKey, authorize_registration,
    labels_fit,
};

/// How long a lease lasts unless configured otherwise.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(15);

/// How long a lapsed workload is kept, as unhealthy.
pub const REMOVAL_AFTER: Duration = Duration::from_secs(600);

/// When a larger share lapses within one lease, expiry freezes.
pub const FREEZE_PERCENT: usize = 20;

/// Workloads in one registry.
pub const MAX_WORKLOADS: usize = 100_000;

/// There is no such registration of this identity: register again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this identity has no registration of this name: register again")]
pub struct NotRegistered;

/// What became of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which workload.
    pub workload: WorkloadKey,
    /// Its service: the view of it is another now.
    pub service: ServiceName,
    /// What happened.
    pub event: Event,
}

/// What happened to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is new, or registered anew.
    Registered,
    /// It left this service, for another one.
    Moved,
    /// Its application answers, or no longer does.
    HealthChanged,
    /// Its lease lapsed: it is unhealthy.
    Lapsed,
    /// It was heard of again after a lapse.
    Returned,
    /// It was lapsed for [`REMOVAL_AFTER`].
    Removed,
    /// It said goodbye.
    Deregistered,
}

/// What [`Registry::expire`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expiry {
    /// What changed.
    pub changes: Vec<Change>,
    /// Set while expiry is frozen.
    pub alarm: Option<Alarm>,
}

/// Too many workloads fell silent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// How many fell silent.
    pub silent: usize,
    /// Of how many.
    pub of: usize,
}

/// A workload, as the registry sees it.
#[derive(Debug, Clone)]
pub struct Entry {
    registration: Registration,
    /// Until when it is believed.
    lease: Instant,
    lapsed: Option<Instant>,
}

impl Entry {
    /// What it registered, with the health it last reported.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Whether its lease has lapsed.
    #[must_use]
    pub fn is_lapsed(&self) -> bool {
        self.lapsed.is_some()
    }

    fn change(&self, event: Event) -> Change {
        Change {
            workload: self.registration.key(),
            service: self.registration.service_name(),
            event,
        }
    }
}

/// Which workloads are there.
#[derive(Debug, Clone)]
pub struct Registry {
    start: Instant,
    lease: Duration,
    entries: BTreeMap<WorkloadKey, Entry>,
    frozen: Option<Instant>,
}

impl Registry {
    /// A registry that starts now, empty.
    #[must_use]
    pub fn new(start: Instant, lease: Duration) -> Self {
        Self {
            start,
            lease,
            entries: BTreeMap::new(),
            frozen: None,
        }
    }

    /// How long a lease lasts.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Takes back what was kept over a restart. Its lease begins at the start.
    pub fn restore(&mut self, kept: Registration) {
        let entry = Entry {
            registration: kept,
            lease: self.start + self.lease,
            lapsed: None,
        };
        self.entries.insert(entry.registration.key(), entry);
    }

    /// Creates or replaces a registration, with a fresh lease.
    ///
    /// # Errors
    /// The registration is malformed, or its name is another identity's.
    pub fn register(
        &mut self,
        registration: Registration,
        now: Instant,
    ) -> Result<Vec<Change>, InvalidRegistration> {
        registration.check()?;
        let key = registration.key();
        let before = self.entries.get(&key);
        match before {
            Some(old) if old.registration.identity != registration.identity => {
                return Err(InvalidRegistration::Taken(key));
            }
            None if self.entries.len() >= MAX_WORKLOADS => return Err(InvalidRegistration::Full),
            _ => {}
        }
        let same = before.is_some_and(|old| !old.is_lapsed() && old.registration == registration);
        let mut changes = Vec::new();
        if let Some(old) = before
            && old.registration.service != registration.service
        {
            changes.push(old.change(Event::Moved));
        }
        let entry = Entry {
            registration,
            lease: now + self.lease,
            lapsed: None,
        };
        if !same {
            changes.push(entry.change(Event::Registered));
        }
        self.entries.insert(key, entry);
        Ok(changes)
    }

    /// Extends a lease. Health is taken for the ports that were registered;
    /// other ports are ignored: they come with a registration.
    ///
    /// # Errors
    /// The identity has no registration of this name.
    pub fn heartbeat(
        &mut self,
        key: &WorkloadKey,
        identity: &SpiffeId,
        health: &[(u16, bool)],
        now: Instant,
    ) -> Result<Option<Change>, NotRegistered> {
        let lease = now + self.lease;
        let entry = self.owned(key, identity)?;
        entry.lease = lease;
        let returned = entry.lapsed.take().is_some();
        let mut changed = false;
        for port in &mut entry.registration.ports {
            let reported = health
                .iter()
                .find(|(number, _)| *number == port.service_port);
            if let Some((_, healthy)) = reported
                && port.healthy != *healthy
            {
                port.healthy = *healthy;
                changed = true;
            }
        }
        Ok(match (returned, changed) {
            (true, _) => Some(entry.change(Event::Returned)),
            (false, true) => Some(entry.change(Event::HealthChanged)),
            (false, false) => None,
        })
    }

    /// Removes a workload at once.
    ///
    /// # Errors
    /// The identity has no registration of this name.
    pub fn deregister(
        &mut self,
        key: &WorkloadKey,
        identity: &SpiffeId,
    ) -> Result<Change, NotRegistered> {
        let change = self.owned(key, identity)?.change(Event::Deregistered);
        self.entries.remove(key);
        Ok(change)
    }

    fn owned(
        &mut self,
        key: &WorkloadKey,
        identity: &SpiffeId,
    ) -> Result<&mut Entry, NotRegistered> {
        let entry = self.entries.get_mut(key).ok_or(NotRegistered)?;
        if entry.registration.identity == *identity {
            Ok(entry)
        } else {
            Err(NotRegistered)
        }
    }

    /// Lets leases lapse, and removes what lapsed long ago. To be called every
    /// second or so.
    pub fn expire(&mut self, now: Instant) -> Expiry {
        if now < self.start + self.lease * 2 {
            return Expiry::default();
        }
        if let Some(alarm) = self.alarm(now) {
            self.frozen.get_or_insert(now);
            return Expiry {
                changes: Vec::new(),
                alarm: Some(alarm),
            };
        }
        self.frozen = None;
        let mut changes = Vec::new();
        self.entries.retain(|_, entry| match entry.lapsed {
            Some(lapsed) if now >= lapsed + REMOVAL_AFTER => {
                changes.push(entry.change(Event::Removed));
                false
            }
            None if now >= entry.lease => {
                entry.lapsed = Some(now);
                changes.push(entry.change(Event::Lapsed));
                true
            }
            _ => true,
        });
        Expiry {
            changes,
            alarm: None,
        }
    }

    /// Counts the workloads that fell silent within one lease: those that
    /// lapsed within it, and those overdue. While frozen, the lease that ended
    /// when it froze goes on counting, so that time alone never thaws.
    fn alarm(&self, now: Instant) -> Option<Alarm> {
        let until = self.frozen.unwrap_or(now);
        let mut overdue = 0;
        let mut recent = 0;
        let mut of = 0;
        for entry in self.entries.values() {
            match entry.lapsed {
                Some(lapsed) if lapsed + self.lease <= until => continue,
                Some(_) => recent += 1,
                None if now >= entry.lease => overdue += 1,
                None => {}
            }
            of += 1;
        }
        let silent = overdue + recent;
        let many = silent > 1 && silent * 100 > of * FREEZE_PERCENT;
        (many && overdue > 0).then_some(Alarm { silent, of })
    }

    /// All workloads, by namespace and name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One workload.
    #[must_use]
    pub fn entry(&self, key: &WorkloadKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The workloads of one service, by name.
    pub fn of_service<'r>(&'r self, service: &'r ServiceName) -> impl Iterator<Item = &'r Entry> {
        let first = WorkloadKey::new(&service.namespace, "");
        self.entries
            .range(first..)
            .take_while(|(key, _)| key.namespace == service.namespace)
            .map(|(_, entry)| entry)
            .filter(|entry| entry.registration.service == service.name)
    }

    /// The services that have a workload.
    #[must_use]
    pub fn services(&self) -> BTreeSet<ServiceName> {
        self.entries()
            .map(|entry| entry.registration.service_name())
            .collect()
    }
}
