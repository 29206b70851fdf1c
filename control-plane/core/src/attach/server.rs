//! Which policies protect a workload's ports. Of several for one target the
//! oldest alone counts. A port that is named has what its own policy says and,
//! for what that leaves out, what the policy of the whole service says. Each
//! part is taken whole: a rate with the burst of another would be neither's.

use std::collections::BTreeSet;

use crate::resource::server_policy::{Concurrency, PerCaller, RateLimit, ServerPolicySpec};
use crate::resource::{ResourceKey, ResourceKind, ServiceName, Spec};
use crate::world::{Stored, World};

/// What protects one port, part by part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Protection {
    /// Requests over time.
    pub rate_limit: Option<RateLimit>,
    /// Requests at a time, with the mode set.
    pub concurrency: Option<Concurrency>,
    /// Requests of one caller at a time.
    pub per_caller: Option<PerCaller>,
}

impl Protection {
    fn of(spec: &ServerPolicySpec) -> Self {
        let concurrency = spec.concurrency.as_ref();
        Self {
            rate_limit: spec.rate_limit.clone(),
            concurrency: concurrency.filter(|given| given.mode.is_some()).cloned(),
            per_caller: concurrency.and_then(|given| given.per_caller.clone()),
        }
    }

    fn over(self, wider: &Self) -> Self {
        Self {
            rate_limit: self.rate_limit.or_else(|| wider.rate_limit.clone()),
            concurrency: self.concurrency.or_else(|| wider.concurrency.clone()),
            per_caller: self.per_caller.or_else(|| wider.per_caller.clone()),
        }
    }
}

/// What protects the ports of a service's workloads: those that are named,
/// ascending, and under `None` every other. Nothing where no policy is.
#[must_use]
pub fn server(world: &World, service: &ServiceName) -> Vec<(Option<u16>, Protection)> {
    let ports: BTreeSet<Option<u16>> = policies(world, service)
        .flat_map(|(_, spec)| ports_of(spec, service))
        .collect();
    let all = oldest(world, service, None).map(|(_, spec)| Protection::of(spec));
    let of = |port: Option<u16>| {
        let (_, spec) = oldest(world, service, port)?;
        let own = Protection::of(spec);
        Some((
            port,
            match &all {
                Some(all) => own.over(all),
                None => own,
            },
        ))
    };
    ports.into_iter().filter_map(of).collect()
}

/// The targets for which an older policy applies instead, each with it.
pub(super) fn conflicts(world: &World, stored: &Stored) -> Vec<(String, ResourceKey)> {
    let Spec::ServerPolicy(spec) = &stored.resource.spec else {
        return Vec::new();
    };
    let own = &stored.resource.key;
    let lost = |target: &crate::resource::reference::TargetRef| {
        if target.route(&own.namespace).is_some() {
            return None;
        }
        let service = target.target(&own.namespace);
        let (winner, _) = oldest(world, &service, target.port())?;
        let winner = &winner.resource.key;
        (winner != own).then(|| (service.to_string(), winner.clone()))
    };
    spec.target_refs.iter().filter_map(lost).collect()
}

fn oldest<'w>(
    world: &'w World,
    service: &ServiceName,
    port: Option<u16>,
) -> Option<(&'w Stored, &'w ServerPolicySpec)> {
    policies(world, service)
        .filter(|(_, spec)| ports_of(spec, service).any(|named| named == port))
        .min_by_key(|(stored, _)| (stored.stamp, &stored.resource.key))
}

/// Those of the service's own namespace that name it.
fn policies<'w>(
    world: &'w World,
    service: &ServiceName,
) -> impl Iterator<Item = (&'w Stored, &'w ServerPolicySpec)> {
    world
        .of_kind(ResourceKind::ServerPolicy)
        .filter(move |stored| {
            let resource = &stored.resource;
            let names =
                |found: &crate::resource::reference::ServiceReference| found.target == *service;
            resource.key.namespace == service.namespace && resource.references.iter().any(names)
        })
        .filter_map(|stored| match &stored.resource.spec {
            Spec::ServerPolicy(spec) => Some((stored, spec)),
            _ => None,
        })
}

fn ports_of(spec: &ServerPolicySpec, service: &ServiceName) -> impl Iterator<Item = Option<u16>> {
    spec.target_refs
        .iter()
        .filter(|target| target.route(&service.namespace).is_none())
        .filter(|target| target.target(&service.namespace) == *service)
        .map(crate::resource::reference::TargetRef::port)
}
