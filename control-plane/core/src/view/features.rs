//! What a reader of a resource must understand beyond what the messages began
//! with. A field that is set names its feature, so that an older proxy refuses
//! it instead of dropping it unseen. Knows fields, not their meaning.

use selvage_api::feature;
use selvage_api::v1;

/// The features of a body, each once, in a fixed order.
pub(super) fn of(body: &v1::resource::Body) -> Vec<&'static str> {
    match body {
        v1::resource::Body::Service(service) => {
            let own = service.policy.iter().flat_map(of_policy);
            let http = of_http_routes(&service.http_routes);
            let streams = of_stream_routes(&service.stream_routes);
            once(own.chain(http).chain(streams))
        }
        v1::resource::Body::Workload(workload) if !workload.server.is_empty() => {
            let limits = workload
                .server
                .iter()
                .filter_map(|it| it.rate_limit.as_ref());
            once(
                [feature::SERVER_POLICY]
                    .into_iter()
                    .chain(of_limits(limits)),
            )
        }
        v1::resource::Body::Gateway(gateway) => {
            let own = [feature::GATEWAY, feature::ROUTES];
            let routes = gateway.listeners.iter().flat_map(|listener| {
                of_http_routes(&listener.http_routes)
                    .chain(of_stream_routes(&listener.stream_routes))
            });
            once(own.into_iter().chain(routes))
        }
        v1::resource::Body::Workload(_) | v1::resource::Body::TrustBundle(_) => Vec::new(),
    }
}

/// Each feature once, those of policies in the order of [`of_policy`].
fn once(features: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut kept = Vec::new();
    for feature in features {
        if !kept.contains(&feature) {
            kept.push(feature);
        }
    }
    kept
}

fn of_http_routes(routes: &[v1::HttpRoute]) -> impl Iterator<Item = &'static str> {
    let rules = routes.iter().flat_map(|route| &route.rules);
    let backends = rules.clone().flat_map(|rule| &rule.backends);
    let limits = rules.filter_map(|rule| rule.rate_limit.as_ref());
    let routed = (!routes.is_empty()).then_some(feature::ROUTES);
    routed
        .into_iter()
        .chain(of_backends(backends))
        .chain(of_limits(limits))
}

fn of_limits<'l>(
    limits: impl Iterator<Item = &'l v1::RateLimit>,
) -> impl Iterator<Item = &'static str> {
    let by_source = |limit: &&v1::RateLimit| limit.key() == v1::RateLimitKey::SourceIp;
    limits.filter(by_source).map(|_| feature::RATE_LIMIT_SOURCE)
}

fn of_stream_routes(routes: &[v1::StreamRoute]) -> impl Iterator<Item = &'static str> {
    let backends = routes.iter().flat_map(|route| &route.backends);
    let routed = (!routes.is_empty()).then_some(feature::ROUTES);
    routed.into_iter().chain(of_backends(backends))
}

fn of_backends<'b>(
    backends: impl Iterator<Item = &'b v1::RouteBackend>,
) -> impl Iterator<Item = &'static str> {
    let policies = backends.filter_map(|backend| backend.policy.as_ref());
    policies.flat_map(of_policy)
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
