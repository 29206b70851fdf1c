//! Routes attached to services: which are a service's, for which callers, at
//! which ports, and where a route stands with a service it names.
//!
//! A route in the namespace of the service (producer) is for all callers; one
//! in another namespace (consumer) for the callers of that namespace, for whom
//! it takes the place of the producer's at the ports it names. On one port the
//! most specific kind alone counts: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute.
//! Of one kind the oldest comes first. Refuses to know what routes do.

use std::collections::BTreeMap;

use super::services::{Port, Ports, Services};
use crate::resource::route::{Parent, ParentRef};
use crate::resource::service::Protocol;
use crate::resource::{Resource, ResourceKind, ServiceName};
use crate::world::{Condition, Stored, World};

/// The kinds that attach to a port of a service, the most specific first.
const KINDS: [ResourceKind; 4] = [
    ResourceKind::GrpcRoute,
    ResourceKind::HttpRoute,
    ResourceKind::TlsRoute,
    ResourceKind::TcpRoute,
];

/// Routes of one port of a service; the youngest beyond it are not accepted.
pub const MAX_ATTACHED_ROUTES: usize = 10_000;

/// What a resource attaches to; nothing if it is no route.
#[must_use]
pub fn parents(resource: &Resource) -> &[ParentRef] {
    resource.spec.parents()
}

/// The routes of each port of a service for callers of a namespace: of one
/// kind, oldest first. Ports without a route are left out.
#[must_use]
pub fn attached<'w>(
    services: Services<'w>,
    service: &'w ServiceName,
    caller_namespace: &'w str,
) -> BTreeMap<u16, Vec<&'w Stored>> {
    let own = candidates(services.world, service, &service.namespace);
    let callers = match caller_namespace == service.namespace {
        true => Vec::new(),
        false => candidates(services.world, service, caller_namespace),
    };
    if own.is_empty() && callers.is_empty() {
        return BTreeMap::new();
    }
    let ports = services.ports(service).map(|ports| ports.into_known());
    let of_port = |(number, port): (u16, Port)| {
        let bound = |all: &[&'w Stored]| winners(all, service, number, &port);
        let consumers = bound(&callers);
        let routes = match consumers.is_empty() {
            true => bound(&own),
            false => consumers,
        };
        (!routes.is_empty()).then_some((number, routes))
    };
    let ports = ports.into_iter().flatten();
    ports.filter_map(of_port).collect()
}

/// The routes of a namespace that name a service as their parent.
fn candidates<'w>(world: &'w World, service: &ServiceName, namespace: &'w str) -> Vec<&'w Stored> {
    let names = |stored: &&Stored| {
        let of_service = |parent: &ParentRef| is_of(parent, service, namespace);
        parents(&stored.resource).iter().any(of_service)
    };
    let mut found = Vec::new();
    for kind in KINDS {
        found.extend(world.in_namespace(kind, namespace).filter(names));
    }
    found
}

/// Those that bind a port and are of the most specific kind, oldest first.
fn winners<'w>(
    all: &[&'w Stored],
    service: &ServiceName,
    number: u16,
    port: &Port,
) -> Vec<&'w Stored> {
    let bound: Vec<&Stored> = all
        .iter()
        .copied()
        .filter(|stored| binds(stored, service, number, port))
        .collect();
    let of_kind = |kind: &ResourceKind| bound.iter().any(|it| it.resource.key.kind == *kind);
    let Some(kind) = KINDS.into_iter().find(of_kind) else {
        return Vec::new();
    };
    let mut routes: Vec<&Stored> = bound
        .into_iter()
        .filter(|stored| stored.resource.key.kind == kind)
        .collect();
    routes.sort_by_key(|stored| (stored.stamp, &stored.resource.key));
    routes.truncate(MAX_ATTACHED_ROUTES);
    routes
}

/// Whether a route is for a port of a service.
fn binds(stored: &Stored, service: &ServiceName, number: u16, port: &Port) -> bool {
    let resource = &stored.resource;
    let names = |parent: &ParentRef| {
        is_of(parent, service, &resource.key.namespace) && names_port(parent, number, port)
    };
    speaks(resource.key.kind, port) && parents(resource).iter().any(names)
}

