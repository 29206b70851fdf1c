//! Which routes are a service's, for whom, at which ports, and where they lead.

use selvage_api::v1;
use selvage_core::resource::ServiceName;
use selvage_core::view::view_service;
use selvage_core::world::World;

use crate::views::nobody;
use crate::{apply, world_of};

/// Three services of two namespaces.
pub(crate) const SERVICES: &str = "
kind: Service
metadata: {name: ratings, namespace: shop}
spec: {ports: [{port: 80, protocol: http}, {port: 90}, {port: 5432, protocol: tcp}]}
---
kind: Service
metadata: {name: ratings-v2, namespace: shop}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {name: other, namespace: far}
spec: {ports: [{port: 80}, {port: 5432, protocol: tcp}]}
---
";

/// A route of one rule to one backend.
pub(crate) fn route(kind: &str, key: &str, parents: &str, backends: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    format!(
        "kind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{parentRefs: [{parents}], rules: [{{backendRefs: [{backends}]}}]}}\n---\n"
    )
}

const RATINGS: &str = "{kind: Service, name: ratings, namespace: shop}";
const V2: &str = "{name: ratings-v2, namespace: shop, port: 80}";

pub(crate) fn routes(world: &World, caller: &str) -> Vec<v1::HttpRoute> {
    let name = ServiceName::new("shop", "ratings");
    view_service(world, &nobody(), caller, &name)
        .unwrap()
        .http_routes
}

/// `namespace/name:port` of the routes of `shop/ratings`, in their order.
fn names(world: &World, caller: &str) -> Vec<String> {
    routes(world, caller)
        .iter()
        .map(|route| format!("{}/{}:{}", route.namespace, route.name, route.port))
        .collect()
}

fn with(documents: &[String]) -> World {
    world_of(&format!("{SERVICES}{}", documents.concat()))
}

#[test]
fn without_a_route_there_is_none() {
    assert!(names(&world_of(SERVICES), "shop").is_empty());
    let at_gateway = route("HTTPRoute", "shop/a", "{name: ratings}", V2);
    assert!(names(&with(&[at_gateway]), "shop").is_empty());
}

#[test]
fn producers_are_for_all_and_oldest_first() {
    let mut world = with(&[route("HTTPRoute", "shop/z", RATINGS, V2)]);
    apply(&mut world, &route("HTTPRoute", "shop/a", RATINGS, V2)).unwrap();
    for caller in ["shop", "web"] {
        // Not at the port that speaks no HTTP.
        assert_eq!(
            names(&world, caller),
            ["shop/z:80", "shop/z:90", "shop/a:80", "shop/a:90"]
        );
    }
}

#[test]
fn a_route_at_every_port_is_sent_once() {
    let world = world_of(&format!(
        "kind: Service\nmetadata: {{name: ratings, namespace: shop}}\nspec: {{ports: [{{port: 80}}, {{port: 90}}]}}\n---\n{}",
        route("HTTPRoute", "shop/a", RATINGS, V2)
    ));
    assert_eq!(names(&world, "shop"), ["shop/a:0"]);
}

#[test]
fn consumers_take_the_place_of_producers_for_their_namespace() {
    let world = with(&[
        route("HTTPRoute", "shop/p", RATINGS, V2),
        route(
            "HTTPRoute",
            "web/c",
            "{kind: Service, name: ratings, namespace: shop, port: 80}",
            V2,
        ),
    ]);
    assert_eq!(names(&world, "web"), ["shop/p:90", "web/c:80"]);
    assert_eq!(names(&world, "shop"), ["shop/p:80", "shop/p:90"]);
    assert_eq!(names(&world, "far"), ["shop/p:80", "shop/p:90"]);
}

#[test]
fn the_more_specific_kind_takes_the_port() {
    let grpc = "{kind: Service, name: ratings, port: 90}";
    let world = with(&[
        route("HTTPRoute", "shop/h", RATINGS, V2),
        route("GRPCRoute", "shop/g", grpc, V2),
    ]);
    assert_eq!(names(&world, "web"), ["shop/h:80", "shop/g:90"]);
    let kinds: Vec<_> = routes(&world, "web")
        .iter()
        .map(v1::HttpRoute::kind)
        .collect();
    assert_eq!(kinds, [v1::RouteKind::Http, v1::RouteKind::Grpc]);
}

