//! `loadBalancer`: what is refused, and what is sent.

use selvage_api::{feature, v1};
use selvage_core::parse::parse;
use selvage_core::resource::ServiceName;
use selvage_core::view::{service_resource, view_service};

use crate::views::{nobody, seconds};
use crate::{told, world_of};

fn document(name: &str, namespace: &str, load_balancer: &str) -> String {
    format!(
        "kind: TrafficPolicy\nmetadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n  targetRefs: [{{kind: Service, name: a, namespace: shop}}]\n  loadBalancer: {load_balancer}\n"
    )
}

const SERVICE: &str = "kind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}], endpoints: [{address: 10.9.9.9:8080}]}\n---\n";

fn sent(policies: &[String], caller: &str) -> v1::TrafficPolicy {
    let world = world_of(&format!("{SERVICE}{}", policies.join("---\n")));
    let name = ServiceName::new("shop", "a");
    view_service(&world, &nobody(), caller, &name)
        .and_then(|service| service.policy)
        .expect("a service with its policy")
}

#[test]
fn contradictions_are_refused_by_their_path() {
    let table = [
        (
            "{algorithm: peak-ewwa}",
            "algorithm: unknown value `peak-ewwa` / did you mean `peak-ewma`?",
        ),
        (
            "{algorithm: maglev}",
            "hash: what is the key? This algorithm needs `hash` / such as `hash: [{header: x-user}]`",
        ),
        (
            "{algorithm: random, hash: [{header: a}]}",
            "hash: only of `algorithm: ring-hash` and `maglev`",
        ),
        (
            "{hash: [{header: a}]}",
            "hash: only of `algorithm: ring-hash` and `maglev`",
        ),
        (
            "{boundedLoad: 150}",
            "boundedLoad: only of `algorithm: ring-hash` and `maglev`",
        ),
        (
            "{algorithm: maglev, hash: []}",
            "hash: expected 1 to 8 entries, found 0",
        ),
        (
            "{algorithm: maglev, hash: [{heder: a}]}",
            "hash[0].heder: unknown value `heder` / did you mean `header`?",
        ),
        (
            "{algorithm: maglev, hash: [{header: 'a b'}]}",
            "hash[0].header: expected the name of a header, found `a b`",
        ),
        (
            "{algorithm: maglev, hash: [{header: X-Selvage-User}]}",
            "hash[0].header: an application cannot set `x-selvage-` headers: no request has it",
        ),
        (
            "{algorithm: maglev, hash: [{sourceIp: false}]}",
            "hash[0].sourceIp: expected `true`; leave the entry out for the other",
        ),
        (
            "{algorithm: maglev, hash: [{sourceIp: true}, {header: a}]}",
            "hash[1]: never asked: every request has what hash[0] names",
        ),
        (
            "{algorithm: maglev, hash: [{query: 'a=b'}]}",
            "hash[0].query: expected the name of a parameter, found `a=b`",
        ),
        (
            "{algorithm: maglev, hash: [{cookie: {name: 'a;b'}}]}",
            "hash[0].cookie.name: expected the name of a cookie, found `a;b`",
        ),
        (
            "{algorithm: maglev, hash: [{cookie: {name: __Host-a}}]}",
            "hash[0].cookie.name: browsers take `__host-` cookies only with `Secure`",
        ),
        (
            "{algorithm: maglev, hash: [{cookie: {name: a, ttl: 0s}}]}",
            "hash[0].cookie.ttl: expected at least 1s; leave it out for the browser's session",
        ),
        (
            "{algorithm: maglev, hash: [{cookie: {name: a, path: '/; x'}}]}",
            "hash[0].cookie.path: expected a path such as `/`",
        ),
        (
            "{algorithm: maglev, hash: [{header: a}], boundedLoad: 100}",
            "boundedLoad: expected a whole number of per cent above 100, such as `125`, or `off`, found `100`",
        ),
        (
            "{algorithm: maglev, hash: [{header: a}], virtualNodes: 100}",
            "virtualNodes: only of `algorithm: ring-hash`",
        ),
        (
            "{algorithm: ring-hash, hash: [{header: a}], virtualNodes: 7}",
            "virtualNodes: expected 16 to 16384, found `7`",
        ),
        (
            "{algorithm: ring-hash, hash: [{header: a}], slowStart: {window: 3s}}",
            "slowStart: not of an algorithm that hashes: a key has one home, or it has none",
        ),
        (
            "{algorithm: ring-hash, hash: [{header: a}], locality: {prefer: zone}}",
            "locality: not of an algorithm that hashes: a key has one home, whatever the zone",
        ),
        (
            "{slowStart: {aggression: 2}}",
            "slowStart: expected `window`, such as `window: 30s`: without it nothing starts slowly",
        ),
        (
            "{slowStart: {window: 3h}}",
            "slowStart.window: expected at most 1h",
        ),
        (
            "{slowStart: {window: 3s, aggression: 0}}",
            "slowStart.aggression: expected 0.1 to 100",
        ),
        (
            "{slowStart: {window: 3s, minWeightPercent: 0}}",
            "slowStart.minWeightPercent: expected at least 1, found `0`",
        ),
        (
            "{slowStart: {window: 3s, minWeightPercent: 101}}",
            "slowStart.minWeightPercent: expected a whole number from 0 to 100 (per cent), found `101`",
        ),
        (
            "{locality: {minHealthyPercent: 101}}",
            "locality.minHealthyPercent: expected a whole number from 0 to 100 (per cent), found `101`",
        ),
        (
            "{locality: {prefer: none, minHealthyPercent: 70}}",
            "locality.minHealthyPercent: of no use with `prefer: none`",
        ),
    ];
    for (load_balancer, expected) in table {
        let text = document("p", "shop", load_balancer);
        let refused = parse("t", &text).expect_err(load_balancer);
        let told = told(&refused);
        let [line] = &told[..] else {
            panic!("{load_balancer}: {told:?}");
        };
        let (_, found) = line.split_once("spec.loadBalancer.").expect("the path");
        assert_eq!(found, expected, "{load_balancer}");
    }
}

