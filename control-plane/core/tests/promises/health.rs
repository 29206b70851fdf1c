//! Health checks and failures: refused where they contradict themselves, sent
//! with their defaults filled in, and with the words that their reader must know.

use std::collections::BTreeMap;
use std::time::Instant;

use selvage_api::{feature, v1};
use selvage_core::registry::{DEFAULT_LEASE, Registry};
use selvage_core::resource::ServiceName;
use selvage_core::view::service_resource;

use crate::{apply, mesh, told, world_of};

const RATINGS: &str =
    "kind: Service\nmetadata: {name: ratings, namespace: shop}\nspec: {ports: [{port: 80}]}\n---\n";

fn document(namespace: &str, spec: &str) -> String {
    format!(
        "kind: TrafficPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec:\n  targetRefs: [{{kind: Service, name: ratings, namespace: shop}}]\n  {spec}\n---\n"
    )
}

/// What callers in `shop` are sent.
fn sent(text: &str) -> (Vec<String>, v1::TrafficPolicy) {
    let world = world_of(&format!("{RATINGS}{text}"));
    let registry = Registry::new(Instant::now(), DEFAULT_LEASE);
    let name = ServiceName::new("shop", "ratings");
    let resource = service_resource(&world, &registry, "web", &name).unwrap();
    let Some(v1::resource::Body::Service(service)) = resource.body else {
        panic!("a service");
    };
    (resource.features, service.policy.unwrap())
}

#[test]
fn contradictions_are_refused_at_their_place() {
    let table = [
        ("healthCheck: {}", "healthCheck: expected one of"),
        (
            "healthCheck: {interval: 1s}",
            "healthCheck: expected one of",
        ),
        (
            "healthCheck: {tcp: {}, grpc: {}}",
            "healthCheck: give one of",
        ),
        (
            "healthCheck: {off: {}, interval: 1s}",
            "healthCheck.off: nothing else",
        ),
        (
            "healthCheck: {tcp: {}, interval: 1s, timeout: 2s}",
            "healthCheck.timeout: a check (2s) cannot take longer than the interval (1s)",
        ),
        ("healthCheck: {tcp: {}, timeout: 6s}", "the interval (5s)"),
        (
            "healthCheck: {tcp: {}, timeout: 0s}",
            "healthCheck.timeout: expected more than 0s",
        ),
        (
            "healthCheck: {tcp: {}, interval: 10ms}",
            "healthCheck.interval: expected 100ms to 1h",
        ),
        (
            "healthCheck: {tcp: {}, jitter: 60%}",
            "healthCheck.jitter: expected at most 50",
        ),
        (
            "healthCheck: {tcp: {}, unhealthyThreshold: 0}",
            "unhealthyThreshold: expected 1 to 100",
        ),
        (
            "healthCheck: {tcp: {}, healthyThreshold: 101}",
            "healthyThreshold: expected 1 to 100",
        ),
        ("healthCheck: {http: {}}", "the key `path` is missing"),
        (
            "healthCheck: {http: {path: x}}",
            "healthCheck.http.path: expected a path",
        ),
        (
            "healthCheck: {http: {path: /, host: 'a b'}}",
            "healthCheck.http.host: expected a host",
        ),
        (
            "healthCheck: {http: {path: /, expectedStatuses: []}}",
            "healthCheck.http.expectedStatuses: expected at least one",
        ),
        (
            "healthCheck: {http: {path: /, expectedStatuses: [200, 1xx]}}",
            "healthCheck.http.expectedStatuses[1]: `1xx` is not a final answer",
        ),
        (
            "healthCheck: {http: {path: /, expectedStatuses: [2x]}}",
            "expected an HTTP status",
        ),
        (
            "healthCheck: {grpc: {service: 'a b'}}",
            "healthCheck.grpc.service: expected the name",
        ),
        (
            "healthCheck: {grpc: {servce: a}}",
            "did you mean `service`?",
        ),
        ("healthCheck: {htp: {path: /}}", "did you mean `http`?"),
        (
            "failures: {statuses: [503, 200]}",
            "failures.statuses[1]: `200` says that it went well",
        ),
        (
            "failures: {hardStatuses: [3xx]}",
            "failures.hardStatuses[0]: `3xx` says",
        ),
        (
            "failures: {statuses: [600]}",
            "expected an HTTP status from 100 to 599",
        ),
        (
            "failures: {grpcStatuses: [UNAVAILBLE]}",
            "did you mean `UNAVAILABLE`?",
        ),
        (
            "failures: {hardGrpcStatuses: [OK]}",
            "expected the name of a gRPC status",
        ),
        ("failures: {status: [503]}", "did you mean `statuses`?"),
    ];
    for (spec, expected) in table {
        let text = format!("{RATINGS}{}", document("shop", spec));
        let refused = told(&apply(&mut mesh(), &text).unwrap_err()).join("\n");
        assert!(refused.contains(expected), "{spec}: {refused}");
    }
}

