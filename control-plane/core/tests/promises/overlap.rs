//! Routes in each other's way are told with both places, and nothing else is.

use std::time::{Duration, Instant};

use selvage_core::parse::parse;

use crate::{LENIENT, apply, mesh, told, world_of};

/// An HTTPRoute on the service `ratings`; `rules` in flow style.
fn route(name: &str, rules: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{kind: Service, name: ratings}}]\n  rules:\n{rules}---\n"
    )
}

const SERVICE: &str =
    "kind: Service\nmetadata: {name: ratings, namespace: shop}\nspec: {ports: [{port: 80}]}\n---\n";
const TO: &str = "backendRefs: [{name: ratings, port: 80}]";

fn rule(matches: &str) -> String {
    format!("  - {{matches: [{matches}], {TO}}}\n")
}

/// What is told of these documents, applied together.
fn found(text: &str) -> Vec<String> {
    told(&apply(&mut mesh(), text).unwrap().warnings)
}

#[test]
fn of_equal_matches_the_older_route_wins() {
    let a = route("a", &rule("{path: {value: /v1}}"));
    let b = route("b", &rule("{path: {type: PathPrefix, value: /v1/}}"));
    assert_eq!(
        found(&format!("{SERVICE}{a}{b}")),
        [
            "17:5 spec.rules[0]: no request reaches this rule at Service shop/ratings: \
             `spec.rules[0].matches[0]` of HTTPRoute shop/a asks for the same, and the older route wins, \
             then the first by name / that one stands at test.yaml:10:16"
        ]
    );
}

#[test]
fn who_comes_in_before_a_route_is_told_whom_it_hides() {
    let old = route("z", &rule("{path: {value: /v1}}"));
    let new = route("a", &rule("{path: {value: /v1}}"));
    let mut world = world_of(&format!("{SERVICE}{old}"));
    let young = apply(&mut world, &new).unwrap();
    assert_eq!(
        young.warnings.as_slice().len(),
        1,
        "{:?}",
        told(&young.warnings)
    );
    assert!(told(&young.warnings)[0].contains("of HTTPRoute shop/z asks for the same"));
    // The older one again, changed: it is the cause, and so it is told.
    let again = old.replace("/v1}}", "/v1}, method: GET}");
    assert_eq!(
        told(&apply(&mut world, &again).unwrap().warnings),
        Vec::<String>::new()
    );
    let again = told(&apply(&mut world, &old).unwrap().warnings);
    assert_eq!(
        again,
        [
            "6:16 spec.rules[0].matches[0]: this takes every request from `spec.rules[0]` of HTTPRoute shop/a at \
             Service shop/ratings / that one stands at test.yaml:6:5"
        ]
    );
}

#[test]
fn nothing_is_told_of_matches_that_differ() {
    let different = [
        "{path: {value: /v1}}",
        "{path: {type: Exact, value: /v1}}",
        "{path: {type: Exact, value: /v1/}}",
        "{path: {type: RegularExpression, value: /v1}}",
        "{path: {value: /v1}, method: GET}",
        "{path: {value: /v1}, method: POST}",
        "{path: {value: /v1}, headers: [{name: x, value: a}]}",
        "{path: {value: /v1}, headers: [{name: x, value: b}]}",
        "{path: {value: /v1}, headers: [{name: x, value: a, type: RegularExpression}]}",
        "{path: {value: /v1}, headers: [{name: x, value: a}, {name: y, value: a}]}",
        "{path: {value: /v1}, queryParams: [{name: x, value: a}]}",
        "{path: {value: /v1}, queryParams: [{name: X, value: a}]}",
        "{path: {value: /}}",
        "{method: GET}",
    ];
    let all: String = different
        .iter()
        .enumerate()
        .map(|(index, it)| route(&format!("r{index}"), &rule(it)))
        .collect();
    assert_eq!(found(&format!("{SERVICE}{all}")), Vec::<String>::new());
}

#[test]
fn equal_matches_are_told_however_they_are_written() {
    for (one, other) in [
        ("{path: {value: /}}", "{}"),
        ("{path: {value: /a%7e}}", "{path: {value: /a~}}"),
        (
            "{headers: [{name: X-A, value: a}, {name: b, value: b}]}",
            "{headers: [{name: B, value: b}, {name: x-a, value: a}]}",
        ),
        (
            "{path: {type: RegularExpression, value: /.*}}",
            "{path: {value: /v1}, method: GET}",
        ),
        (
            "{path: {type: RegularExpression, value: .*}, method: GET}",
            "{path: {value: /v1}, method: GET}",
        ),
    ] {
        let rules = format!("{}{}", rule(one), rule(other));
        let found = found(&format!("{SERVICE}{}", route("a", &rules)));
        assert_eq!(found.len(), 1, "{one} {other} {found:?}");
        assert!(
            found[0].contains("spec.rules[1]: no request reaches this rule"),
            "{found:?}"
        );
    }
    let rules = format!(
        "{}{}",
        rule("{path: {type: RegularExpression, value: /.*}, method: GET}"),
        rule("{path: {value: /v1}}")
    );
    assert_eq!(
        found(&format!("{SERVICE}{}", route("a", &rules))),
        Vec::<String>::new()
    );
}

