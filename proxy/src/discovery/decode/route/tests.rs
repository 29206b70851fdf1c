//! Messages of routes, what becomes of them, and what is refused by which name.

use http::Method;
use http::header::HeaderMap;
use selvage_policy::route::{Asked, PathEdit};

use super::*;

fn to(name: &str, weight: u32) -> v1::RouteBackend {
    let service = v1::Backend {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: 80,
    };
    v1::RouteBackend {
        to: Some(v1::route_backend::To::Service(service)),
        weight,
        ..v1::RouteBackend::default()
    }
}

fn path(kind: v1::RoutePathMatchType, value: &str) -> v1::HttpMatch {
    v1::HttpMatch {
        path: Some(v1::RoutePathMatch {
            r#type: kind.into(),
            value: value.to_owned(),
        }),
        ..v1::HttpMatch::default()
    }
}

fn route(name: &str, port: u32, rules: Vec<v1::HttpRule>) -> v1::HttpRoute {
    v1::HttpRoute {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        kind: v1::RouteKind::Http.into(),
        hostnames: Vec::new(),
        port,
        rules,
    }
}

fn rule_to(name: &str) -> v1::HttpRule {
    v1::HttpRule {
        name: "0".to_owned(),
        backends: vec![to(name, 1)],
        ..v1::HttpRule::default()
    }
}

fn filter(filter: v1::filter::Filter) -> v1::Filter {
    v1::Filter {
        filter: Some(filter),
    }
}

fn found(attached: &Attached, port: u16, path: &str) -> Option<String> {
    let (method, headers) = (Method::GET, HeaderMap::new());
    let asked = Asked {
        host: Some("ratings.shop"),
        method: &method,
        path,
        query: None,
        headers: &headers,
    };
    let table = attached.routes(port)?;
    Some(table.find(&asked)?.rule.label.to_string())
}

#[test]
fn each_port_has_the_routes_that_are_attached_to_it() {
    let everywhere = v1::HttpRule {
        matches: vec![path(v1::RoutePathMatchType::Prefix, "/all/")],
        ..rule_to("one")
    };
    let messages = [
        route("everywhere", 0, vec![everywhere]),
        route("of-81", 81, vec![rule_to("two")]),
    ];
    let attached = Attached::decode(&messages, &[]).expect("well-formed");
    let label = |port, path| found(&attached, port, path);
    assert_eq!(label(80, "/all").as_deref(), Some("shop/everywhere/0"));
    assert_eq!(label(80, "/other"), None);
    assert_eq!(label(81, "/other").as_deref(), Some("shop/of-81/0"));
    let nothing = Attached::decode(&[], &[]).expect("nothing");
    assert!(nothing.routes(80).is_none(), "goes to its endpoints");
    let same = |a: u16, b: u16| match (attached.routes(a), attached.routes(b)) {
        (Some(a), Some(b)) => Arc::ptr_eq(&a, &b),
        _ => false,
    };
    assert!(
        same(80, 8080),
        "ports without routes of their own share one table"
    );
}

#[test]
fn backends_with_equal_policies_share_one() {
    let policy = v1::TrafficPolicy {
        timeouts: Some(v1::Timeouts::default()),
        circuit_breaker: Some(v1::CircuitBreaker {
            backoff: Some(v1::Backoff {
                base: Some(prost_types::Duration::default()),
                max: Some(prost_types::Duration::default()),
            }),
            ..v1::CircuitBreaker::default()
        }),
        limits: Some(v1::Limits::default()),
        load_balancer: v1::LoadBalancer::PeakEwma.into(),
        retry_budget: Some(v1::RetryBudget {
            interval: Some(prost_types::Duration::default()),
            ..v1::RetryBudget::default()
        }),
        ..v1::TrafficPolicy::default()
    };
    let with = |name| v1::RouteBackend {
        policy: Some(policy.clone()),
        ..to(name, 1)
    };
    let rule = v1::HttpRule {
        backends: vec![with("one"), with("two"), to("three", 0)],
        ..rule_to("one")
    };
    let mut policies = Policies::default();
    let decoded = http_route(&route("a", 0, vec![rule]), &mut policies).expect("well-formed");
    let [one, two, three] = &decoded.rules[0].backends[..] else {
        panic!("three backends");
    };
    assert!(three.policy.is_none());
    let (one, two) = (one.policy.as_ref(), two.policy.as_ref());
    assert!(Arc::ptr_eq(one.expect("set"), two.expect("set")));
}

