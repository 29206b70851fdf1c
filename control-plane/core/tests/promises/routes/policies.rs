//! Whose policy applies to the requests of a rule.

use selvage_api::v1;
use selvage_core::world::World;

use super::attachment::{SERVICES, routes};
use crate::views::seconds;
use crate::{apply, world_of};

const ROUTE: &str = "
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: ratings, port: 80}]
  rules:
    - { name: first, timeouts: {request: 1s}, backendRefs: [{name: ratings-v2, port: 80}] }
    - { backendRefs: [{name: ratings-v2, port: 80}, {name: ratings, port: 80}] }
---
";

fn policy(name: &str, namespace: &str, target: &str, spec: &str) -> String {
    format!(
        "kind: TrafficPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{targetRefs: [{target}], {spec}}}\n---\n"
    )
}

fn world(policies: &[String]) -> World {
    world_of(&format!("{SERVICES}{ROUTE}{}", policies.concat()))
}

/// The policy of a backend of a rule.
fn of(world: &World, caller: &str, rule: usize, backend: usize) -> Option<v1::TrafficPolicy> {
    let routes = routes(world, caller);
    routes[0].rules[rule].backends[backend].policy.clone()
}

/// Its time limits: of the request, of one try, of a connection.
type Limits = [Option<prost_types::Duration>; 3];

fn limits(policy: Option<v1::TrafficPolicy>) -> Option<Limits> {
    let timeouts = policy?.timeouts.unwrap();
    Some([timeouts.request, timeouts.backend_request, timeouts.connect])
}

#[test]
fn without_anything_narrower_the_backend_decides() {
    let world = world(&[]);
    assert!(of(&world, "shop", 1, 0).is_none());
    assert_eq!(
        limits(of(&world, "shop", 0, 0)),
        Some([seconds(1), None, seconds(1)])
    );
}

#[test]
fn the_narrowest_wins_leaf_by_leaf() {
    let route = "{kind: HTTPRoute, name: r, namespace: shop}";
    let rule = "{kind: HTTPRoute, name: r, namespace: shop, sectionName: first}";
    let parent = "{kind: Service, name: ratings, namespace: shop}";
    let backend = "{kind: Service, name: ratings-v2, namespace: shop}";
    let world = world(&[
        policy(
            "rule",
            "shop",
            rule,
            "timeouts: {request: 2s, backendRequest: 2s}",
        ),
        policy(
            "route",
            "shop",
            route,
            "timeouts: {request: 3s, backendRequest: 3s}, retry: {attempts: 3}",
        ),
        policy(
            "parent",
            "shop",
            parent,
            "timeouts: {request: 4s, connect: 4s}, retry: {attempts: 4, bufferLimit: 4KiB}",
        ),
        policy(
            "backend",
            "shop",
            backend,
            "timeouts: {request: 5s, connect: 5s}, limits: {maxPending: 5}",
        ),
        policy("consumer", "web", route, "timeouts: {backendRequest: 1s}"),
    ]);
    // The rule itself, a policy for it, the endpoints' own.
    assert_eq!(
        limits(of(&world, "shop", 0, 0)),
        Some([seconds(1), seconds(2), seconds(5)])
    );
    // A consumer of the route is still broader than a producer of the rule.
    assert_eq!(
        limits(of(&world, "web", 0, 0)),
        Some([seconds(1), seconds(2), seconds(5)])
    );
    assert_eq!(
        limits(of(&world, "shop", 1, 0)),
        Some([seconds(3), seconds(3), seconds(5)])
    );
    assert_eq!(
        limits(of(&world, "web", 1, 0)),
        Some([seconds(3), seconds(1), seconds(5)])
    );
    let merged = of(&world, "shop", 1, 0).unwrap();
    let retry = merged.retry.unwrap();
    assert_eq!((retry.attempts, retry.buffer_limit), (3, 4096));
    assert_eq!(merged.limits.unwrap().max_pending, 5);
    // The parent as a backend: its own connect timeout.
    assert_eq!(
        limits(of(&world, "shop", 1, 1)),
        Some([seconds(3), seconds(3), seconds(4)])
    );
}

#[test]
fn a_retry_without_codes_covers_the_transport_and_codes_add() {
    let text = ROUTE.replace(
        "timeouts: {request: 1s}",
        "retry: {codes: [500], backoff: 400ms}",
    );
    let world = world_of(&format!("{SERVICES}{text}"));
    let retry = of(&world, "shop", 0, 0).unwrap().retry.unwrap();
    let on: Vec<_> = retry.on.iter().map(|on| on.condition.unwrap()).collect();
    use v1::retry_condition::Condition::{Status, Transport};
    let transport = |condition: v1::TransportCondition| Transport(condition.into());
    assert_eq!(
        on,
        [
            transport(v1::TransportCondition::ConnectFailure),
            transport(v1::TransportCondition::Reset),
            transport(v1::TransportCondition::Timeout),
            Status(500),
        ]
    );
    assert_eq!(retry.attempts, 1);
    assert!(retry.methods.is_empty(), "the idempotent ones");
    let backoff = retry.backoff.unwrap();
    let base = backoff.base.unwrap();
    assert_eq!((base.seconds, base.nanos), (0, 400_000_000));
    assert_eq!(backoff.max, backoff.base);
    let none = ROUTE.replace("timeouts: {request: 1s}", "retry: {attempts: 0}");
    let world = world_of(&format!("{SERVICES}{none}"));
    assert!(of(&world, "shop", 0, 0).unwrap().retry.is_none());
}

#[test]
fn an_answer_is_of_the_narrowest_and_oldest() {
    let rule = "{kind: HTTPRoute, name: r, sectionName: first}";
    let mut world = world(&[policy(
        "route",
        "shop",
        "{kind: HTTPRoute, name: r}",
        "directResponse: {status: 418, headers: [{name: X-A, value: b}], body: short}",
    )]);
    apply(
        &mut world,
        &policy("b", "shop", rule, "directResponse: {status: 503}"),
    )
    .unwrap();
    apply(
        &mut world,
        &policy("a", "shop", rule, "directResponse: {status: 504}"),
    )
    .unwrap();
    let sent = routes(&world, "shop");
    let status = |rule: usize| sent[0].rules[rule].response.clone().unwrap().status;
    assert_eq!((status(0), status(1)), (503, 418));
    let answer = sent[0].rules[1].response.clone().unwrap();
    assert_eq!(answer.body, b"short");
    assert_eq!(answer.headers[0].name, "x-a");
    let key = selvage_core::resource::ResourceKey {
        kind: selvage_core::resource::ResourceKind::TrafficPolicy,
        namespace: "shop".to_owned(),
        name: "a".to_owned(),
    };
    let conditions = world.conditions(&key, &std::collections::BTreeSet::new());
    let accepted = &conditions[0];
    assert_eq!((accepted.status, accepted.reason), (false, "Conflicted"));
    assert_eq!(
        accepted.message,
        "for rule `first` of HTTPRoute shop/r, the older TrafficPolicy shop/b applies instead"
    );
}
