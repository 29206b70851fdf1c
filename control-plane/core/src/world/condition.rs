//! Where a resource stands: what it refers to and is not there, and what it
//! loses to. In the terms of Gateway API.

use std::collections::BTreeSet;

use serde::Serialize;

use super::World;
use crate::attach;
use crate::diagnostic::Diagnostic;
use crate::nearest::nearest;
use crate::resource::reference::ServiceReference;
use crate::resource::{Resource, ResourceKey, ResourceKind, ServiceName};

impl World {
    /// References to services that are neither documented nor registered.
    pub(super) fn dangling<'r>(
        &self,
        resource: &'r Resource,
        registered: &BTreeSet<ServiceName>,
    ) -> Vec<&'r ServiceReference> {
        let missing = |reference: &&ServiceReference| {
            let key = ResourceKey {
                kind: ResourceKind::Service,
                namespace: reference.target.namespace.clone(),
                name: reference.target.name.clone(),
            };
            !self.resources.contains_key(&key) && !registered.contains(&reference.target)
        };
        let all = resource.references.iter().chain(&resource.uses);
        all.filter(missing).collect()
    }

    pub(super) fn dangling_warning(
        &self,
        reference: &ServiceReference,
        registered: &BTreeSet<ServiceName>,
    ) -> Diagnostic {
        let target = &reference.target;
        let mut known = self.services();
        known.extend(registered.iter().cloned());
        let near = nearest(
            &target.name,
            known
                .iter()
                .filter(|name| name.namespace == target.namespace)
                .map(|name| name.name.as_str()),
        );
        let elsewhere = known.iter().find(|name| name.name == target.name);
        let help = match (near, elsewhere) {
            (_, Some(other)) => Some(format!("there is one in namespace `{}`", other.namespace)),
            (Some(near), None) => Some(format!("did you mean `{near}`?")),
            (None, None) => None,
        };
        let message = format!("the service {target} has no document and no workload registers it");
        Diagnostic::warning(&reference.place, &reference.path, message).with_help(help)
    }

    /// Where a resource stands, in the terms of Gateway API.
    #[must_use]
    pub fn conditions(
        &self,
        key: &ResourceKey,
        registered: &BTreeSet<ServiceName>,
    ) -> Vec<Condition> {
        let Some(stored) = self.resources.get(key) else {
            return Vec::new();
        };
        let mut conditions = Vec::new();
        let conflicts = attach::conflicts(self, stored);
        match conflicts.first() {
            Some((target, winner)) => conditions.push(Condition {
                kind: "Accepted",
                status: false,
                reason: "Conflicted",
                message: format!("for {target}, the older {winner} applies instead"),
            }),
            None => conditions.push(Condition::holds("Accepted", "Accepted")),
        }
        match self.dangling(&stored.resource, registered).first() {
            Some(reference) => conditions.push(Condition {
                kind: "ResolvedRefs",
                status: false,
                reason: "TargetNotFound",
                message: format!("there is no service {}", reference.target),
            }),
            None => conditions.push(Condition::holds("ResolvedRefs", "ResolvedRefs")),
        }
        conditions
    }
}

/// One aspect of where a resource stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `Accepted` or `ResolvedRefs`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// Why, as a word.
    pub reason: &'static str,
    /// Why, as a sentence; empty where it holds.
    pub message: String,
}

impl Condition {
    fn holds(kind: &'static str, reason: &'static str) -> Self {
        Self {
            kind,
            status: true,
            reason,
            message: String::new(),
        }
    }
}
