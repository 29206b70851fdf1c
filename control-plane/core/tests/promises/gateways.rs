//! Gateways: what is refused, which routes attach to which listener, and what
//! is said of it.

mod refusals;

use selvage_api::v1;
use selvage_core::resource::{ResourceKey, ResourceKind, ServiceName};
use selvage_core::view::view_gateway;
use selvage_core::world::World;
use serde_json::{Value, json};

use crate::secrets::secret;
use crate::views::nobody;
use crate::{apply, told, world_of};

const API: &str = "apiVersion: gateway.networking.k8s.io/v1\n";

/// A gateway `shop/public` with these listeners.
fn gateway(listeners: &str) -> String {
    format!(
        "{API}kind: Gateway\nmetadata: {{name: public, namespace: shop}}\nspec: {{gatewayClassName: any, listeners: [{listeners}]}}\n---\n"
    )
}

/// A route of a kind and namespace with a parent, `more` of its spec, and the
/// backend `shop/app`.
fn route(kind: &str, namespace: &str, name: &str, parent: &str, more: &str) -> String {
    format!(
        "{API}kind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{parentRefs: [{{namespace: shop, name: public, {parent}}}], {more} rules: [{{backendRefs: [{{name: app, namespace: shop, port: 80}}]}}]}}\n---\n"
    )
}

const APP: &str = "kind: Service\nmetadata: {name: app, namespace: shop}\nspec: {ports: [{port: 80, name: web}]}\n---\n";

fn told_of(world: &World) -> v1::Gateway {
    let registry = nobody();
    view_gateway(world, &registry, &ServiceName::new("shop", "public")).unwrap()
}

/// `listener: namespace/name(hosts) …` for each listener that is served.
fn attached(world: &World) -> Vec<String> {
    let http = |route: &v1::HttpRoute| (route.name.clone(), route.hostnames.clone());
    let stream = |route: &v1::StreamRoute| (route.name.clone(), route.hostnames.clone());
    let lines = told_of(world).listeners.into_iter().map(|listener| {
        let http = listener.http_routes.iter().map(http);
        let routes = http.chain(listener.stream_routes.iter().map(stream));
        let routes = routes.map(|(name, hosts)| format!(" {name}({})", hosts.join(",")));
        format!("{}:{}", listener.name, routes.collect::<String>())
    });
    lines.collect()
}

fn key(kind: ResourceKind, namespace: &str, name: &str) -> ResourceKey {
    ResourceKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// The reasons of the route's first parent: `Accepted`, then `ResolvedRefs`.
fn reasons(world: &World, kind: ResourceKind, namespace: &str, name: &str) -> Vec<String> {
    let status = world
        .status(
            &key(kind, namespace, name),
            &std::collections::BTreeSet::new(),
        )
        .unwrap();
    let conditions = status["parents"][0]["conditions"].as_array().unwrap();
    let reason = |it: &Value| it["reason"].as_str().unwrap().to_owned();
    conditions.iter().map(reason).collect()
}

fn listener_reasons(world: &World, index: usize) -> Vec<String> {
    let status = world
        .status(
            &key(ResourceKind::Gateway, "shop", "public"),
            &std::collections::BTreeSet::new(),
        )
        .unwrap();
    let conditions = status["listeners"][index]["conditions"].as_array().unwrap();
    let reason = |it: &Value| {
        format!(
            "{}={}",
            it["type"].as_str().unwrap(),
            it["reason"].as_str().unwrap()
        )
    };
    conditions.iter().map(reason).collect()
}

#[test]
fn routes_attach_where_names_namespaces_kinds_and_hosts_allow() {
    let listeners = "{name: one, port: 80, hostname: a.shop.com, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, \
        {name: wild, port: 80, hostname: '*.shop.com', protocol: HTTP}, \
        {name: teams, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}, \
        {name: named, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [web]}]}}}}, \
        {name: calls, port: 83, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}, \
        {name: closed, port: 84, protocol: HTTP, allowedRoutes: {namespaces: {from: None}}}, \
        {name: bytes, port: 90, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}";
    let text = [
        gateway(listeners),
        APP.to_owned(),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {team: a}}\n---\n"
            .to_owned(),
        route("HTTPRoute", "shop", "all", "", ""),
        route(
            "HTTPRoute",
            "web",
            "foreign",
            "",
            "hostnames: ['*.shop.com', other.com],",
        ),
        route("HTTPRoute", "team", "of-team", "sectionName: teams", ""),
        route(
            "HTTPRoute",
            "shop",
            "by-port",
            "port: 80",
            "hostnames: [b.shop.com],",
        ),
        route("GRPCRoute", "web", "call", "sectionName: calls", ""),
        route("TCPRoute", "web", "first", "", ""),
        route("TCPRoute", "shop", "second", "", ""),
    ]
    .concat();
    let world = world_of(&text);
    assert_eq!(
        attached(&world),
        [
            "one: all(a.shop.com) foreign(a.shop.com)",
            "wild: all(*.shop.com) by-port(b.shop.com)",
            "teams: of-team()",
            "named: foreign(*.shop.com,other.com)",
            "calls: call()",
            "closed:",
            "bytes: first()",
        ]
    );
    let http =
        |namespace: &str, name: &str| reasons(&world, ResourceKind::HttpRoute, namespace, name);
    assert_eq!(http("shop", "all"), ["Accepted", "ResolvedRefs"]);
    assert_eq!(http("web", "foreign"), ["Accepted", "RefNotPermitted"]);
    let tcp =
        |namespace: &str, name: &str| reasons(&world, ResourceKind::TcpRoute, namespace, name);
    assert_eq!(tcp("web", "first"), ["Accepted", "RefNotPermitted"]);
    assert_eq!(tcp("shop", "second"), ["Conflicted", "ResolvedRefs"]);
}

