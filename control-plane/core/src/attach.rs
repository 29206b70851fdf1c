//! Attachment: which policies are a service's, for which callers, and what
//! wins. Stands between the world and the views. Refuses to know defaults.
//!
//! A policy in its target's namespace (producer) binds all callers; one in
//! another namespace (consumer) only the callers of that namespace. Consumer
//! wins over producer, and both over `MeshConfig`, leaf by leaf. Of several of
//! one rank the oldest alone counts, so that adding a policy changes nothing
//! that was there; the others carry a `Conflicted` condition.

mod backends;
pub mod gateway;
mod grants;
pub mod hosts;
mod origin;
mod route_policy;
mod routes;
mod server;
mod services;

use crate::resource::authorization_policy::AuthorizationPolicySpec;
use crate::resource::call_policy::{CallPolicy, Merge};
use crate::resource::traffic_policy::TrafficPolicySpec;
use crate::resource::{ResourceKey, ResourceKind, ServiceName, Spec};
use crate::world::{Stored, World};

pub use backends::{Referrer, Resolved, Unresolved, resolve};
pub use grants::{GATEWAY_GROUP, granted};
pub use origin::{Leaf, RuleName, origins};
pub(crate) use route_policy::RoutePolicies;
pub use routes::{MAX_ATTACHED_ROUTES, attached, parents};
pub(crate) use routes::{accepted, bound};
pub use server::{Protection, server};
pub use services::{Registered, Services};

/// What the policies say of calls to a service from a namespace.
#[must_use]
pub fn call_policy(world: &World, target: &ServiceName, caller_namespace: &str) -> CallPolicy {
    let mut policy = CallPolicy::default();
    for (stored, spec) in layers(world, target, caller_namespace) {
        policy = policy.over(&spec.policy(&stored.resource.key.namespace));
    }
    match world.mesh_config() {
        Some(mesh) => policy.over(&mesh.policy()),
        None => policy,
    }
}

/// The policies for calls to a service from a namespace, narrowest first.
fn layers<'w>(
    world: &'w World,
    target: &ServiceName,
    caller_namespace: &str,
) -> impl Iterator<Item = (&'w Stored, &'w TrafficPolicySpec)> {
    let producer = winner(world, target, &target.namespace);
    let consumer = (caller_namespace != target.namespace)
        .then(|| winner(world, target, caller_namespace))
        .flatten();
    [consumer, producer].into_iter().flatten()
}

/// The policies that protect a workload of a service, by namespace and name.
#[must_use]
pub fn authorization<'w>(
    world: &'w World,
    service: &ServiceName,
) -> Vec<(&'w ResourceKey, &'w AuthorizationPolicySpec)> {
    let selects = |stored: &'w Stored| match &stored.resource.spec {
        Spec::AuthorizationPolicy(spec) if stored.resource.key.namespace == service.namespace => {
            let selected = match &spec.target_refs {
                None => true,
                Some(_) => stored
                    .resource
                    .references
                    .iter()
                    .any(|found| found.target == *service),
            };
            selected.then_some((&stored.resource.key, spec))
        }
        _ => None,
    };
    world
        .of_kind(ResourceKind::AuthorizationPolicy)
        .filter_map(selects)
        .collect()
}

/// The targets for which another policy of the same rank wins, each with the winner.
pub(crate) fn conflicts(world: &World, stored: &Stored) -> Vec<(String, ResourceKey)> {
    match stored.resource.spec {
        Spec::TrafficPolicy(_) => {}
        Spec::ServerPolicy(_) => return server::conflicts(world, stored),
        _ => return Vec::new(),
    }
    let own = &stored.resource.key;
    let lost = |target: &ServiceName| {
        let (winner, _) = winner(world, target, &own.namespace)?;
        (winner.resource.key != *own).then(|| (target.to_string(), winner.resource.key.clone()))
    };
    let references = stored.resource.references.iter();
    references
        .filter_map(|reference| lost(&reference.target))
        .chain(route_policy::conflicts(world, stored))
        .collect()
}

/// The oldest policy of a namespace for a target.
fn winner<'w>(
    world: &'w World,
    target: &ServiceName,
    namespace: &str,
) -> Option<(&'w Stored, &'w TrafficPolicySpec)> {
    world
        .of_kind(ResourceKind::TrafficPolicy)
        .filter(|stored| stored.resource.key.namespace == namespace)
        .filter(|stored| {
            stored
                .resource
                .references
                .iter()
                .any(|found| found.target == *target)
        })
        .filter_map(|stored| match &stored.resource.spec {
            Spec::TrafficPolicy(spec) => Some((stored, &**spec)),
            _ => None,
        })
        .min_by_key(|(stored, _)| (stored.stamp, &stored.resource.key))
}
