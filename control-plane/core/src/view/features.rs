//! What a reader of a resource must understand beyond what the messages began
//! with. A field that is set names its feature, so that an older proxy refuses
//! it instead of dropping it unseen. Knows fields, not their meaning.

use selvage_api::feature;
use selvage_api::v1;

/// The features of a body, each once.
pub(super) fn of(body: &v1::resource::Body) -> Vec<&'static str> {
    let policy = match body {
        v1::resource::Body::Service(service) => service.policy.as_ref(),
        v1::resource::Body::Workload(_) | v1::resource::Body::TrustBundle(_) => None,
    };
    let mut features = Vec::new();
    if policy.is_some_and(wants_balancers) {
        features.push(feature::BALANCERS);
    }
    features
}

fn wants_balancers(policy: &v1::TrafficPolicy) -> bool {
    policy.load_balancer() != v1::LoadBalancer::PeakEwma
        || policy.hashing.is_some()
        || policy.slow_start.is_some()
        || policy.locality.is_some()
}