#[test]
fn defaults_are_filled_in() {
    let hashing = |on, bounded_load, virtual_nodes| {
        Some(v1::Hashing {
            on: vec![v1::HashOn { on: Some(on) }],
            bounded_load,
            virtual_nodes,
        })
    };
    use v1::hash_on::On;
    let cookie = |ttl, path: &str| {
        On::Cookie(v1::AffinityCookie {
            name: "at".to_owned(),
            ttl,
            path: path.to_owned(),
        })
    };
    let user = || On::Header("x-user".to_owned());
    let table = [
        (
            "{algorithm: ring-hash, hash: [{header: X-User}]}",
            hashing(user(), 125, 4096),
        ),
        (
            "{algorithm: maglev, hash: [{header: x-user}], boundedLoad: off}",
            hashing(user(), 0, 0),
        ),
        (
            "{algorithm: maglev, hash: [{header: x-user}], boundedLoad: 0}",
            hashing(user(), 0, 0),
        ),
        (
            "{algorithm: maglev, hash: [{sourceIp: true}], boundedLoad: 150%}",
            hashing(On::SourceIp(true), 150, 0),
        ),
        (
            "{algorithm: ring-hash, hash: [{query: u}], virtualNodes: 64}",
            hashing(On::Query("u".to_owned()), 125, 64),
        ),
        (
            "{algorithm: maglev, hash: [{cookie: {name: at}}]}",
            hashing(cookie(None, ""), 125, 0),
        ),
        (
            "{algorithm: maglev, hash: [{cookie: {name: at, ttl: 5s, path: /a}}]}",
            hashing(cookie(seconds(5), "/a"), 125, 0),
        ),
        ("{algorithm: round-robin}", None),
    ];
    for (load_balancer, expected) in table {
        let found = sent(&[document("p", "shop", load_balancer)], "shop");
        assert_eq!(found.hashing, expected, "{load_balancer}");
    }
    let found = sent(
        &[document(
            "p",
            "shop",
            "{slowStart: {window: 30s}, locality: {prefer: zone}}",
        )],
        "shop",
    );
    let slow_start = v1::SlowStart {
        window: seconds(30),
        aggression: 1.0,
        min_weight_percent: 10,
    };
    assert_eq!(found.slow_start, Some(slow_start));
    assert_eq!(
        found.locality,
        Some(v1::Locality {
            min_healthy_percent: 70
        })
    );
    let found = sent(
        &[document(
            "p",
            "shop",
            "{locality: {minHealthyPercent: 50}, slowStart: {window: 0s}}",
        )],
        "shop",
    );
    assert_eq!(
        found.locality,
        Some(v1::Locality {
            min_healthy_percent: 50
        })
    );
    assert_eq!(found.slow_start, None);
}

#[test]
fn the_algorithm_that_wins_decides_what_of_the_rest_is_sent() {
    let policies = [
        document(
            "p",
            "shop",
            "{algorithm: ring-hash, hash: [{header: x-user}]}",
        ),
        document("p", "front", "{algorithm: random, slowStart: {window: 5s}}"),
        document("p", "back", "{locality: {prefer: zone}}"),
        document("p", "side", "{algorithm: maglev, hash: [{query: q}]}"),
    ];
    // (caller, algorithm, what is hashed, slow start, locality)
    use v1::LoadBalancer::{Maglev, Random, RingHash};
    let table = [
        ("shop", RingHash, true, false, false),
        ("front", Random, false, true, false),
        ("back", RingHash, true, false, false),
        ("side", Maglev, true, false, false),
    ];
    for (caller, algorithm, hashes, starts_slowly, by_zone) in table {
        let found = sent(&policies, caller);
        let set = (
            found.load_balancer(),
            found.hashing.is_some(),
            found.slow_start.is_some(),
            found.locality.is_some(),
        );
        assert_eq!(set, (algorithm, hashes, starts_slowly, by_zone), "{caller}");
    }
}

#[test]
fn what_an_older_proxy_would_not_see_is_demanded() {
    let table = [
        ("{}", false),
        ("{algorithm: peak-ewma}", false),
        ("{algorithm: random}", true),
        ("{algorithm: maglev, hash: [{sourceIp: true}]}", true),
        ("{slowStart: {window: 1s}}", true),
        ("{locality: {prefer: zone}}", true),
        ("{locality: {prefer: none}}", false),
    ];
    for (load_balancer, demanded) in table {
        let world = world_of(&format!(
            "{SERVICE}{}",
            document("p", "shop", load_balancer)
        ));
        let name = ServiceName::new("shop", "a");
        let resource = service_resource(&world, &nobody(), "shop", &name).expect("a service");
        let expected: &[&str] = if demanded { &[feature::BALANCERS] } else { &[] };
        assert_eq!(resource.features, expected, "{load_balancer}");
        assert_eq!(feature::first_unknown(&resource), None);
    }
}
