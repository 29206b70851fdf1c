//! Policies on routes: what is said of how a rule's backends are called, by
//! the rule itself, by policies for the rule, for its route, and for the
//! service it is attached to, in this order, leaf by leaf. Below all of them
//! lies the policy of the backend. Refuses to know defaults.
//!
//! As with services, a policy in the route's namespace binds all callers, one
//! in another namespace the callers of that namespace, over the other; of
//! several of one rank the oldest alone counts. What a route's own namespace
//! says of its rate is for the gateways it is attached to.

use std::collections::BTreeMap;

use crate::resource::call_policy::{CallPolicy, Merge, Timeouts};
use crate::resource::fallback::StaticResponse;
use crate::resource::reference::RouteTarget;
use crate::resource::server_policy::RateLimit;
use crate::resource::traffic_policy::TrafficPolicySpec;
use crate::resource::{ResourceKey, ResourceKind, ServiceName, Spec};
use crate::world::{Stored, World};

/// The policies for routes that callers of a namespace are subject to: found
/// once, asked for each rule.
#[derive(Debug)]
pub(crate) struct RoutePolicies<'w> {
    /// Those of one target and namespace: the oldest.
    found: BTreeMap<(RouteTarget, &'w str), &'w Stored>,
    /// The oldest that limits a target's rate, of the route's own namespace.
    limits: BTreeMap<RouteTarget, &'w Stored>,
    caller_namespace: &'w str,
}

impl<'w> RoutePolicies<'w> {
    pub(crate) fn new(world: &'w World, caller_namespace: &'w str) -> Self {
        let mut found: BTreeMap<(RouteTarget, &str), &Stored> = BTreeMap::new();
        for stored in world.of_kind(ResourceKind::TrafficPolicy) {
            let namespace = stored.resource.key.namespace.as_str();
            for reference in &stored.resource.routes {
                let target = reference.target.clone();
                let first = found.entry((target, namespace)).or_insert(stored);
                // Of equal age the first by name, which came first.
                if stored.stamp < first.stamp {
                    *first = stored;
                }
            }
        }
        Self {
            found,
            limits: limits(world),
            caller_namespace,
        }
    }

    /// What is said of a rule of a route, the narrowest first.
    fn of(
        &self,
        route: &ResourceKey,
        rule: Option<&str>,
    ) -> impl Iterator<Item = (&'w Stored, &'w TrafficPolicySpec)> {
        let section = rule.map(|rule| Some(rule.to_owned()));
        let sections = section.into_iter().chain([None]);
        let mut found = Vec::new();
        for section in sections {
            let target = RouteTarget {
                kind: route.kind,
                route: ServiceName::new(&route.namespace, &route.name),
                section,
            };
            let of = |namespace: &str| self.found.get(&(target.clone(), namespace)).copied();
            if self.caller_namespace != route.namespace {
                found.extend(of(self.caller_namespace));
            }
            found.extend(of(&route.namespace));
        }
        found.into_iter().filter_map(|stored| spec(stored))
    }

    /// All that is said of how a rule's backends are called besides the rule
    /// itself and their own policies, the narrowest first.
    pub(super) fn above(
        &self,
        world: &'w World,
        route: &ResourceKey,
        rule: Option<&str>,
        parent: Option<&ServiceName>,
    ) -> Vec<Above<'w>> {
        let all = self.of(route, rule).map(|(stored, spec)| Above {
            stored,
            spec,
            requests_alone: false,
        });
        let of_parent = parent.into_iter().flat_map(|parent| {
            super::layers(world, parent, self.caller_namespace).map(|(stored, spec)| Above {
                stored,
                spec,
                requests_alone: true,
            })
        });
        all.chain(of_parent).collect()
    }

    /// What is said of how a rule's backends are called, over their own policies.
    pub(crate) fn narrower(
        &self,
        world: &'w World,
        route: &ResourceKey,
        rule: Option<&str>,
        own: CallPolicy,
        parent: Option<&ServiceName>,
    ) -> CallPolicy {
        let above = self.above(world, route, rule, parent);
        above.iter().fold(own, |policy, above| {
            let whole = above.spec.policy(&above.stored.resource.key.namespace);
            policy.over(&match above.requests_alone {
                true => of_requests(whole),
                false => whole,
            })
        })
    }

    /// What a rule is answered with, whatever its backends.
    pub(crate) fn response(
        &self,
        route: &ResourceKey,
        rule: Option<&str>,
    ) -> Option<&'w StaticResponse> {
        self.of(route, rule)
            .find_map(|(_, spec)| spec.direct_response())
    }
}