#[test]
fn one_match_of_several_is_told_alone() {
    let rules = rule("{path: {value: /a}}, {path: {value: /b}}, {path: {value: /a}}");
    assert_eq!(
        found(&format!("{SERVICE}{}", route("a", &rules))),
        [
            "10:58 spec.rules[0].matches[2]: no request reaches this match: `spec.rules[0].matches[0]` asks for the \
             same, and the first one wins / that one stands at test.yaml:10:16"
        ]
    );
}

#[test]
fn routes_of_different_parents_namespaces_and_kinds_are_not_compared() {
    let a = route("a", &rule("{path: {value: /v1}}"));
    let elsewhere = a.replace("name: a,", "name: b,").replace(
        "kind: Service, name: ratings",
        "kind: Service, name: ratings, port: 80",
    );
    let ports = a.replace("name: a,", "name: c,").replace(
        "kind: Service, name: ratings",
        "kind: Service, name: ratings, port: 81",
    );
    let consumer = a.replace("namespace: shop", "namespace: web").replace(
        "kind: Service, name: ratings",
        "kind: Service, name: ratings, namespace: shop",
    );
    let same_port = found(&format!("{SERVICE}{elsewhere}{a}"));
    assert_eq!(same_port.len(), 1, "{same_port:?}");
    assert!(
        same_port[0].contains("at Service shop/ratings, port 80:"),
        "{same_port:?}"
    );
    let apart = found(&format!("{SERVICE}{elsewhere}{ports}{consumer}"));
    let overlapping: Vec<_> = apart
        .iter()
        .filter(|it| it.contains("no request"))
        .collect();
    assert!(overlapping.is_empty(), "{overlapping:?}");
}

#[test]
fn a_rule_that_leads_nowhere_is_told() {
    let rules = "  - {matches: [{path: {value: /none}}]}\n  \
                 - {matches: [{path: {value: /zero}}], backendRefs: [{name: ratings, port: 80, weight: 0}]}\n  \
                 - {matches: [{path: {value: /away}}], filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]}\n";
    assert_eq!(
        found(&format!("{SERVICE}{}", route("a", rules))),
        [
            "10:5 spec.rules[0]: this rule has no backend: every request it takes is answered with 500",
            "11:5 spec.rules[1]: no backend of this rule has any weight: every request it takes is answered with 500",
        ]
    );
}

/// How long it takes to compare so many routes, of which the last is the twin of another.
fn compared(routes: usize, parsed_each: impl Fn(usize) -> String) -> Duration {
    let text: String = (0..routes).map(parsed_each).collect();
    let twin = route("twin", &rule("{path: {value: /77}}"));
    let parsed = parse("test.yaml", &format!("{SERVICE}{text}{twin}")).unwrap();
    let begun = Instant::now();
    let found = told(&mesh().plan(parsed, LENIENT).unwrap().1.warnings);
    let took = begun.elapsed();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("of HTTPRoute shop/r77 "), "{found:?}");
    took
}

#[test]
fn the_cost_grows_with_the_routes_and_not_with_their_pairs() {
    let each = |index| {
        route(
            &format!("r{index}"),
            &rule(&format!("{{path: {{value: /{index}}}}}")),
        )
    };
    let (few, many) = (compared(250, each), compared(2_500, each));
    println!("251 routes compared in {few:?}, 2,501 in {many:?}");
    // By pairs it would be a hundred times as much.
    assert!(many < few * 50, "{few:?} {many:?}");
}

#[test]
fn at_a_gateway_hosts_are_compared_too() {
    let gateway = "kind: Gateway\nmetadata: {name: public, namespace: shop}\nspec:\n  gatewayClassName: selvage\n  \
                   listeners: [{name: web, port: 80, protocol: HTTP, hostname: '*.example'}]\n---\n";
    let route = |name: &str, hosts: &str| {
        format!(
            "kind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{name: public}}]\n  \
             hostnames: [{hosts}]\n  rules: [{{{TO}}}]\n---\n"
        )
    };
    let apart = format!(
        "{SERVICE}{gateway}{}{}",
        route("a", "a.example"),
        route("b", "b.example, '*.example'")
    );
    assert_eq!(found(&apart), Vec::<String>::new());
    let partly = found(&format!(
        "{SERVICE}{gateway}{}{}",
        route("a", "a.example"),
        route("b", "a.example, b.example")
    ));
    assert_eq!(partly.len(), 1, "{partly:?}");
    assert!(
        partly[0].contains("spec.rules[0]: no request reaches this match at Gateway shop/public, listener `web` for a.example:"),
        "{partly:?}"
    );
    let stranger = found(&format!("{SERVICE}{gateway}{}", route("a", "a.other")));
    assert_eq!(
        stranger,
        ["14:16 spec.parentRefs[0]: no listener of Gateway shop/public is for any of its hosts"]
    );
}

#[test]
fn a_parent_without_such_a_port_is_told() {
    let text = route("a", &rule("{path: {value: /v1}}")).replace(
        "name: ratings}]\n  rules",
        "name: ratings, port: 81}]\n  rules",
    );
    let found = found(&format!("{SERVICE}{text}"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("spec.parentRefs[0]: the service shop/ratings has no port 81"),
        "{found:?}"
    );
}