#[test]
fn a_route_that_attaches_nowhere_is_told_why() {
    let listeners = "{name: web, port: 80, hostname: a.com, protocol: HTTP}";
    let table = [
        (
            "HTTPRoute",
            "shop",
            "sectionName: none",
            "",
            "NoMatchingParent",
        ),
        ("HTTPRoute", "shop", "port: 81", "", "NoMatchingParent"),
        ("HTTPRoute", "web", "", "", "NotAllowedByListeners"),
        ("TCPRoute", "shop", "", "", "NotAllowedByListeners"),
        (
            "HTTPRoute",
            "shop",
            "",
            "hostnames: [b.com],",
            "NoMatchingListenerHostname",
        ),
        ("HTTPRoute", "shop", "", "hostnames: [a.com],", "Accepted"),
    ];
    for (kind, namespace, parent, more, expected) in table {
        let text = gateway(listeners) + APP + &route(kind, namespace, "r", parent, more);
        let world = world_of(&text);
        let kind = ResourceKind::parse(kind).unwrap();
        assert_eq!(reasons(&world, kind, namespace, "r")[0], expected, "{text}");
    }
    let alone = world_of(&route("HTTPRoute", "shop", "r", "", ""));
    assert_eq!(
        reasons(&alone, ResourceKind::HttpRoute, "shop", "r")[0],
        "NoMatchingParent"
    );
}

#[test]
fn a_host_is_of_http_or_of_grpc_whichever_is_older() {
    let listeners = "{name: web, port: 80, protocol: HTTP}";
    let mut world = world_of(&(gateway(listeners) + APP));
    for (kind, name, hosts) in [
        ("GRPCRoute", "calls", "hostnames: [a.com],"),
        ("HTTPRoute", "pages", "hostnames: ['*.com'],"),
        ("HTTPRoute", "others", "hostnames: [b.com],"),
    ] {
        apply(&mut world, &route(kind, "shop", name, "", hosts)).unwrap();
    }
    assert_eq!(attached(&world), ["web: calls(a.com) others(b.com)"]);
    let pages = reasons(&world, ResourceKind::HttpRoute, "shop", "pages");
    assert_eq!(pages[0], "Conflicted");
}

#[test]
fn listeners_that_cannot_be_told_apart_are_not_served() {
    let certificate = "tls: {options: {selvage.dev/certificate: mesh}}";
    let listeners = format!(
        "{{name: plain, port: 443, protocol: HTTP}}, \
         {{name: web, port: 443, protocol: HTTPS, {certificate}}}, \
         {{name: https, port: 444, protocol: HTTPS, hostname: a.com, {certificate}}}, \
         {{name: tls, port: 444, protocol: TLS, hostname: a.com, tls: {{mode: Passthrough}}}}, \
         {{name: apart, port: 444, protocol: TLS, hostname: b.com, tls: {{mode: Passthrough}}}}"
    );
    let world = world_of(&gateway(&listeners));
    assert_eq!(attached(&world), ["apart:"]);
    for (index, reason) in [
        (0, "ProtocolConflict"),
        (1, "ProtocolConflict"),
        (2, "HostnameConflict"),
        (3, "HostnameConflict"),
    ] {
        assert_eq!(
            listener_reasons(&world, index),
            [
                format!("Accepted={reason}"),
                format!("Conflicted={reason}"),
                "ResolvedRefs=ResolvedRefs".to_owned(),
                "Programmed=Invalid".to_owned()
            ]
        );
    }
    let status = world
        .status(
            &key(ResourceKind::Gateway, "shop", "public"),
            &std::collections::BTreeSet::new(),
        )
        .unwrap();
    let of = |index: usize| {
        let it = &status["conditions"][index];
        (
            it["type"].clone(),
            it["status"].clone(),
            it["reason"].clone(),
        )
    };
    assert_eq!(
        of(0),
        (json!("Accepted"), json!("True"), json!("ListenersNotValid"))
    );
    assert_eq!(
        of(1),
        (json!("Programmed"), json!("True"), json!("Programmed"))
    );
}

