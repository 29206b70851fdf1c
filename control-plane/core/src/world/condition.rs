//! Where a resource stands: what it refers to and is not there, and what it
//! loses to. In the terms of Gateway API.

use serde::Serialize;

use super::{Stored, World};
use crate::attach::{self, Registered, Services};
use crate::resource::{Resource, ResourceKey};

impl World {
    /// Whether the routes a policy is for are there.
    fn routes_condition(&self, resource: &Resource) -> Condition {
        match self.dangling_routes(resource).first() {
            Some(found) => Condition {
                kind: "ResolvedRefs",
                status: false,
                reason: "TargetNotFound",
                message: found.message.clone(),
            },
            None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
        }
    }

    /// Where a resource stands, in the terms of Gateway API.
    #[must_use]
    pub fn conditions<'r>(
        &'r self,
        key: &ResourceKey,
        registered: impl Into<Registered<'r>>,
    ) -> Vec<Condition> {
        self.standing(key, registered).0
    }

    /// Those of a resource that is neither a gateway nor a route.
    pub(super) fn policy_conditions(
        &self,
        stored: &Stored,
        services: Services<'_>,
    ) -> Vec<Condition> {
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
        match self.dangling(&stored.resource, services).first() {
            Some(reference) => conditions.push(Condition {
                kind: "ResolvedRefs",
                status: false,
                reason: "TargetNotFound",
                message: format!("there is no service {}", reference.target),
            }),
            None => conditions.push(self.routes_condition(&stored.resource)),
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
    pub(crate) fn holds(kind: &'static str, reason: &'static str) -> Self {
        Self {
            kind,
            status: true,
            reason,
            message: String::new(),
        }
    }
}
