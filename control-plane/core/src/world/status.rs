//! `status` as Gateway API shapes it: what became of a gateway, listener by
//! listener, and of a route, parent by parent. Refuses to know who reads it.

use serde_json::{Value, json};

use super::{Condition, Stored, World};
use crate::attach::gateway::{self, ListenerState};
use crate::attach::{self, GATEWAY_GROUP, Referrer, Registered, Services, Unresolved};
use crate::diagnostic::Diagnostic;
use crate::resource::route::{Parent, ParentRef};
use crate::resource::{Resource, ResourceKey, ResourceKind, ServiceName, Spec};

/// Who judges, as Gateway API names it.
const CONTROLLER: &str = "selvage.dev/control-plane";

impl World {
    /// `status` of a gateway or a route; others have none. `registered`: the
    /// services that exist without a document.
    #[must_use]
    pub fn status<'r>(
        &'r self,
        key: &ResourceKey,
        registered: impl Into<Registered<'r>>,
    ) -> Option<Value> {
        self.standing(key, registered).1
    }

    /// [`World::conditions`] and [`World::status`] of one resource, for whoever
    /// wants both: what they say is found out once.
    #[must_use]
    pub fn standing<'r>(
        &'r self,
        key: &ResourceKey,
        registered: impl Into<Registered<'r>>,
    ) -> (Vec<Condition>, Option<Value>) {
        let services = Services::new(self, registered);
        let Some(stored) = self.resources.get(key) else {
            return (Vec::new(), None);
        };
        match &stored.resource.spec {
            Spec::Gateway(_) => {
                let states = gateway::listeners(self, &key.namespace, &key.name);
                (of_gateway(&states), Some(gateway_status(&states)))
            }
            Spec::HttpRoute(_) | Spec::GrpcRoute(_) | Spec::TlsRoute(_) | Spec::TcpRoute(_) => {
                let parents = attach::parents(&stored.resource).iter();
                let found: Vec<_> = parents
                    .map(|parent| self.of_parent(stored, parent, services))
                    .collect();
                let status = route_status(&stored.resource, &found);
                (worst(found), Some(status))
            }
            _ => (self.policy_conditions(stored, services), None),
        }
    }

    /// `Accepted` and `ResolvedRefs` of a route at one of its parents.
    fn of_parent(
        &self,
        stored: &Stored,
        parent: &ParentRef,
        services: Services<'_>,
    ) -> [Condition; 2] {
        let own = &stored.resource.key;
        let target = parent.target(&own.namespace);
        let service = ServiceName::new(&target.namespace, &target.name);
        let (accepted, service) = match parent.parent() {
            Parent::Gateway => (gateway::accepted(self, stored, parent), None),
            Parent::Service => (attach::accepted(services, stored, parent), Some(&service)),
        };
        let referrer = Referrer {
            kind: own.kind,
            namespace: &own.namespace,
            parent: service,
        };
        let broken = stored
            .resource
            .spec
            .backends()
            .into_iter()
            .find_map(|(_, object)| attach::resolve(services, referrer, &object).err());
        let resolved = match broken {
            Some(Unresolved { reason, message }) => Condition {
                kind: "ResolvedRefs",
                status: false,
                reason,
                message,
            },
            None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
        };
        [accepted, resolved]
    }

    /// What of a gateway's listeners, and of a route's gateways, is likely not as meant.
    pub(super) fn gateway_warnings(&self, key: &ResourceKey) -> Vec<Diagnostic> {
        let Some(stored) = self.resources.get(key) else {
            return Vec::new();
        };
        let resource = &stored.resource;
        let told = |(path, condition): (String, Condition)| {
            Diagnostic::warning(resource.place_of(&path), path, condition.message)
        };
        if key.kind == ResourceKind::Gateway {
            let states = gateway::listeners(self, &key.namespace, &key.name);
            let broken = states.into_iter().enumerate().filter_map(|(index, state)| {
                let [accepted, _, resolved, _] = state.conditions;
                let first = [accepted, resolved].into_iter().find(|it| !it.status)?;
                Some((format!("spec.listeners[{index}]"), first))
            });
            return broken.map(told).collect();
        }
        let parents = attach::parents(resource).iter().enumerate();
        let of_gateways = parents.filter(|(_, parent)| parent.parent() == Parent::Gateway);
        let broken = of_gateways.filter_map(|(index, parent)| {
            let accepted = gateway::accepted(self, stored, parent);
            (!accepted.status).then(|| (format!("spec.parentRefs[{index}]"), accepted))
        });
        broken.map(told).collect()
    }
}

/// Whether a route is accepted and leads anywhere: of several parents what the
/// first says that something is wrong with.
fn worst(parents: Vec<[Condition; 2]>) -> Vec<Condition> {
    let first = |first: Condition, other: Condition| match first.status {
        true => other,
        false => first,
    };
    let worst = parents.into_iter().reduce(|before, found| {
        let [first_accepted, first_resolved] = before;
        let [accepted, resolved] = found;
        [
            first(first_accepted, accepted),
            first(first_resolved, resolved),
        ]
    });
    worst.map_or_else(Vec::new, Vec::from)
}

/// `status` of a route, by what was found at each of its parents.
fn route_status(route: &Resource, found: &[[Condition; 2]]) -> Value {
    let written = &route.document["spec"]["parentRefs"];
    let parents = found.iter().enumerate().map(|(index, conditions)| {
        json!({
            "parentRef": written[index],
            "controllerName": CONTROLLER,
            "conditions": shaped(conditions),
        })
    });
    json!({ "parents": parents.collect::<Vec<_>>() })
}

/// `status` of a gateway.
fn gateway_status(states: &[ListenerState<'_>]) -> Value {
    let listeners = states.iter().map(|state| {
        let kind = |kind| json!({ "group": GATEWAY_GROUP, "kind": kind });
        let kinds = state.kinds.iter().map(|it| kind(it.as_str()));
        json!({
            "name": state.listener.name,
            "attachedRoutes": state.routes.len(),
            "supportedKinds": kinds.collect::<Vec<_>>(),
            "conditions": shaped(&state.conditions),
        })
    });
    json!({
        "conditions": shaped(&of_gateway(states)),
        "listeners": listeners.collect::<Vec<_>>(),
    })
}

/// A gateway is programmed as soon as one of its listeners is.
fn of_gateway(states: &[ListenerState<'_>]) -> Vec<Condition> {
    let broken = |state: &&ListenerState<'_>| !state.is_programmed();
    let served = states.iter().any(ListenerState::is_programmed);
    let Some(first) = states.iter().find(broken) else {
        return vec![
            Condition::holds("Accepted", "Accepted"),
            Condition::holds("Programmed", "Programmed"),
        ];
    };
    let [.., programmed] = &first.conditions;
    let message = format!("listener `{}`: {}", first.listener.name, programmed.message);
    let accepted = Condition {
        kind: "Accepted",
        status: served,
        reason: "ListenersNotValid",
        message: message.clone(),
    };
    let programmed = match served {
        true => Condition::holds("Programmed", "Programmed"),
        false => Condition {
            kind: "Programmed",
            status: false,
            reason: "Invalid",
            message,
        },
    };
    vec![accepted, programmed]
}

/// Conditions as Gateway API writes them.
pub(super) fn shaped(conditions: &[Condition]) -> Vec<Value> {
    let one = |condition: &Condition| {
        json!({
            "type": condition.kind,
            "status": if condition.status { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message,
        })
    };
    conditions.iter().map(one).collect()
}
