//! Whose policy applies to whom.

use std::time::Duration;

use selvage_core::attach::{authorization, call_policy};
use selvage_core::resource::ServiceName;

use crate::{apply, world_of};

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "kind: TrafficPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{targetRefs: [{{kind: Service, name: ratings, namespace: shop}}], {spec}}}\n---\n"
    )
}

fn ratings() -> ServiceName {
    ServiceName::new("shop", "ratings")
}

#[test]
fn consumer_over_producer_over_mesh_leaf_by_leaf() {
    let mesh = "kind: MeshConfig\nmetadata: {name: mesh}\nspec: {defaults: {timeouts: {request: 9s, connect: 9s, idle: 9s}, circuitBreaker: {successRate: {threshold: 10, window: 9s}}}}\n---\n";
    let producer = policy(
        "p",
        "shop",
        "timeouts: {request: 5s, connect: 5s}, circuitBreaker: {successRate: {threshold: 50}}",
    );
    let consumer = policy("c", "web", "timeouts: {request: 1s}");
    let world = world_of(&format!("{mesh}{producer}{consumer}"));
    let table = [("web", 1, 5, 9), ("shop", 5, 5, 9), ("else", 5, 5, 9)];
    for (caller, request, connect, idle) in table {
        let merged = call_policy(&world, &ratings(), caller);
        let seconds = |given: Option<selvage_core::scalar::Duration>| given.map(|given| given.0);
        assert_eq!(
            seconds(merged.timeouts.request),
            Some(Duration::from_secs(request)),
            "{caller}"
        );
        assert_eq!(
            seconds(merged.timeouts.connect),
            Some(Duration::from_secs(connect))
        );
        assert_eq!(
            seconds(merged.timeouts.idle),
            Some(Duration::from_secs(idle))
        );
        assert_eq!(
            merged
                .circuit_breaker
                .success_rate
                .threshold
                .map(|share| share.0),
            Some(50)
        );
        let window = merged.circuit_breaker.success_rate.window;
        assert_eq!(seconds(window), Some(Duration::from_secs(9)));
    }
    let other = call_policy(&world, &ServiceName::new("shop", "orders"), "web");
    assert_eq!(
        other.timeouts.request.map(|given| given.0),
        Some(Duration::from_secs(9))
    );
}

#[test]
fn the_oldest_of_a_rank_alone_counts() {
    let mut world = world_of(&policy("z", "shop", "limits: {maxPending: 1}"));
    apply(
        &mut world,
        &policy("a", "shop", "limits: {maxPending: 2, maxRequests: 2}"),
    )
    .unwrap();
    let merged = call_policy(&world, &ratings(), "shop");
    assert_eq!(merged.limits.max_pending, Some(1));
    assert_eq!(merged.limits.max_requests, None);
    // A change does not make it younger.
    apply(&mut world, &policy("z", "shop", "limits: {maxPending: 3}")).unwrap();
    assert_eq!(
        call_policy(&world, &ratings(), "shop").limits.max_pending,
        Some(3)
    );
    // In one file, the first one is the older one.
    let both = format!(
        "{}{}",
        policy("z", "web", "limits: {maxPending: 1}"),
        policy("a", "web", "limits: {maxPending: 2}")
    );
    assert_eq!(
        call_policy(&world_of(&both), &ratings(), "web")
            .limits
            .max_pending,
        Some(1)
    );
}

#[test]
fn authorization_is_the_namespaces_own() {
    let rule = "rules: [{name: r, action: deny}]";
    let of = |name: &str, namespace: &str, targets: &str| {
        format!(
            "kind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{targets}{rule}}}\n---\n"
        )
    };
    let ratings_only = "targetRefs: [{kind: Service, name: ratings}], ";
    let world = world_of(
        &[
            of("b-ratings", "shop", ratings_only),
            of("a-all", "shop", ""),
            of(
                "c-orders",
                "shop",
                &ratings_only.replace("ratings", "orders"),
            ),
            of("d-foreign", "web", ratings_only),
        ]
        .concat(),
    );
    let names = |service: &ServiceName| -> Vec<_> {
        authorization(&world, service)
            .into_iter()
            .map(|(key, _)| key.name.as_str())
            .collect()
    };
    assert_eq!(names(&ratings()), ["a-all", "b-ratings"]);
    assert_eq!(names(&ServiceName::new("shop", "other")), ["a-all"]);
    assert_eq!(names(&ServiceName::new("web", "ratings")), ["d-foreign"]);
}
