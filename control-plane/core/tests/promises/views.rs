//! What a workload is told, to the byte.

use std::time::Instant;

use selvage_api::v1;
use selvage_core::registry::{DEFAULT_LEASE, RegisteredPort, Registry, WorkloadKey};
use selvage_core::resource::ServiceName;
use selvage_core::resource::service::Protocol;
use selvage_core::view::{service_resource, static_view, view_service, view_workload};
use selvage_core::world::World;

use crate::registry::{id, registration};
use crate::{apply, mesh, world_of};

const RATINGS: &str = "
kind: Service
metadata: {name: ratings, namespace: shop}
spec:
  ports: [{port: 80, targetPort: 8080, protocol: http}]
  endpoints: [{address: 10.9.9.9:8080, labels: {v: a}}, {address: '::1', weight: 0}]
---
";

fn ratings() -> ServiceName {
    ServiceName::new("shop", "ratings")
}

pub(crate) fn nobody() -> Registry {
    Registry::new(Instant::now(), DEFAULT_LEASE)
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn policy(world: &World, caller: &str) -> v1::TrafficPolicy {
    view_service(world, &nobody(), caller, &ratings())
        .unwrap()
        .policy
        .unwrap()
}

#[test]
fn without_policy_the_defaults_are_filled_in() {
    let expected = v1::TrafficPolicy {
        timeouts: Some(v1::Timeouts {
            connect: seconds(1),
            ..v1::Timeouts::default()
        }),
        retry: None,
        circuit_breaker: Some(v1::CircuitBreaker {
            consecutive_failures: 5,
            success_rate: Some(v1::SuccessRate {
                threshold_percent: 80,
                window: seconds(10),
                minimum_requests: 20,
            }),
            backoff: Some(v1::Backoff {
                base: seconds(1),
                max: seconds(60),
            }),
            max_open_percent: 50,
        }),
        limits: Some(v1::Limits {
            max_connections: 1024,
            max_requests: 1024,
            max_pending: 1024,
        }),
        load_balancer: v1::LoadBalancer::PeakEwma.into(),
        hashing: None,
        slow_start: None,
        locality: None,
        retry_budget: Some(v1::RetryBudget {
            percent: 20,
            interval: seconds(10),
            min_per_second: 1,
        }),
        ..v1::TrafficPolicy::default()
    };
    assert_eq!(policy(&world_of(RATINGS), "shop"), expected);
}

/// `ratings` under a policy of its own namespace.
fn under(spec: &str) -> World {
    world_of(&format!(
        "{RATINGS}kind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{{kind: Service, name: ratings}}], {spec}}}\n"
    ))
}

#[test]
fn hedging_is_on_once_it_has_a_delay_and_a_share() {
    use v1::hedge::Delay;
    let table = [
        ("hedge: {maxPercent: 3}", None),
        ("hedge: {delay: p95, maxPercent: 0}", None),
        ("hedge: {delay: p95}", Some((Delay::Percentile(95), 5))),
        (
            "hedge: {delay: 2s, maxPercent: 7}",
            Some((Delay::After(seconds(2).unwrap()), 7)),
        ),
    ];
    for (spec, expected) in table {
        let hedge = policy(&under(spec), "shop").hedge;
        let found = hedge
            .as_ref()
            .map(|hedge| (hedge.delay.unwrap(), hedge.max_percent));
        assert_eq!(found, expected, "{spec}");
        if let Some(hedge) = hedge {
            assert_eq!(hedge.methods, ["GET", "HEAD", "OPTIONS"], "{spec}");
        }
    }
}

#[test]
fn what_an_older_proxy_would_pass_over_names_its_feature() {
    let table = [
        ("retry: {attempts: 1}", vec![]),
        ("hedge: {delay: p95}", vec!["hedge"]),
        (
            "fallback: {name: f, on: [503], service: {name: b}}",
            vec!["fallback"],
        ),
        ("fault: {abort: {percent: 0.1, reset: true}}", vec!["fault"]),
        (
            "hedge: {delay: p95}, mirror: {service: {name: b}}",
            vec!["hedge", "mirror"],
        ),
    ];
    for (spec, expected) in table {
        let sent = service_resource(&under(spec), &nobody(), "shop", &ratings()).unwrap();
        assert_eq!(sent.features, expected, "{spec}");
        assert_eq!(selvage_api::feature::first_unknown(&sent), None);
    }
}

#[test]
fn services_a_policy_names_are_of_its_own_namespace() {
    let text = format!(
        "{RATINGS}kind: TrafficPolicy\nmetadata: {{name: p, namespace: web}}\nspec: {{targetRefs: [{{kind: Service, name: ratings, namespace: shop}}], mirror: {{service: {{name: next}}}}, fallback: {{name: f, on: [503], service: {{name: spare, namespace: shop, port: 81}}}}}}\n"
    );
    let policy = policy(&world_of(&text), "web");
    let named = |backend: v1::Backend| (backend.namespace, backend.name, backend.port);
    let mirror = policy.mirror.unwrap();
    assert_eq!((mirror.millionths, mirror.max_pending), (1_000_000, 64));
    assert_eq!(
        named(mirror.service.unwrap()),
        ("web".to_owned(), "next".to_owned(), 0)
    );
    let Some(v1::fallback::To::Service(spare)) = policy.fallback.unwrap().to else {
        panic!("a service stands in");
    };
    assert_eq!(named(spare), ("shop".to_owned(), "spare".to_owned(), 81));
}

#[test]
fn retries_are_on_once_asked_for() {
    let table = [
        ("", None),
        ("retry: {attempts: 0}", None),
        ("retry: {backoff: {base: 1s}}", None),
        ("retry: {budget: {percent: 5}}", None),
        ("retry: {attempts: 2}", Some((2, 3))),
        ("retry: {on: [503]}", Some((1, 1))),
        ("retry: {attempts: 3, on: [503, UNAVAILABLE]}", Some((3, 2))),
    ];
    for (spec, expected) in table {
        let text = format!(
            "{RATINGS}kind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{{kind: Service, name: ratings}}], {spec}}}\n"
        );
        let retry = policy(&world_of(&text), "shop").retry;
        assert_eq!(
            retry.as_ref().map(|retry| (retry.attempts, retry.on.len())),
            expected,
            "{spec}"
        );
        if let Some(retry) = retry {
            assert_eq!(retry.buffer_limit, 64 * 1024);
            let nanos = |span: Option<prost_types::Duration>| span.unwrap().nanos;
            let backoff = retry.backoff.unwrap();
            assert_eq!(
                (nanos(backoff.base), nanos(backoff.max)),
                (25_000_000, 250_000_000)
            );
        }
    }
}

#[test]
fn zero_switches_off_and_absent_is_absent() {
    let text = format!(
        "{RATINGS}kind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{{kind: Service, name: ratings}}], timeouts: {{request: 0s, idle: 0s}}, circuitBreaker: {{consecutiveFailures: 0, successRate: {{threshold: 0}}}}}}\n"
    );
    let policy = policy(&world_of(&text), "shop");
    let timeouts = policy.timeouts.unwrap();
    assert_eq!((timeouts.request, timeouts.idle), (seconds(0), seconds(0)));
    assert_eq!(timeouts.backend_request, None);
    let breaker = policy.circuit_breaker.unwrap();
    assert_eq!(
        (breaker.consecutive_failures, breaker.success_rate),
        (0, None)
    );
}

#[test]
fn workloads_and_documents_are_one_service() {
    let now = Instant::now();
    let mut registry = Registry::new(now, DEFAULT_LEASE);
    let mut second = registration("w2");
    second.ports = vec![
        RegisteredPort {
            service_port: 90,
            protocol: Protocol::Grpc,
            healthy: false,
        },
        RegisteredPort {
            service_port: 80,
            protocol: Protocol::Tcp,
            healthy: true,
        },
    ];
    registry.register(second, now).unwrap();
    registry.register(registration("w1"), now).unwrap();
    let mut other = registration("w0");
    other.service = "orders".to_owned();
    registry.register(other, now).unwrap();

    let view = view_service(&world_of(RATINGS), &registry, "shop", &ratings()).unwrap();
    let ports: Vec<_> = view
        .ports
        .iter()
        .map(|port| (port.port, port.target_port, port.protocol()))
        .collect();
    assert_eq!(
        ports,
        [(80, 8080, v1::Protocol::Http), (90, 90, v1::Protocol::Grpc)]
    );
    let endpoints: Vec<_> = view
        .endpoints
        .iter()
        .map(|endpoint| {
            let ports: Vec<_> = endpoint
                .ports
                .iter()
                .map(|port| (port.port, port.health()))
                .collect();
            (endpoint.id.as_str(), endpoint.port, endpoint.weight, ports)
        })
        .collect();
    let (healthy, unhealthy) = (v1::Health::Healthy, v1::Health::Unhealthy);
    assert_eq!(
        endpoints,
        [
            ("10.9.9.9:8080", 8080, 1, vec![]),
            ("::1", 0, 0, vec![]),
            ("shop/w1", 15008, 1, vec![(80, healthy)]),
            ("shop/w2", 15008, 1, vec![(80, healthy), (90, unhealthy)]),
        ]
    );
    assert_eq!(view.endpoints[2].identity, id("ratings").as_str());
    assert_eq!(view.endpoints[0].identity, "");
}

#[test]
fn a_lapsed_workload_is_unhealthy_at_every_port() {
    let start = Instant::now();
    let mut registry = Registry::new(start, DEFAULT_LEASE);
    registry.restore(registration("w1"));
    registry.expire(start + DEFAULT_LEASE * 2);
    let view = view_service(&mesh(), &registry, "shop", &ratings()).unwrap();
    assert_eq!(view.endpoints[0].ports[0].health(), v1::Health::Unhealthy);
}

#[test]
fn a_documented_address_that_registers_is_one_endpoint() {
    let now = Instant::now();
    let mut registry = Registry::new(now, DEFAULT_LEASE);
    registry.register(registration("w1"), now).unwrap();
    let world = world_of(&RATINGS.replace("10.9.9.9:8080", "10.0.0.1:15008"));
    let view = view_service(&world, &registry, "shop", &ratings()).unwrap();
    let ids: Vec<_> = view
        .endpoints
        .iter()
        .map(|endpoint| endpoint.id.as_str())
        .collect();
    assert_eq!(ids, ["::1", "shop/w1"]);
}

#[test]
fn what_nobody_knows_is_not_there() {
    assert_eq!(view_service(&mesh(), &nobody(), "shop", &ratings()), None);
    assert!(service_resource(&mesh(), &nobody(), "shop", &ratings()).is_none());
}

#[test]
fn versions_follow_the_body_alone() {
    let version = |world: &World| {
        service_resource(world, &nobody(), "shop", &ratings())
            .unwrap()
            .version
    };
    let world = world_of(RATINGS);
    assert_eq!(version(&world), version(&world_of(RATINGS)));
    let mut other = world_of("kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n");
    apply(&mut other, RATINGS).unwrap();
    assert_eq!(version(&world), version(&other));
    assert_ne!(
        version(&world),
        version(&world_of(&RATINGS.replace("v: a", "v: b")))
    );
    // Known over restarts and by other machines: it must never change by itself.
    assert_eq!(version(&world), PINNED, "{:#x}", version(&world));
}

const PINNED: u64 = 0xc3a9_7266_55aa_f735;

#[test]
fn a_workload_is_told_the_mesh_and_who_may_call_it() {
    let none = view_workload(&mesh(), &ratings());
    assert_eq!(none.trust_domain, "mesh.local");
    assert_eq!(none.mutual_tls(), v1::MutualTls::Strict);
    assert_eq!(
        none.authorization_default(),
        v1::AuthorizationDefault::Allow
    );
    assert_eq!((none.series_limit, none.authorization.len()), (10_000, 0));

    let world = world_of(
        "
kind: MeshConfig
metadata: {name: mesh}
spec: {mtls: permissive, authorization: {default: deny}, telemetry: {seriesLimit: 500}}
---
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  mode: audit
  rules:
  - { name: r, action: allow, from: [{identities: ['spiffe://mesh.local/ns/a/sa/b'], notNamespaces: [x]}],
      to: [{methods: [GET], notPaths: [{type: PathPrefix, value: /v1/}, {type: Exact, value: /}]}] }
",
    );
    let view = view_workload(&world, &ratings());
    assert_eq!(view.mutual_tls(), v1::MutualTls::Permissive);
    assert_eq!(view.authorization_default(), v1::AuthorizationDefault::Deny);
    assert_eq!(view.series_limit, 500);
    let path = |kind: v1::PathMatchType, value: &str| v1::PathMatch {
        r#type: kind.into(),
        value: value.to_owned(),
    };
    let expected = v1::AuthorizationPolicy {
        namespace: "shop".to_owned(),
        name: "p".to_owned(),
        mode: v1::AuthorizationMode::Audit.into(),
        rules: vec![v1::AuthorizationRule {
            name: "r".to_owned(),
            action: v1::AuthorizationAction::Allow.into(),
            from: vec![v1::AuthorizationSource {
                identities: vec!["spiffe://mesh.local/ns/a/sa/b".to_owned()],
                not_namespaces: vec!["x".to_owned()],
                ..v1::AuthorizationSource::default()
            }],
            to: vec![v1::AuthorizationOperation {
                methods: vec!["GET".to_owned()],
                not_paths: vec![
                    path(v1::PathMatchType::Prefix, "/v1"),
                    path(v1::PathMatchType::Exact, "/"),
                ],
                ..v1::AuthorizationOperation::default()
            }],
        }],
    };
    assert_eq!(view.authorization, [expected]);
}

#[test]
fn a_static_view_is_the_workload_and_every_document() {
    let world = world_of(&format!(
        "{RATINGS}kind: Service\nmetadata: {{name: b}}\nspec: {{ports: [{{port: 1}}]}}\n"
    ));
    let view = static_view(&world, &WorkloadKey::new("shop", "w1"), &ratings(), None);
    let names: Vec<_> = view
        .iter()
        .map(|resource| {
            let name = resource.name.clone().unwrap();
            (name.r#type(), name.name)
        })
        .collect();
    let named = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(
        names,
        [
            named(v1::ResourceType::Workload, "shop/w1"),
            named(v1::ResourceType::Service, "default/b"),
            named(v1::ResourceType::Service, "shop/ratings"),
        ]
    );
}