impl<'w> RoutePolicies<'w> {
    /// How many requests of a rule a gateway lets through.
    pub(crate) fn rate_limit(
        &self,
        route: &ResourceKey,
        rule: Option<&str>,
    ) -> Option<&'w RateLimit> {
        let section = rule.map(|rule| Some(rule.to_owned()));
        let mut sections = section.into_iter().chain([None]);
        let stored = sections.find_map(|section| {
            let target = RouteTarget {
                kind: route.kind,
                route: ServiceName::new(&route.namespace, &route.name),
                section,
            };
            self.limits.get(&target)
        })?;
        match &stored.resource.spec {
            Spec::ServerPolicy(spec) => spec.rate_limit.as_ref(),
            _ => None,
        }
    }
}

/// The oldest ServerPolicy of each route or rule that one is for.
fn limits(world: &World) -> BTreeMap<RouteTarget, &Stored> {
    let mut found: BTreeMap<RouteTarget, &Stored> = BTreeMap::new();
    for stored in world.of_kind(ResourceKind::ServerPolicy) {
        for reference in &stored.resource.routes {
            let first = found.entry(reference.target.clone()).or_insert(stored);
            if stored.stamp < first.stamp {
                *first = stored;
            }
        }
    }
    found
}

/// A policy above that of a backend.
pub(super) struct Above<'w> {
    pub(super) stored: &'w Stored,
    spec: &'w TrafficPolicySpec,
    /// Whether only what is about requests counts.
    pub(super) requests_alone: bool,
}

fn spec(stored: &Stored) -> Option<(&Stored, &TrafficPolicySpec)> {
    match &stored.resource.spec {
        Spec::TrafficPolicy(spec) => Some((stored, &**spec)),
        _ => None,
    }
}

/// As documents write it: the keys of [`of_requests`].
pub(super) const OF_REQUESTS: [&str; 8] = [
    "timeouts.request",
    "timeouts.backendRequest",
    "retry",
    "failures",
    "hedge",
    "fallback",
    "fault",
    "mirror",
];

/// What of a policy is about requests rather than endpoints: what may be said
/// of a route.
fn of_requests(policy: CallPolicy) -> CallPolicy {
    CallPolicy {
        timeouts: Timeouts {
            request: policy.timeouts.request,
            backend_request: policy.timeouts.backend_request,
            ..Timeouts::default()
        },
        retry: policy.retry,
        failures: policy.failures,
        hedge: policy.hedge,
        fallback: policy.fallback,
        fault: policy.fault,
        mirror: policy.mirror,
        ..CallPolicy::default()
    }
}

/// The targets on routes for which an older policy applies instead, each with it.
pub(super) fn conflicts(world: &World, stored: &Stored) -> Vec<(String, ResourceKey)> {
    let own = &stored.resource.key;
    if stored.resource.routes.is_empty() {
        return Vec::new();
    }
    let all = RoutePolicies::new(world, &own.namespace);
    let lost = |target: &RouteTarget| {
        let winner = match own.kind {
            ResourceKind::ServerPolicy => all.limits.get(target)?,
            _ => all.found.get(&(target.clone(), own.namespace.as_str()))?,
        };
        let winner = &winner.resource.key;
        (winner != own).then(|| (target.to_string(), winner.clone()))
    };
    let routes = stored.resource.routes.iter();
    routes.filter_map(|it| lost(&it.target)).collect()
}
