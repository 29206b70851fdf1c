//! `TrafficPolicy`: how callers treat a service, or the requests of a route.
//! Refuses to know which of several policies wins.

use serde::Deserialize;

use super::ResourceKind;
use super::backend::BackendRef;
use super::call_policy::{CallPolicy, CircuitBreaker, Limits, Retry, Timeouts};
use super::failures::Failures;
use super::fallback::{Fallback, StaticResponse};
use super::fault::Fault;
use super::health_check::HealthCheck;
use super::hedge::Hedge;
use super::load_balancer::LoadBalancer;
use super::mirror::Mirror;
use super::reference::{TargetRef, check_routes};
use crate::config::Checker;

/// `spec` of a `TrafficPolicy`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The services and routes meant.
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    timeouts: Timeouts,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    circuit_breaker: CircuitBreaker,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    load_balancer: LoadBalancer,
    #[serde(default)]
    failures: Failures,
    #[serde(default)]
    health_check: Option<Box<HealthCheck>>,
    #[serde(default)]
    hedge: Hedge,
    fallback: Option<Fallback>,
    fault: Option<Fault>,
    mirror: Option<Mirror>,
    direct_response: Option<StaticResponse>,
}

impl TrafficPolicySpec {
    /// What a route is answered with, whatever its backends.
    #[must_use]
    pub const fn direct_response(&self) -> Option<&StaticResponse> {
        self.direct_response.as_ref()
    }

    /// What it sets, whoever it is merged with: services it names are in
    /// `own_namespace` where it does not say.
    #[must_use]
    pub fn policy(&self, own_namespace: &str) -> CallPolicy {
        CallPolicy {
            timeouts: self.timeouts.clone(),
            retry: self.retry.clone(),
            circuit_breaker: self.circuit_breaker.clone(),
            limits: self.limits.clone(),
            load_balancer: self.load_balancer.clone(),
            failures: self.failures.clone(),
            health_check: self.health_check.clone(),
            hedge: self.hedge.clone(),
            fallback: self.fallback.as_ref().map(|it| it.within(own_namespace)),
            fault: self.fault.clone(),
            mirror: self.mirror.as_ref().map(|it| it.within(own_namespace)),
        }
    }

    /// The services it makes use of, each with its field.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&'static str, &BackendRef)> {
        let fallback = self.fallback.as_ref().and_then(|it| it.service.as_ref());
        let mirror = self.mirror.as_ref().map(|it| &it.service);
        let fallback = fallback.map(|it| ("spec.fallback.service", it));
        fallback
            .into_iter()
            .chain(mirror.map(|it| ("spec.mirror.service", it)))
    }

    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_routes(&self.target_refs, own_namespace, check);
        self.policy(own_namespace).check("spec", check);
        self.check_scope(own_namespace, check);
        for (path, backend) in self.uses() {
            let used = backend.service(own_namespace);
            let is_target = |target: &TargetRef| {
                target.route(own_namespace).is_none() && target.target(own_namespace) == used
            };
            check.require(
                !self.target_refs.iter().any(is_target),
                format!("{path}.name"),
                format!("{used} is what this policy is for: another service is expected"),
            );
        }
    }

    /// Of a route only what is about its requests can be said, not what is about
    /// endpoints, which other routes share; and only a route can be answered.
    fn check_scope(&self, own_namespace: &str, check: &mut Checker<'_>) {
        let is_route = |target: &TargetRef| target.route(own_namespace).is_some();
        let routes = self.target_refs.iter().any(is_route);
        let of_endpoints = [
            ("timeouts.connect", self.timeouts.connect.is_some()),
            ("timeouts.idle", self.timeouts.idle.is_some()),
            (
                "circuitBreaker",
                self.circuit_breaker != CircuitBreaker::default(),
            ),
            ("limits", self.limits != Limits::default()),
            (
                "loadBalancer",
                self.load_balancer != LoadBalancer::default(),
            ),
            ("healthCheck", self.health_check.is_some()),
        ];
        for (key, is_set) in of_endpoints {
            check.require(
                !(routes && is_set),
                format!("spec.{key}"),
                "is about the endpoints of a service: a policy for a route cannot set it",
            );
        }
        let Some(response) = &self.direct_response else {
            return;
        };
        response.check("spec.directResponse", check);
        for (index, target) in self.target_refs.iter().enumerate() {
            let expected = match target.route(own_namespace).map(|route| route.kind) {
                Some(ResourceKind::HttpRoute) => continue,
                Some(_) => "a static answer is never given to a gRPC call",
                None => "`directResponse` is for routes: a service answers by itself",
            };
            check.error(format!("spec.targetRefs[{index}].kind"), expected);
        }
    }
}
