//! What is sent of a route, field by field.

use selvage_api::{feature, v1};
use selvage_core::resource::ServiceName;
use selvage_core::view::service_resource;
use v1::filter::Filter;

use super::attachment::{SERVICES, routes};
use crate::views::nobody;
use crate::world_of;

fn rules(kind: &str, rules: &str) -> Vec<v1::HttpRule> {
    let text = format!(
        "{SERVICES}kind: {kind}\nmetadata: {{name: r, namespace: shop}}\nspec: {{hostnames: [a.b], parentRefs: [{{kind: Service, name: ratings, port: 80}}], rules: [{rules}]}}\n"
    );
    let mut routes = routes(&world_of(&text), "shop");
    assert_eq!(routes.len(), 1);
    // At a service the authority has chosen already.
    assert!(routes[0].hostnames.is_empty());
    routes.remove(0).rules
}

fn matches(kind: &str, text: &str) -> Vec<v1::HttpMatch> {
    rules(kind, &format!("{{matches: [{text}]}}"))
        .remove(0)
        .matches
}

fn field(name: &str, value: &str, regex: bool) -> v1::FieldMatch {
    v1::FieldMatch {
        name: name.to_owned(),
        value: value.to_owned(),
        regex,
    }
}

#[test]
fn rules_are_called_by_name_or_index() {
    let names: Vec<_> = rules("HTTPRoute", "{name: first}, {}, {name: third}")
        .into_iter()
        .map(|rule| rule.name)
        .collect();
    assert_eq!(names, ["first", "1", "third"]);
}

#[test]
fn a_route_without_rules_takes_all_or_nothing() {
    let text = |kind: &str| {
        format!(
            "{SERVICES}kind: {kind}\nmetadata: {{name: r, namespace: shop}}\nspec: {{parentRefs: [{{kind: Service, name: ratings}}]}}\n"
        )
    };
    let http = routes(&world_of(&text("HTTPRoute")), "shop");
    assert_eq!(http[0].rules.len(), 1);
    assert!(http[0].rules[0].backends.is_empty());
    let grpc = routes(&world_of(&text("GRPCRoute")), "shop");
    assert!(grpc[0].rules.is_empty());
}

