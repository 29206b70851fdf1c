//! Which routes a listener takes, beside the same said without any index: each
//! route beside each older one.

#![allow(
    clippy::unwrap_used,
    reason = "what is not there fails the test that asks for it"
)]

use proptest::prelude::*;
use selvage_certs::TrustDomain;

use super::*;
use crate::parse::parse;

const API: &str = "apiVersion: gateway.networking.k8s.io/v1\n";
const LISTENERS: &str = "{name: all, port: 80, protocol: HTTP}, \
    {name: some, port: 81, protocol: HTTP, hostname: '*.b.com'}, \
    {name: raw, port: 82, protocol: TCP}, \
    {name: sni, port: 83, protocol: TLS, tls: {mode: Passthrough}}";
const HOSTS: [&str; 8] = [
    "b.com",
    "*.b.com",
    "*.com",
    "a.b.com",
    "*.a.b.com",
    "x.a.b.com",
    "xb.com",
    "*.y.b.com",
];
const KINDS: [&str; 5] = [
    "HTTPRoute",
    "GRPCRoute",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
];
const SECTIONS: [&str; 4] = ["", "sectionName: all", "sectionName: some", "port: 82"];

/// A route: its kind, hosts, parent and stamp.
type Drawn = (usize, Vec<usize>, usize, u64);

fn world_of(documents: &str, stamps: impl Fn(usize) -> u64) -> World {
    let resources = parse("test.yaml", documents).unwrap();
    let stamped = resources.into_iter().enumerate();
    let mut world = World::new(TrustDomain::parse("mesh.local").unwrap());
    world.reset(stamped.map(|(index, resource)| (resource, stamps(index))));
    world
}

fn document(index: usize, kind: &str, section: &str, hosts: &str) -> String {
    let hostnames = match kind {
        "TCPRoute" => String::new(),
        _ => format!("hostnames: [{hosts}],"),
    };
    format!(
        "---\n{API}kind: {kind}\nmetadata: {{name: r{index}, namespace: shop}}\nspec: {{parentRefs: [{{name: public, {section}}}], {hostnames} rules: [{{backendRefs: [{{name: app, port: 80}}]}}]}}\n"
    )
}

fn public() -> String {
    format!(
        "{API}kind: Gateway\nmetadata: {{name: public, namespace: shop}}\nspec: {{gatewayClassName: any, listeners: [{LISTENERS}]}}\n"
    )
}

fn drawn(routes: &[Drawn]) -> World {
    let mut text = public();
    for (index, (kind, hosts, section, _)) in routes.iter().enumerate() {
        let mut hosts: Vec<_> = hosts.iter().map(|it| format!("'{}'", HOSTS[*it])).collect();
        hosts.sort();
        hosts.dedup();
        text += &document(index, KINDS[*kind], SECTIONS[*section], &hosts.join(","));
    }
    world_of(&text, |index| match index.checked_sub(1) {
        None => 1,
        Some(index) => routes[index].3,
    })
}

/// As [`attached`], each route beside all that are older.
fn beside_each_other<'w>(
    world: &'w World,
    gateway: &ResourceKey,
    listener: &Listener,
) -> Vec<AttachedRoute<'w>> {
    let wanted = kinds(listener);
    let mut found: Vec<AttachedRoute<'w>> = wanted
        .iter()
        .flat_map(|kind| world.of_kind(*kind))
        .filter_map(|stored| candidate(world, gateway, listener, stored))
        .collect();
    found.sort_by_key(|route| (route.stored.stamp, &route.stored.resource.key));
    let mut accepted: Vec<AttachedRoute<'w>> = Vec::new();
    for route in found {
        let is_tcp = kind(&route) == ResourceKind::TcpRoute;
        let excludes = |older: &AttachedRoute<'_>| match kind(older) == kind(&route) {
            true => is_tcp,
            false => hosts::overlap(&older.hostnames, &route.hostnames),
        };
        if !accepted.iter().any(excludes) && accepted.len() < MAX_LISTENER_ROUTES {
            accepted.push(route);
        }
    }
    accepted
}

fn named(routes: &[AttachedRoute<'_>]) -> Vec<(String, Vec<String>)> {
    let name = |it: &AttachedRoute<'_>| (it.stored.resource.key.to_string(), it.hostnames.clone());
    routes.iter().map(name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_listener_takes_the_routes_that_it_takes_without_an_index(
        routes in prop::collection::vec(
            (0..KINDS.len(), prop::collection::vec(0..HOSTS.len(), 0..4), 0..SECTIONS.len(), 1u64..9),
            0..14,
        ),
    ) {
        let world = drawn(&routes);
        let (stored, spec) = gateway(&world, "shop", "public").unwrap();
        let key = &stored.resource.key;
        let mut taken = std::collections::BTreeSet::new();
        for listener in &spec.listeners {
            let expected = beside_each_other(&world, key, listener);
            prop_assert_eq!(named(&attached(&world, key, listener)), named(&expected));
            taken.extend(expected.iter().map(|it| it.stored.resource.key.clone()));
        }
        // And each route is told so.
        for route in world.resources().filter(|it| it.resource.key.kind != ResourceKind::Gateway) {
            let [parent] = super::super::routes::parents(&route.resource) else { unreachable!() };
            let condition = accepted(&world, route, parent);
            prop_assert_eq!(condition.status, taken.contains(&route.resource.key), "{:?}", condition);
        }
    }
}

#[test]
fn many_routes_that_contest_hosts_are_looked_at_once_each() {
    const ROUTES: usize = 8_000;
    let mut text = public();
    for index in 0..ROUTES {
        // Each host is wanted by both kinds, and all by one more each.
        let kind = KINDS[index % 2];
        let hosts = format!("h{}.b.com, w{index}.c.com", index / 2);
        text += &document(index, kind, "sectionName: all", &hosts);
    }
    let world = world_of(&text, |index| index as u64);
    let registered = std::collections::BTreeSet::new();
    let began = std::time::Instant::now();
    let mut conflicted = 0;
    for stored in world.resources() {
        let (conditions, _) = world.standing(&stored.resource.key, &registered);
        conflicted += usize::from(conditions.iter().any(|it| it.reason == "Conflicted"));
    }
    let took = began.elapsed();
    assert_eq!(conflicted, ROUTES / 2);
    assert!(took.as_secs() < 30, "{took:?}");
}

#[test]
fn what_changes_is_looked_at_anew() {
    let text =
        public() + &document(0, "HTTPRoute", "", "b.com") + &document(1, "GRPCRoute", "", "b.com");
    let mut world = world_of(&text, |index| index as u64);
    let key = |kind, name: &str| ResourceKey {
        kind,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    let is_accepted = |world: &World, key| {
        let registered = std::collections::BTreeSet::new();
        world.conditions(key, &registered)[0].status
    };
    let (http, grpc) = (
        key(ResourceKind::HttpRoute, "r0"),
        key(ResourceKind::GrpcRoute, "r1"),
    );
    assert!(is_accepted(&world, &http) && !is_accepted(&world, &grpc));
    let before = world.clone();
    assert!(world.delete(&http));
    assert!(is_accepted(&world, &grpc));
    assert!(!is_accepted(&before, &grpc), "the copy is as it was");
}