fn is_of(parent: &ParentRef, service: &ServiceName, own_namespace: &str) -> bool {
    parent.parent() == Parent::Service
        && parent.name == service.name
        && parent.namespace.as_deref().unwrap_or(own_namespace) == service.namespace
}

fn names_port(parent: &ParentRef, number: u16, port: &Port) -> bool {
    let section = parent.section_name.as_ref();
    parent.port.is_none_or(|wanted| wanted == number)
        && section.is_none_or(|wanted| port.name.as_ref() == Some(wanted))
}

/// Whether requests of a kind of route can come at a port at all.
fn speaks(kind: ResourceKind, port: &Port) -> bool {
    let is_http = matches!(kind, ResourceKind::HttpRoute | ResourceKind::GrpcRoute);
    match port.protocol {
        Protocol::Detect => true,
        // Whole connections are not looked into where each request is routed by itself.
        Protocol::Tcp => !is_http,
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => is_http,
    }
}

/// The ports of a service that a route would be at, by one of its parents.
///
/// # Errors
/// There are none: why, as a condition.
pub(crate) fn bound(
    services: Services<'_>,
    stored: &Stored,
    parent: &ParentRef,
) -> Result<BTreeMap<u16, Port>, Condition> {
    let own = &stored.resource.key;
    let target = parent.target(&own.namespace);
    let service = ServiceName::new(&target.namespace, &target.name);
    let Some(ports) = services.ports(&service) else {
        let near = services.near(&service);
        let help = near.map(|near| format!("; there is `{near}`"));
        let message = format!("there is no service {service}{}", help.unwrap_or_default());
        return Err(refused("NoMatchingParent", message));
    };
    let is_known = matches!(ports, Ports::Known(_));
    let mut ports = ports.into_known();
    ports.retain(|number, port| names_port(parent, *number, port) && speaks(own.kind, port));
    if ports.is_empty() && is_known {
        let port = parent.port.map(|port| format!(" {port}"));
        let section = parent.section_name.as_ref();
        let section = section.map(|section| format!(" `{section}`"));
        let message = format!(
            "the service {service} has no port{}{} that a {} can be for",
            port.unwrap_or_default(),
            section.unwrap_or_default(),
            own.kind
        );
        return Err(refused("NoMatchingParent", message));
    }
    Ok(ports)
}

/// Whether a route counts at the service a parent means, in the terms of
/// Gateway API. `parent` is one of its parents, and of a service.
pub(crate) fn accepted(services: Services<'_>, stored: &Stored, parent: &ParentRef) -> Condition {
    let ports = match bound(services, stored, parent) {
        Ok(ports) => ports,
        Err(refused) => return refused,
    };
    let own = &stored.resource.key;
    let target = parent.target(&own.namespace);
    let service = ServiceName::new(&target.namespace, &target.name);
    let mut lost = ports
        .iter()
        .map(|(number, port)| over(services.world, stored, &service, *number, port));
    match lost.next().flatten() {
        Some(why) if lost.all(|lost| lost.is_some()) => refused("Conflicted", why),
        _ => Condition::holds("Accepted", "Accepted"),
    }
}

/// What goes before a route at a port that it names: why it does not count there.
fn over(
    world: &World,
    stored: &Stored,
    service: &ServiceName,
    number: u16,
    port: &Port,
) -> Option<String> {
    let own = &stored.resource.key;
    let rivals = |kind| {
        let all = world.in_namespace(kind, &own.namespace);
        all.filter(|it| binds(it, service, number, port))
    };
    let more_specific = KINDS.into_iter().take_while(|kind| *kind != own.kind);
    for kind in more_specific {
        if let Some(winner) = rivals(kind).next() {
            let winner = &winner.resource.key;
            return Some(format!(
                "{winner} is of a more specific kind and applies instead"
            ));
        }
    }
    // Not counted unless there can be so many.
    if world.len() <= MAX_ATTACHED_ROUTES {
        return None;
    }
    let age = (stored.stamp, own);
    let older = rivals(own.kind).filter(|it| (it.stamp, &it.resource.key) < age);
    (older.count() >= MAX_ATTACHED_ROUTES)
        .then(|| format!("{MAX_ATTACHED_ROUTES} older routes are attached to {service}"))
}

fn refused(reason: &'static str, message: String) -> Condition {
    Condition {
        kind: "Accepted",
        status: false,
        reason,
        message,
    }
}