#[test]
fn matches_are_sent_as_requests_are_compared() {
    let path = |kind: v1::RoutePathMatchType, value: &str| {
        Some(v1::RoutePathMatch {
            r#type: kind.into(),
            value: value.to_owned(),
        })
    };
    let table = [
        ("{}", None),
        ("{path: {}}", path(v1::RoutePathMatchType::Prefix, "/")),
        (
            "{path: {value: /a%2dc/}}",
            path(v1::RoutePathMatchType::Prefix, "/a-c"),
        ),
        (
            "{path: {type: Exact, value: /a/%c3%a9}}",
            path(v1::RoutePathMatchType::Exact, "/a/%C3%A9"),
        ),
        (
            "{path: {type: RegularExpression, value: '/v[12]'}}",
            path(v1::RoutePathMatchType::Regex, "/v[12]"),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(matches("HTTPRoute", text)[0].path, expected, "{text}");
    }
    let whole = matches(
        "HTTPRoute",
        "{method: PUT, headers: [{name: X-A, value: b}, {name: c, type: RegularExpression, value: d+}], queryParams: [{name: E, value: f}]}",
    );
    assert_eq!(
        whole[0],
        v1::HttpMatch {
            path: None,
            grpc: None,
            method: "PUT".to_owned(),
            headers: vec![field("x-a", "b", false), field("c", "d+", true)],
            query: vec![field("E", "f", false)],
        }
    );
}

#[test]
fn calls_are_matched_by_service_and_method() {
    let sent = matches(
        "GRPCRoute",
        "{method: {service: .foo.Bar, method: Get}}, {method: {type: RegularExpression, method: 'G.*'}}, {headers: [{name: A, value: b}]}",
    );
    let grpc = |service: &str, method: &str, regex| {
        Some(v1::GrpcMatch {
            service: service.to_owned(),
            method: method.to_owned(),
            regex,
        })
    };
    assert_eq!(sent[0].grpc, grpc("foo.Bar", "Get", false));
    assert_eq!(sent[1].grpc, grpc("", "G.*", true));
    assert_eq!(sent[2].grpc, grpc("", "", false));
    assert_eq!(sent[2].headers, [field("a", "b", false)]);
}

/// The filters of a rule.
fn filters(text: &str) -> Vec<Filter> {
    rules("HTTPRoute", &format!("{{filters: [{text}]}}"))
        .remove(0)
        .filters
        .into_iter()
        .map(|filter| filter.filter.unwrap())
        .collect()
}

#[test]
fn filters_are_sent_in_their_order() {
    let header = |name: &str, value: &str| v1::Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let sent = filters(
        "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: A, value: B}], add: [{name: C, value: d}], remove: [E]}}, \
         {type: RequestRedirect, requestRedirect: {scheme: https, hostname: a.b, port: 8443, path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}, \
         {type: CORS, cors: {allowOrigins: ['*'], allowCredentials: true}}",
    );
    assert_eq!(
        sent,
        [
            Filter::ResponseHeaders(v1::HeaderModifier {
                set: vec![header("a", "B")],
                add: vec![header("c", "d")],
                remove: vec!["e".to_owned()],
            }),
            Filter::Redirect(v1::Redirect {
                scheme: "https".to_owned(),
                hostname: "a.b".to_owned(),
                path: Some(v1::PathModifier {
                    path: Some(v1::path_modifier::Path::Prefix(String::new())),
                }),
                port: 8443,
                status: 302,
            }),
            Filter::Cors(v1::Cors {
                allow_origins: vec!["*".to_owned()],
                allow_credentials: true,
                max_age: 5,
                ..v1::Cors::default()
            }),
        ]
    );
    let rewrite = filters(
        "{type: URLRewrite, urlRewrite: {hostname: a.b, path: {type: ReplaceFullPath, replaceFullPath: /c}}}",
    );
    assert_eq!(
        rewrite,
        [Filter::Rewrite(v1::Rewrite {
            hostname: "a.b".to_owned(),
            path: Some(v1::PathModifier {
                path: Some(v1::path_modifier::Path::Full("/c".to_owned())),
            }),
        })]
    );
}

#[test]
fn mirrors_that_lead_nowhere_are_left_out() {
    let shares = |share: &str| -> Vec<u32> {
        let text = format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: ratings-v2, port: 80}}{share}}}}}"
        );
        filters(&text)
            .into_iter()
            .map(|filter| match filter {
                Filter::Mirror(mirror) => mirror.millionths,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    for (share, expected) in [
        ("", vec![1_000_000]),
        (", percent: 42", vec![420_000]),
        (", percent: 0", vec![]),
        (", fraction: {numerator: 1, denominator: 2}", vec![500_000]),
        (", fraction: {numerator: 5}", vec![50_000]),
        (
            ", fraction: {numerator: 1, denominator: 2000000000}",
            vec![1],
        ),
    ] {
        assert_eq!(shares(share), expected, "{share}");
    }
    let nowhere = filters(
        "{type: RequestMirror, requestMirror: {backendRef: {name: nowhere, port: 80}}}, {type: RequestMirror, requestMirror: {backendRef: {name: ratings, port: 90}}}",
    );
    assert_eq!(nowhere.len(), 1);
}

#[test]
fn shares_and_filters_of_backends_are_their_own() {
    let sent = rules(
        "HTTPRoute",
        "{backendRefs: [{name: ratings, port: 80, weight: 0}, {name: nowhere, port: 80, weight: 3}, {name: ratings-v2, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}]}]}",
    );
    let backends = &sent[0].backends;
    let weights: Vec<_> = backends.iter().map(|backend| backend.weight).collect();
    assert_eq!(weights, [0, 3, 1]);
    let filters: Vec<_> = backends
        .iter()
        .map(|backend| backend.filters.len())
        .collect();
    assert_eq!(filters, [0, 0, 1]);
}

#[test]
fn a_session_without_a_name_has_one_of_its_own() {
    let sent = rules(
        "HTTPRoute",
        "{sessionPersistence: {}}, {sessionPersistence: {type: Header, idleTimeout: 1m}}, {sessionPersistence: {sessionName: mine, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}}",
    );
    let sessions: Vec<_> = sent.into_iter().map(|rule| rule.session.unwrap()).collect();
    assert!(sessions[0].name.starts_with("selvage-session-"));
    assert!(sessions[1].name.starts_with("selvage-session-"));
    assert_ne!(sessions[0].name, sessions[1].name);
    let told: Vec<_> = sessions
        .iter()
        .map(|it| (it.header, it.permanent))
        .collect();
    assert_eq!(told, [(false, false), (true, false), (false, true)]);
    assert_eq!(sessions[2].name, "mine");
    assert_eq!(sessions[2].absolute_timeout.unwrap().seconds, 3600);
    assert_eq!(sessions[1].idle_timeout.unwrap().seconds, 60);
}

#[test]
fn a_reader_must_know_routes_and_what_their_policies_say() {
    let features = |text: &str| {
        let name = ServiceName::new("shop", "ratings");
        let world = world_of(&format!("{SERVICES}{text}"));
        service_resource(&world, &nobody(), "shop", &name)
            .unwrap()
            .features
    };
    assert!(features("").is_empty());
    let route = "kind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{kind: Service, name: ratings}], rules: [{backendRefs: [{name: ratings-v2, port: 80}]}]}\n---\n";
    assert_eq!(features(route), [feature::ROUTES]);
    let policy = "kind: TrafficPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: HTTPRoute, name: r}], fault: {abort: {percent: 10, status: 503}}}\n";
    assert_eq!(
        features(&format!("{route}{policy}")),
        [feature::ROUTES, feature::FAULT]
    );
}