#[test]
fn what_is_not_said_is_filled_in_and_named_as_a_feature() {
    let (features, policy) = sent("");
    assert_eq!(features, Vec::<String>::new());
    assert_eq!((policy.health_check, policy.failures), (None, None));

    let (features, policy) = sent(&document("shop", "healthCheck: {http: {path: /healthz}}"));
    assert_eq!(features, [feature::HEALTH_CHECK]);
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let expected = v1::HealthCheck {
        question: Some(v1::health_check::Question::Http(v1::HttpQuestion {
            path: "/healthz".to_owned(),
            host: String::new(),
            expected: vec![v1::StatusRange {
                first: 200,
                last: 399,
            }],
        })),
        interval: seconds(5),
        timeout: seconds(1),
        jitter_percent: 10,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    };
    assert_eq!(policy.health_check, Some(expected));

    let (features, policy) = sent(&document("shop", "failures: {statuses: [4xx, 500]}"));
    assert_eq!(features, [feature::FAILURES]);
    let failures = policy.failures.unwrap();
    let ends = |ranges: &[v1::StatusRange]| {
        let ends = ranges.iter().map(|range| (range.first, range.last));
        ends.collect::<Vec<_>>()
    };
    assert_eq!(ends(&failures.statuses), [(400, 499), (500, 500)]);
    assert_eq!(ends(&failures.hard_statuses), [(502, 504)]);
    assert_eq!(failures.grpc_statuses, [2, 4, 13, 14, 15]);
    assert_eq!(failures.hard_grpc_statuses, [14]);
    assert!(
        features
            .iter()
            .all(|word| feature::KNOWN.contains(&word.as_str()))
    );
}

#[test]
fn a_consumers_check_replaces_the_producers_whole_and_failures_list_by_list() {
    let producer = document(
        "shop",
        "healthCheck: {tcp: {}, interval: 9s, unhealthyThreshold: 7}\n  failures: {statuses: [500], hardGrpcStatuses: []}",
    );
    let consumers = BTreeMap::from([
        ("healthCheck: {off: {}}", None),
        ("healthCheck: {grpc: {}}", Some((5, 3))),
        ("failures: {hardGrpcStatuses: [INTERNAL]}", Some((9, 7))),
    ]);
    for (spec, expected) in consumers {
        let (_, policy) = sent(&format!("{producer}{}", document("web", spec)));
        let paced = policy.health_check.map(|check| {
            let interval = check.interval.unwrap().seconds;
            (interval, check.unhealthy_threshold)
        });
        assert_eq!(paced, expected, "{spec}");
        let failures = policy.failures.unwrap();
        assert_eq!(failures.statuses.len(), 1);
        let hard: &[u32] = if spec.contains("INTERNAL") {
            &[13]
        } else {
            &[]
        };
        assert_eq!(failures.hard_grpc_statuses, hard);
    }
}
