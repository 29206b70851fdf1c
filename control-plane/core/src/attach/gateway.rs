//! The listeners of a gateway, and which routes attach to each: those that name
//! it as a parent, that its `allowedRoutes` takes, and that share a host with
//! it. A listener that contradicts another of its port, or has no certificate,
//! is not served; what is wrong is told in the terms of Gateway API. Stands
//! between the world and the view. Refuses to know what routes do.

mod certificates;
mod conflicts;
mod contest;
mod standing;

use std::collections::BTreeMap;

use super::hosts;
use crate::resource::gateway::{From, GatewaySpec, Listener, RouteGroupKind};
use crate::resource::namespace::NAME_LABEL;
use crate::resource::route::{Parent, ParentRef};
use crate::resource::{DEFAULT_NAMESPACE, ResourceKey, ResourceKind, Spec};
use crate::world::{Condition, Stored, World};
pub use certificates::Found;
pub(crate) use standing::Standings;

/// Routes of one listener; the youngest beyond it are not accepted.
pub const MAX_LISTENER_ROUTES: usize = 10_000;

/// One listener, and what became of it.
#[derive(Debug)]
pub struct ListenerState<'w> {
    /// What was written.
    pub listener: &'w Listener,
    /// The kinds of routes it takes.
    pub kinds: Vec<ResourceKind>,
    /// The routes that attach to it, oldest first.
    pub routes: Vec<AttachedRoute<'w>>,
    /// What it terminates TLS with.
    pub certificates: Vec<Found<'w>>,
    /// `Accepted`, `Conflicted`, `ResolvedRefs` and `Programmed`.
    pub conditions: [Condition; 4],
}

/// A route on a listener.
#[derive(Debug, Clone)]
pub struct AttachedRoute<'w> {
    /// The route.
    pub stored: &'w Stored,
    /// The hosts it serves there; empty: every one.
    pub hostnames: Vec<String>,
}

impl ListenerState<'_> {
    /// Whether it is served.
    #[must_use]
    pub fn is_programmed(&self) -> bool {
        let [.., programmed] = &self.conditions;
        programmed.status
    }
}

/// The gateway of a name, if it is there.
#[must_use]
pub fn gateway<'w>(
    world: &'w World,
    namespace: &str,
    name: &str,
) -> Option<(&'w Stored, &'w GatewaySpec)> {
    let key = ResourceKey {
        kind: ResourceKind::Gateway,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let stored = world.resource(&key)?;
    match &stored.resource.spec {
        Spec::Gateway(spec) => Some((stored, spec)),
        _ => None,
    }
}

/// All listeners of a gateway, in the order in which they were written.
#[must_use]
pub fn listeners<'w>(world: &'w World, namespace: &str, name: &str) -> Vec<ListenerState<'w>> {
    let Some((stored, spec)) = gateway(world, namespace, name) else {
        return Vec::new();
    };
    let own = &stored.resource.key;
    let state = |(index, listener): (usize, &'w Listener)| {
        let conflict = conflicts::of(&spec.listeners, index);
        let (certificates, problem) = certificates::of(world, &own.namespace, listener);
        let conditions = conditions(listener, conflict, problem, certificates.len());
        ListenerState {
            listener,
            kinds: kinds(listener),
            routes: attached(world, own, listener),
            certificates,
            conditions,
        }
    };
    spec.listeners.iter().enumerate().map(state).collect()
}

/// What is said of a listener.
fn conditions(
    listener: &Listener,
    conflict: Option<Condition>,
    problem: Option<Condition>,
    certificates: usize,
) -> [Condition; 4] {
    let lacks_certificate = match listener.tls {
        Some(_) if !listener.is_passthrough() => certificates == 0,
        _ => false,
    };
    let accepted = match &conflict {
        Some(conflict) => Condition {
            kind: "Accepted",
            status: false,
            ..conflict.clone()
        },
        None => Condition::holds("Accepted", "Accepted"),
    };
    let programmed = match conflict.is_some() || lacks_certificate {
        true => Condition {
            kind: "Programmed",
            status: false,
            reason: "Invalid",
            message: match &conflict {
                Some(conflict) => conflict.message.clone(),
                None => "there is no certificate to terminate TLS with".to_owned(),
            },
        },
        false => Condition::holds("Programmed", "Programmed"),
    };
    let resolved = problem
        .or_else(|| invalid_kinds(listener))
        .unwrap_or_else(|| Condition::holds("ResolvedRefs", "ResolvedRefs"));
    let conflicted = conflict.unwrap_or(Condition {
        kind: "Conflicted",
        status: false,
        reason: "NoConflicts",
        message: String::new(),
    });
    [accepted, conflicted, resolved, programmed]
}

/// The kinds of routes that a listener takes: all that its protocol carries, or
/// those of them that it names.
fn kinds(listener: &Listener) -> Vec<ResourceKind> {
    let carried = listener.carries().iter().copied();
    let named = &listener.allowed_routes.kinds;
    carried
        .filter(|kind| named.is_empty() || named.iter().any(|it| it.means(*kind)))
        .collect()
}