#[test]
fn filters_are_taken_as_they_are_said() {
    let prefix = v1::PathModifier {
        path: Some(v1::path_modifier::Path::Prefix("/v2".to_owned())),
    };
    let rule = v1::HttpRule {
        filters: vec![
            filter(v1::filter::Filter::Rewrite(v1::Rewrite {
                hostname: String::new(),
                path: Some(prefix),
            })),
            filter(v1::filter::Filter::ResponseHeaders(v1::HeaderModifier {
                remove: vec!["X-Inner".to_owned()],
                ..v1::HeaderModifier::default()
            })),
        ],
        ..rule_to("one")
    };
    let decoded = http_route(&route("a", 0, vec![rule]), &mut Policies::default());
    let decoded = decoded.expect("well-formed");
    let filters = &decoded.rules[0].filters;
    let rewrite = filters.rewrite.as_ref().expect("a rewrite");
    assert_eq!(rewrite.hostname, None);
    assert_eq!(rewrite.path, Some(PathEdit::Prefix("/v2".into())));
    let edits = filters.response_headers.as_ref().expect("edits");
    assert_eq!(edits.remove, ["x-inner"]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let redirect = || {
        filter(v1::filter::Filter::Redirect(v1::Redirect {
            status: 302,
            ..v1::Redirect::default()
        }))
    };
    let own = v1::HeaderModifier {
        set: vec![v1::Header {
            name: "x-selvage-flag".to_owned(),
            value: "denied".to_owned(),
        }],
        ..v1::HeaderModifier::default()
    };
    let cases: [(v1::HttpRule, &str); 8] = [
        (
            v1::HttpRule {
                matches: vec![path(v1::RoutePathMatchType::Regex, "a)(b")],
                ..rule_to("one")
            },
            "match.path",
        ),
        (
            v1::HttpRule {
                matches: vec![path(v1::RoutePathMatchType::Exact, "no-slash")],
                ..rule_to("one")
            },
            "match.path",
        ),
        (
            v1::HttpRule {
                filters: vec![redirect(), redirect()],
                ..rule_to("one")
            },
            "filter.redirect",
        ),
        (
            v1::HttpRule {
                filters: vec![filter(v1::filter::Filter::RequestHeaders(own))],
                ..rule_to("one")
            },
            "filter.request_headers",
        ),
        (
            v1::HttpRule {
                filters: vec![filter(v1::filter::Filter::Redirect(v1::Redirect {
                    status: 200,
                    ..v1::Redirect::default()
                }))],
                ..rule_to("one")
            },
            "redirect.status",
        ),
        (
            v1::HttpRule {
                backends: vec![v1::RouteBackend {
                    filters: vec![redirect()],
                    ..to("one", 1)
                }],
                ..rule_to("one")
            },
            "backend.filter.redirect",
        ),
        (
            v1::HttpRule {
                session: Some(v1::SessionPersistence {
                    name: "stay".to_owned(),
                    header: true,
                    permanent: true,
                    ..v1::SessionPersistence::default()
                }),
                ..rule_to("one")
            },
            "session.permanent",
        ),
        (
            v1::HttpRule {
                backends: vec![v1::RouteBackend::default()],
                ..rule_to("one")
            },
            "backend.to",
        ),
    ];
    for (rule, field) in cases {
        let decoded = http_route(&route("a", 0, vec![rule]), &mut Policies::default());
        let error = decoded.expect_err(field).to_string();
        assert!(
            error.starts_with(&format!("route shop/a: {field}: ")),
            "{error}"
        );
    }
    for text in ["", "*", "*.", "a*b", "*a.b"] {
        assert!(hostname(text).is_err(), "{text}");
    }
}