#[test]
fn a_listener_is_served_once_its_certificate_is_there_and_granted() {
    let tls = |refs: &str| {
        gateway(&format!(
            "{{name: web, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{refs}]}}}}"
        ))
    };
    let here = secret("shop", "pair");
    let there = secret("vault", "pair");
    let grant = |to: &str| {
        format!(
            "{API}kind: ReferenceGrant\nmetadata: {{name: g, namespace: vault}}\nspec: {{from: [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}}], to: [{{group: '', kind: Secret{to}}}]}}\n---\n"
        )
    };
    let table = [
        ("{name: pair}", vec![], "InvalidCertificateRef", false),
        ("{name: pair}", vec![here.clone()], "ResolvedRefs", true),
        (
            "{name: pair}, {name: gone}",
            vec![here.clone()],
            "InvalidCertificateRef",
            true,
        ),
        (
            "{name: pair, kind: ConfigMap}",
            vec![here.clone()],
            "InvalidCertificateRef",
            false,
        ),
        (
            "{name: pair, group: x.io}",
            vec![here],
            "InvalidCertificateRef",
            false,
        ),
        (
            "{name: pair, namespace: vault}",
            vec![there.clone()],
            "RefNotPermitted",
            false,
        ),
        (
            "{name: pair, namespace: vault}",
            vec![there.clone(), grant("")],
            "ResolvedRefs",
            true,
        ),
        (
            "{name: pair, namespace: vault}",
            vec![there.clone(), grant(", name: pair")],
            "ResolvedRefs",
            true,
        ),
        (
            "{name: pair, namespace: vault}",
            vec![there, grant(", name: other")],
            "RefNotPermitted",
            false,
        ),
    ];
    for (refs, others, resolved, served) in table {
        let world = world_of(&(tls(refs) + &others.concat()));
        let found = listener_reasons(&world, 0);
        assert_eq!(found[2], format!("ResolvedRefs={resolved}"), "{refs}");
        assert_eq!(
            told_of(&world).listeners.len(),
            usize::from(served),
            "{refs}"
        );
    }
}

#[test]
fn a_listener_carries_its_certificates() {
    let text = gateway(
        "{name: web, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: pair}], options: {selvage.dev/certificate: 'file:/etc/c.pem', selvage.dev/key: 'file:/etc/k.pem'}}}",
    ) + &secret("shop", "pair");
    let sent = told_of(&world_of(&text));
    let certificates = &sent.listeners[0].certificates;
    use v1::certificate::From;
    let Some(From::Pair(pair)) = &certificates[0].from else {
        panic!("{certificates:?}");
    };
    assert!(pair.chain.starts_with(b"-----BEGIN CERTIFICATE"));
    assert!(pair.key.starts_with(b"-----BEGIN PRIVATE KEY"));
    assert!(!format!("{sent:?}").contains(&format!("{:?}", &pair.key[..24])));
    let files = v1::CertificateFiles {
        certificate: "/etc/c.pem".to_owned(),
        key: "/etc/k.pem".to_owned(),
    };
    assert_eq!(certificates[1].from, Some(From::Files(files)));
}

#[test]
fn a_kind_that_a_listener_cannot_carry_is_told() {
    let world = world_of(&gateway(
        "{name: web, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}",
    ));
    assert_eq!(
        listener_reasons(&world, 0)[2],
        "ResolvedRefs=InvalidRouteKinds"
    );
    let status = world
        .status(
            &key(ResourceKind::Gateway, "shop", "public"),
            &std::collections::BTreeSet::new(),
        )
        .unwrap();
    assert_eq!(
        status["listeners"][0]["supportedKinds"],
        json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}])
    );
    assert_eq!(status["listeners"][0]["attachedRoutes"], 0);
}

