//! `TrafficPolicy`: how callers treat a service. Refuses to know which of
//! several policies wins.

use serde::Deserialize;

use super::call_policy::{CallPolicy, CircuitBreaker, Limits, Retry, Timeouts};
use super::failures::Failures;
use super::health_check::HealthCheck;
use super::load_balancer::LoadBalancer;
use super::reference::{TargetRef, check_targets};
use crate::config::Checker;

/// `spec` of a `TrafficPolicy`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The services meant.
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
}

impl TrafficPolicySpec {
    /// What it sets.
    #[must_use]
    pub fn policy(&self) -> CallPolicy {
        CallPolicy {
            timeouts: self.timeouts.clone(),
            retry: self.retry.clone(),
            circuit_breaker: self.circuit_breaker.clone(),
            limits: self.limits.clone(),
            load_balancer: self.load_balancer.clone(),
            failures: self.failures.clone(),
            health_check: self.health_check.clone(),
        }
    }

    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_targets(&self.target_refs, own_namespace, check);
        self.policy().check("spec", check);
    }
}
