//! What a reader of a resource must understand beyond what the messages began
//! with. A field that is set names its feature, so that an older proxy refuses
//! it instead of dropping it unseen. Knows fields, not their meaning.

use selvage_api::feature;
use selvage_api::v1;

/// The features of a body, each once, in a fixed order.
pub(super) fn of(body: &v1::resource::Body) -> Vec<&'static str> {
    match body {
        v1::resource::Body::Service(service) => {
            service.policy.as_ref().map(of_policy).unwrap_or_default()
        }
        v1::resource::Body::Workload(workload) if !workload.server.is_empty() => {
            vec![feature::SERVER_POLICY]
        }
        v1::resource::Body::Workload(_) | v1::resource::Body::TrustBundle(_) => Vec::new(),
    }
}

fn of_policy(policy: &v1::TrafficPolicy) -> Vec<&'static str> {
    let used = [
        (feature::BALANCERS, wants_balancers(policy)),
        (feature::HEALTH_CHECK, policy.health_check.is_some()),
        (feature::FAILURES, policy.failures.is_some()),
        (feature::HEDGE, policy.hedge.is_some()),
        (feature::FALLBACK, policy.fallback.is_some()),
        (feature::FAULT, policy.fault.is_some()),
        (feature::MIRROR, policy.mirror.is_some()),
    ];
    let named = used.into_iter().filter(|(_, is_used)| *is_used);
    named.map(|(feature, _)| feature).collect()
}

fn wants_balancers(policy: &v1::TrafficPolicy) -> bool {
    policy.load_balancer() != v1::LoadBalancer::PeakEwma
        || policy.hashing.is_some()
        || policy.slow_start.is_some()
        || policy.locality.is_some()
}