#[test]
fn stream_routes_lead_to_their_backends_or_say_why_not() {
    let text = gateway(
        "{name: bytes, port: 90, protocol: TCP}, {name: names, port: 443, protocol: TLS, hostname: '*.com', tls: {mode: Passthrough}}",
    ) + APP
        + &route("TCPRoute", "shop", "bytes", "sectionName: bytes", "")
        + &route(
            "TLSRoute",
            "shop",
            "names",
            "sectionName: names",
            "hostnames: [a.com],",
        )
        .replace("name: app", "name: gone");
    let sent = told_of(&world_of(&text));
    let backend = |index: usize| {
        let route = &sent.listeners[index].stream_routes[0];
        assert_eq!(route.rule, "0");
        (
            route.kind(),
            route.hostnames.clone(),
            route.backends[0].clone(),
        )
    };
    let (kind, hosts, to) = backend(0);
    assert_eq!(
        (kind, hosts.len(), to.weight),
        (v1::StreamRouteKind::Tcp, 0, 1)
    );
    let service = v1::Backend {
        namespace: "shop".to_owned(),
        name: "app".to_owned(),
        port: 80,
    };
    assert_eq!(to.to, Some(v1::route_backend::To::Service(service)));
    let (kind, hosts, to) = backend(1);
    assert_eq!(
        (kind, hosts),
        (v1::StreamRouteKind::Tls, vec!["a.com".to_owned()])
    );
    let Some(v1::route_backend::To::Invalid(why)) = to.to else {
        panic!("{to:?}");
    };
    assert!(why.starts_with("BackendNotFound: "), "{why}");
}

/// A policy `shop/limit` that lets one request a second through, for a target.
fn limit(target: &str, more: &str) -> String {
    format!(
        "kind: ServerPolicy\nmetadata: {{name: limit, namespace: shop}}\nspec: {{targetRefs: [{target}], rateLimit: {{requests: 1, key: sourceIp}}{more}}}\n---\n"
    )
}

#[test]
fn a_gateway_keeps_the_rates_of_routes_and_of_their_rules() {
    let routes = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec:\n  parentRefs: [{name: public}, {kind: Service, name: app}]\n  rules:\n  - {name: buy, matches: [{path: {value: /buy}}], backendRefs: [{name: app, port: 80}]}\n  - {backendRefs: [{name: app, port: 80}]}\n---\n";
    let base = format!(
        "{APP}{}{routes}",
        gateway("{name: http, port: 80, protocol: HTTP}")
    );
    for (target, expected) in [
        ("{kind: HTTPRoute, name: r}", [true, true]),
        (
            "{kind: HTTPRoute, name: r, sectionName: buy}",
            [true, false],
        ),
    ] {
        let world = world_of(&format!("{base}{}", limit(target, "")));
        let listeners = told_of(&world).listeners;
        let rules = &listeners[0].http_routes[0].rules;
        let limited: Vec<bool> = rules.iter().map(|it| it.rate_limit.is_some()).collect();
        assert_eq!(limited, expected, "{target}");
        let kept = rules[0].rate_limit.as_ref().unwrap();
        assert_eq!(kept.key(), v1::RateLimitKey::SourceIp);
        let registry = nobody();
        let app = ServiceName::new("shop", "app");
        let at_service = selvage_core::view::view_service(&world, &registry, "shop", &app).unwrap();
        let rules = &at_service.http_routes[0].rules;
        assert!(
            rules.iter().all(|it| it.rate_limit.is_none()),
            "callers keep none"
        );
        let name = ServiceName::new("shop", "public");
        let sent = selvage_core::view::gateway_resource(&world, &registry, &name).unwrap();
        assert!(sent.features.iter().any(|it| it == "rate-limit-source"));
    }
}

#[test]
fn a_rate_that_nobody_would_keep_is_refused_or_warned_of() {
    let concurrency = limit(
        "{kind: HTTPRoute, name: r}",
        ", concurrency: {mode: fixed, max: 1}",
    );
    let refused = told(&selvage_core::parse::parse("test", &concurrency).unwrap_err());
    assert!(
        refused[0].contains("spec.concurrency: of a route only `rateLimit` can be said"),
        "{refused:?}"
    );
    let port = limit("{kind: HTTPRoute, name: r, port: 80}", "");
    let refused = told(&selvage_core::parse::parse("test", &port).unwrap_err());
    assert!(
        refused[0].contains("spec.targetRefs[0].port: a route has no ports of its own"),
        "{refused:?}"
    );
    let mesh = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{kind: Service, group: '', name: app}], rules: [{backendRefs: [{name: app, port: 80}]}]}\n---\n";
    let mut world = world_of(&format!("{APP}{mesh}"));
    let change = apply(&mut world, &limit("{kind: HTTPRoute, name: r}", "")).unwrap();
    let warned = told(&change.warnings);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("spec.targetRefs[0].name: HTTPRoute shop/r has no Gateway as a parent"),
        "{warned:?}"
    );
}

#[test]
fn what_is_likely_not_as_meant_is_warned_of_where_it_stands() {
    let mut world = world_of(APP);
    let text =
        gateway("{name: web, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}")
            + &route("HTTPRoute", "shop", "r", "sectionName: wep", "");
    let change = apply(&mut world, &text).unwrap();
    assert_eq!(
        told(&change.warnings),
        [
            "4:43 spec.listeners[0]: there is no Secret shop/gone",
            "9:21 spec.parentRefs[0]: no listener of Gateway shop/public has this name and port",
        ]
    );
}
