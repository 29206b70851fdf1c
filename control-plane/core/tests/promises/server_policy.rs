//! How a service protects itself: what is refused, whose policy counts, and
//! what its workloads are told.

use selvage_api::v1;
use selvage_core::attach::server;
use selvage_core::parse::parse;
use selvage_core::registry::WorkloadKey;
use selvage_core::resource::ServiceName;
use selvage_core::view::{view_workload, workload_resource};

use crate::{apply, told, world_of};

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "kind: ServerPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{targetRefs: [{{kind: Service, name: orders{target}}}], {spec}}}\n---\n"
    )
}

fn orders() -> ServiceName {
    ServiceName::new("shop", "orders")
}

fn span(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

#[test]
fn what_contradicts_itself_is_refused_with_its_path() {
    let table = [
        (
            "rateLimit: {requests: 0}",
            "rateLimit.requests: expected at least 1, found `0`",
        ),
        (
            "rateLimit: {requests: 1, per: 0s}",
            "rateLimit.per: expected more than 0s and at most 1h",
        ),
        (
            "rateLimit: {requests: 1, per: 2h}",
            "rateLimit.per: expected more than 0s and at most 1h",
        ),
        (
            "rateLimit: {requests: 20000000}",
            "rateLimit.requests: expected at most ten million per second",
        ),
        (
            "rateLimit: {requests: 1, burst: 0}",
            "rateLimit.burst: expected at least 1, found `0`",
        ),
        (
            "rateLimit: {requests: 1, key: 'header:'}",
            "rateLimit.key: expected the name of a header after `header:`, found ``",
        ),
        (
            "rateLimit: {requests: 1, key: 'header:x y'}",
            "rateLimit.key: expected the name of a header after `header:`, found `x y`",
        ),
        (
            "rateLimit: {requests: 1, key: 'header:X-Selvage-Flag'}",
            "rateLimit.key: `x-selvage-flag` is never a caller's own word / `identity` counts each caller",
        ),
        (
            "concurrency: {}",
            "expected `rateLimit` or `concurrency`: a policy without them protects nothing",
        ),
        (
            "concurrency: {max: 5}",
            "concurrency.max: expected `mode: fixed` or `mode: adaptive` beside it",
        ),
        (
            "concurrency: {mode: off, queue: 5}",
            "concurrency.queue: with `mode: off` there is no limit",
        ),
        (
            "concurrency: {mode: fixed}",
            "concurrency.mode: a fixed limit needs `max`",
        ),
        (
            "concurrency: {mode: fixed, max: 5, min: 1}",
            "concurrency.min: a fixed limit has only `max`",
        ),
        (
            "concurrency: {mode: fixed, max: 0}",
            "concurrency.max: expected 1 to 1000000",
        ),
        (
            "concurrency: {mode: adaptive, min: 6, max: 5}",
            "concurrency.min: the minimum (6) is above the maximum (5)",
        ),
        (
            "concurrency: {mode: adaptive, min: 6, start: 5}",
            "concurrency.start: expected a figure from `min` to `max`",
        ),
        (
            "concurrency: {mode: adaptive, queueTimeout: 0s}",
            "concurrency.queueTimeout: expected more than 0s and at most 1m; `queue: 0` lets nobody wait",
        ),
        (
            "concurrency: {mode: adaptive, queue: 0, queueTimeout: 1s}",
            "concurrency.queueTimeout: with `queue: 0` nobody waits",
        ),
        (
            "concurrency: {mode: fixed, max: 5, perCaller: {maxConcurrent: 6}}",
            "concurrency.perCaller.maxConcurrent: one caller (6) cannot have more than all (5)",
        ),
        (
            "concurrency: {perCaller: {maxConcurrent: 0}}",
            "concurrency.perCaller.maxConcurrent: expected 1 to 1000000",
        ),
    ];
    for (spec, expected) in table {
        let found = parse("t", &policy("p", "", spec)).expect_err(spec);
        let told = told(&found);
        let (_, said) = told[0].split_once(" spec").expect("a field of spec");
        let said = said.trim_start_matches(['.', ':', ' ']);
        assert_eq!((said, told.len()), (expected, 1), "{spec}");
    }
    let unknown = parse(
        "t",
        &policy("p", "", "rateLimit: {requests: 1, key: identiy}"),
    );
    let told = told(&unknown.expect_err("a misspelt key"));
    assert!(told[0].contains("did you mean `identity`?"), "{told:?}");
}

#[test]
fn a_target_may_name_one_port_of_its_own_namespaces_service() {
    let limit = "rateLimit: {requests: 1}";
    let table = [
        (", port: 80", None),
        (", port: 80}, {kind: Service, name: orders", None),
        (
            ", port: 0",
            Some("spec.targetRefs[0].port: expected 1 to 65535, found `0`"),
        ),
        (
            ", port: 80}, {kind: Service, name: orders, port: 80",
            Some("spec.targetRefs[1]: the target shop/orders is given twice"),
        ),
        (
            ", namespace: web",
            Some(
                "spec.targetRefs[0].namespace: a policy protects its own namespace, which is `shop`",
            ),
        ),
    ];
    for (target, expected) in table {
        let found = parse("t", &policy("p", target, limit));
        let told = found.err().map(|found| told(&found).remove(0));
        let said = told.as_deref().and_then(|told| told.split_once(' '));
        assert_eq!(said.map(|(_, said)| said), expected, "{target}");
    }
    let elsewhere = "kind: TrafficPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Service, name: a, port: 80}]}";
    let found = parse("t", elsewhere).expect_err("callers have no policy by port");
    assert!(told(&found)[0].ends_with("a policy of this kind is for every port of a service"));
}

#[test]
fn the_port_over_the_service_part_by_part_and_the_oldest_of_equals() {
    let world = world_of(&format!(
        "{}{}{}",
        policy(
            "z",
            "",
            "rateLimit: {requests: 1}, concurrency: {mode: fixed, max: 5, perCaller: {maxConcurrent: 2}}"
        ),
        policy("a", "", "rateLimit: {requests: 99}"),
        policy(
            "port",
            ", port: 80",
            "rateLimit: {requests: 7, burst: 1}, concurrency: {perCaller: {maxConcurrent: 9}}"
        ),
    ));
    let found = server(&world, &orders());
    let told: Vec<_> = found
        .iter()
        .map(|(port, protection)| {
            let limit = protection.rate_limit.as_ref().map(|limit| limit.requests);
            let max = protection.concurrency.as_ref().and_then(|given| given.max);
            let own = protection.per_caller.as_ref().map(|own| own.max_concurrent);
            (*port, limit, max, own)
        })
        .collect();
    assert_eq!(
        told,
        [
            (None, Some(1), Some(5), Some(2)),
            (Some(80), Some(7), Some(5), Some(9)),
        ]
    );
    assert!(server(&world, &ServiceName::new("web", "orders")).is_empty());
    let key = |name: &str| {
        let mut found = world.resources().map(|stored| &stored.resource.key);
        found.find(|key| key.name == name).unwrap().clone()
    };
    for (name, accepted) in [("z", true), ("a", false), ("port", true)] {
        let conditions =
            world.conditions(&key(name), &std::collections::BTreeSet::from([orders()]));
        assert_eq!(conditions[0].status, accepted, "{name}");
    }
}

#[test]
fn a_workload_is_told_with_defaults_filled_in_and_must_understand_it() {
    let mut world = world_of("");
    let told = |world: &_| {
        let workload = WorkloadKey::new("shop", "orders-1");
        workload_resource(world, &workload, &orders()).features
    };
    assert!(view_workload(&world, &orders()).server.is_empty());
    assert!(told(&world).is_empty(), "an older proxy goes on");
    let adaptive = policy("p", "", "concurrency: {mode: adaptive, max: 10}");
    let limited = policy(
        "q",
        ", port: 81",
        "rateLimit: {requests: 5, key: 'header:X-User'}, concurrency: {mode: off}",
    );
    apply(&mut world, &format!("{adaptive}{limited}")).unwrap();
    let concurrency = v1::Concurrency {
        limit: Some(v1::concurrency::Limit::Adaptive(v1::AdaptiveLimit {
            min: 10,
            max: 10,
            start: 10,
        })),
        queue: None,
        queue_timeout: span(0, 50_000_000),
    };
    let expected = [
        v1::ServerPolicy {
            concurrency: Some(concurrency),
            ..v1::ServerPolicy::default()
        },
        v1::ServerPolicy {
            port: 81,
            rate_limit: Some(v1::RateLimit {
                requests: 5,
                per: span(1, 0),
                burst: 5,
                key: v1::RateLimitKey::Header.into(),
                header: "x-user".to_owned(),
            }),
            ..v1::ServerPolicy::default()
        },
    ];
    assert_eq!(view_workload(&world, &orders()).server, expected);
    assert_eq!(told(&world), ["server-policy"]);
}