fn invalid_kinds(listener: &Listener) -> Option<Condition> {
    let carried = listener.carries();
    let unknown = |it: &&RouteGroupKind| !carried.iter().any(|kind| it.means(*kind));
    let first = listener.allowed_routes.kinds.iter().find(unknown)?;
    Some(Condition {
        kind: "ResolvedRefs",
        status: false,
        reason: "InvalidRouteKinds",
        message: format!(
            "a listener of protocol {} takes no {}",
            listener.protocol.as_str(),
            first.kind
        ),
    })
}

/// The routes that attach to a listener, oldest first.
fn attached<'w>(
    world: &'w World,
    gateway: &ResourceKey,
    listener: &Listener,
) -> Vec<AttachedRoute<'w>> {
    let wanted = kinds(listener);
    let routes = world.standings().routes(world, gateway).iter();
    let found = routes
        .filter(|stored| wanted.contains(&stored.resource.key.kind))
        .filter_map(|stored| candidate(world, gateway, listener, stored));
    contest::settle(found.collect())
}

fn kind(route: &AttachedRoute<'_>) -> ResourceKind {
    route.stored.resource.key.kind
}

/// The route on the listener, if nothing but older routes can keep it from there.
fn candidate<'w>(
    world: &World,
    gateway: &ResourceKey,
    listener: &Listener,
    stored: &'w Stored,
) -> Option<AttachedRoute<'w>> {
    let own = &stored.resource.key;
    let names = |parent: &ParentRef| {
        parent.parent() == Parent::Gateway
            && parent.target(&own.namespace) == *gateway
            && names_listener(parent, listener)
    };
    if !super::routes::parents(&stored.resource).iter().any(names)
        || !takes_namespace(world, gateway, listener, &own.namespace)
    {
        return None;
    }
    let hostnames = hosts::shared(listener.hostname.as_deref(), hostnames(stored))?;
    Some(AttachedRoute { stored, hostnames })
}

fn names_listener(parent: &ParentRef, listener: &Listener) -> bool {
    let section = parent.section_name.as_ref();
    section.is_none_or(|section| *section == listener.name)
        && parent.port.is_none_or(|port| port == listener.port)
}

/// The hosts a route names.
fn hostnames(stored: &Stored) -> &[String] {
    match &stored.resource.spec {
        Spec::HttpRoute(spec) => &spec.hostnames,
        Spec::GrpcRoute(spec) => &spec.hostnames,
        Spec::TlsRoute(spec) => &spec.hostnames,
        _ => &[],
    }
}

/// Whether a listener takes routes of a namespace.
fn takes_namespace(
    world: &World,
    gateway: &ResourceKey,
    listener: &Listener,
    namespace: &str,
) -> bool {
    let chosen = &listener.allowed_routes.namespaces;
    match chosen.from {
        From::All => true,
        From::Same => namespace == gateway.namespace,
        From::None => false,
        From::Selector => chosen
            .selector
            .as_ref()
            .is_some_and(|selector| selector.chooses(&namespace_labels(world, namespace))),
    }
}

/// The labels of a namespace: those of its document, and its name.
fn namespace_labels(world: &World, namespace: &str) -> BTreeMap<String, String> {
    let key = ResourceKey {
        kind: ResourceKind::Namespace,
        namespace: DEFAULT_NAMESPACE.to_owned(),
        name: namespace.to_owned(),
    };
    let document = world.resource(&key);
    let mut labels = document.map_or_else(BTreeMap::new, |stored| stored.resource.labels.clone());
    labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
    labels
}

/// Whether a route counts at the gateway a parent means, in the terms of
/// Gateway API. `parent` is one of its parents, and of a gateway.
pub(crate) fn accepted(world: &World, stored: &Stored, parent: &ParentRef) -> Condition {
    let refuse = |reason, message| Condition {
        kind: "Accepted",
        status: false,
        reason,
        message,
    };
    let own = &stored.resource.key;
    let target = parent.target(&own.namespace);
    let Some((_, spec)) = gateway(world, &target.namespace, &target.name) else {
        return refuse("NoMatchingParent", format!("there is no {target}"));
    };
    let named: Vec<(usize, &Listener)> = spec
        .listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| names_listener(parent, listener))
        .collect();
    if named.is_empty() {
        let message = format!("no listener of {target} has this name and port");
        return refuse("NoMatchingParent", message);
    }
    let allowed: Vec<(usize, &Listener)> = named
        .into_iter()
        .filter(|(_, listener)| kinds(listener).contains(&own.kind))
        .filter(|(_, listener)| takes_namespace(world, &target, listener, &own.namespace))
        .collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener of {target} takes a {} of namespace `{}`",
            own.kind, own.namespace
        );
        return refuse("NotAllowedByListeners", message);
    }
    let hosts = hostnames(stored);
    let sharing: Vec<(usize, &Listener)> = allowed
        .into_iter()
        .filter(|(_, listener)| hosts::shared(listener.hostname.as_deref(), hosts).is_some())
        .collect();
    if sharing.is_empty() {
        let message = format!("no listener of {target} is for any of its hosts");
        return refuse("NoMatchingListenerHostname", message);
    }
    let standings = world.standings();
    let mut sharing = sharing.into_iter();
    if !sharing.any(|(index, _)| standings.is_attached(world, &target, index, stored)) {
        let message = format!("an older route takes its place on {target}");
        return refuse("Conflicted", message);
    }
    Condition::holds("Accepted", "Accepted")
}

#[cfg(test)]
mod tests;