#[test]
fn backends_that_cannot_be_used_say_why() {
    let grant = "kind: ReferenceGrant\nmetadata: {name: g, namespace: far}\nspec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service, name: other}]}\n---\n";
    let table = [
        ("{name: ratings-v2, port: 80}", None),
        (
            "{name: ratings-v2, group: selvage.dev, kind: Service, port: 80}",
            None,
        ),
        (
            "{name: bucket, group: example.com, kind: Bucket}",
            Some("InvalidKind: a backend is a Service, not a Bucket.example.com"),
        ),
        (
            "{name: nowhere, port: 80}",
            Some("BackendNotFound: there is no service shop/nowhere"),
        ),
        (
            "{name: ratings-v2, port: 81}",
            Some("BackendNotFound: the service shop/ratings-v2 has no port 81"),
        ),
        (
            "{name: ratings, port: 5432}",
            Some("UnsupportedProtocol: port 5432 of the service shop/ratings does not speak HTTP"),
        ),
        (
            "{name: other, namespace: far, port: 80}",
            Some(
                "RefNotPermitted: no ReferenceGrant in namespace `far` lets a HTTPRoute of namespace `shop` refer to the service far/other",
            ),
        ),
    ];
    for (backend, expected) in table {
        let mut world = with(&[route("HTTPRoute", "shop/a", RATINGS, backend)]);
        assert_eq!(invalid(&world).as_deref(), expected, "{backend}");
        apply(&mut world, grant).unwrap();
        let still = expected.filter(|why| !why.starts_with("RefNotPermitted"));
        assert_eq!(invalid(&world).as_deref(), still, "{backend}");
    }
}

/// Why the first backend of the first rule cannot be used.
fn invalid(world: &World) -> Option<String> {
    let routes = routes(world, "shop");
    match routes[0].rules[0].backends[0].to.clone().unwrap() {
        v1::route_backend::To::Service(_) => None,
        v1::route_backend::To::Invalid(why) => Some(why),
    }
}

#[test]
fn beside_the_parent_no_grant_is_needed() {
    let world = with(&[route("HTTPRoute", "web/c", RATINGS, V2)]);
    let routes = routes(&world, "web");
    let to = routes[0].rules[0].backends[0].to.clone();
    let expected = v1::Backend {
        namespace: "shop".to_owned(),
        name: "ratings-v2".to_owned(),
        port: 80,
    };
    assert_eq!(to, Some(v1::route_backend::To::Service(expected)));
}

#[test]
fn what_is_not_there_is_warned_of() {
    let mut world = world_of(SERVICES);
    let text = route(
        "HTTPRoute",
        "shop/a",
        "{kind: Service, name: ratngs}",
        "{name: nowhere, port: 80}",
    );
    let change = apply(&mut world, &text).unwrap();
    let warnings = crate::told(&change.warnings);
    assert_eq!(
        warnings,
        [
            "3:43 spec.parentRefs[0].name: the service shop/ratngs has no document and no workload registers it / did you mean `ratings`?",
            "3:83 spec.rules[0].backendRefs[0].name: the service shop/nowhere has no document and no workload registers it",
        ]
    );
    let policy = "kind: TrafficPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: HTTPRoute, name: b}, {kind: HTTPRoute, name: a, sectionName: first}], timeouts: {request: 1s}}\n";
    let change = apply(&mut world, policy).unwrap();
    assert_eq!(
        crate::told(&change.warnings),
        [
            "3:45 spec.targetRefs[0].name: there is no HTTPRoute shop/b / did you mean `a`?",
            "3:89 spec.targetRefs[1].sectionName: HTTPRoute shop/a has no rule `first`",
        ]
    );
}

#[test]
fn a_route_says_where_it_stands_with_its_service() {
    let grpc = route(
        "GRPCRoute",
        "shop/g",
        "{kind: Service, name: ratings, port: 90}",
        V2,
    );
    let table = [
        ("{kind: Service, name: ratings}", V2, None, None),
        (
            "{kind: Service, name: nobody}",
            V2,
            Some("NoMatchingParent"),
            None,
        ),
        (
            "{kind: Service, name: ratings, port: 81}",
            V2,
            Some("NoMatchingParent"),
            None,
        ),
        (
            "{kind: Service, name: ratings, port: 5432}",
            V2,
            Some("NoMatchingParent"),
            None,
        ),
        (
            "{kind: Service, name: ratings, sectionName: web}",
            V2,
            Some("NoMatchingParent"),
            None,
        ),
        (
            "{kind: Service, name: ratings, port: 90}",
            V2,
            Some("Conflicted"),
            None,
        ),
        (
            "{kind: Service, name: ratings}",
            "{name: nowhere, port: 80}",
            None,
            Some("BackendNotFound"),
        ),
        (
            "{kind: Service, name: ratings}",
            "{name: bucket, kind: Bucket}",
            None,
            Some("InvalidKind"),
        ),
    ];
    for (parent, backend, accepted, resolved) in table {
        let world = with(&[route("HTTPRoute", "shop/a", parent, backend), grpc.clone()]);
        let key = selvage_core::resource::ResourceKey {
            kind: selvage_core::resource::ResourceKind::HttpRoute,
            namespace: "shop".to_owned(),
            name: "a".to_owned(),
        };
        let conditions = world.conditions(&key, &nobody());
        let told: Vec<_> = conditions
            .iter()
            .map(|it| (it.kind, (!it.status).then_some(it.reason)))
            .collect();
        assert_eq!(
            told,
            [("Accepted", accepted), ("ResolvedRefs", resolved)],
            "{parent} {backend}"
        );
    }
}
